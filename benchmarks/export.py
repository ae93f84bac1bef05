"""Measures exported files: their bytes by head and format, and what weights of 8 bits cost.

    python benchmarks/export.py sizes
    python benchmarks/export.py accuracy RUN ... [--images=N]

`sizes` writes each network, with the weights it starts with, for 1,000 classes in every format, and
prints a table; it needs the extras `export`, `export-onnx` and `export-litert`. `accuracy` shows
the exported StableHLO of trained runs the images that each is evaluated on, with float32 weights
and with 8 bits.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fixed_head_jax.data import open_dataset
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.export import SUFFIXES, export
from fixed_head_jax.inference import Predictor, Preprocessing, load
from fixed_head_jax.model import get_model
from fixed_head_jax.storage.workdir import read_config

CLASSES, SIZE = 1000, 224
BACKBONES = ("mobilenet_v2", "shufflenet_v2_x0_5")
# Name in the table -> head, and options of the backbone.
HEADS = {
    "linear": ("linear", {}),
    "orthogonal": ("orthogonal", {}),
    "hadamard": ("hadamard", {}),
    "identity": ("identity", {}),
    "identity, 1,000 channels": ("identity", {"out_channels": CLASSES}),
}
BATCH = 100


def make_predictor(backbone: str, head: str, options: dict) -> Predictor:
    """Returns a network with the weights it starts with."""
    model = get_model(CLASSES, backbone, head, backbone_options=options)
    shape = (SIZE, SIZE, 3)
    init = jax.jit(lambda rng: model.init(rng, jnp.zeros((1, *shape)), train=False))
    names = tuple(f"class {index}" for index in range(CLASSES))
    preprocessing = Preprocessing(
        shape, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    return Predictor(backbone, model, init(jax.random.key(0)), preprocessing, names)


def file_sizes(predictor: Predictor) -> list[int]:
    """Returns the bytes of every format, and of those with weights of 8 bits."""
    cases = [(format, False) for format in SUFFIXES]
    cases += [(format, True) for format in SUFFIXES if format != "torch"]
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for format, int8 in cases:
            path = Path(folder, f"model{SUFFIXES[format]}")
            export(predictor, path, format, int8=int8)
            sizes.append(path.stat().st_size)
    return sizes


def print_sizes() -> None:
    heads = [*SUFFIXES, *(f"{format}, 8 bits" for format in SUFFIXES if format != "torch")]
    rows = [["network", "head", *(f"{name} (kB)" for name in heads)]]
    for backbone in BACKBONES:
        for name, (head, options) in HEADS.items():
            sizes = file_sizes(make_predictor(backbone, head, options))
            rows.append([backbone, name, *(f"{size / 1000:,.0f}" for size in sizes)])
            print(", ".join(rows[-1]), flush=True)
    print(markdown(rows))


def exported_probabilities(predictor: Predictor, images: np.ndarray, int8: bool) -> np.ndarray:
    """Returns what the file gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.stablehlo")
        export(predictor, path, "stablehlo", int8=int8)
        program = jax.export.deserialize(bytearray(path.read_bytes()))
    call = jax.jit(program.call)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return np.concatenate([np.asarray(call(batch)[0]) for batch in batches])


def print_accuracy(runs: list[str], count: int | None) -> None:
    rows = [["run", "images", "float32 (%)", "8 bits (%)", "same class (%)", "largest change"]]
    for run in runs:
        predictor, config = load(run, "last"), read_config(Path(run))
        source = open_dataset(
            config["data.name"], config["data.eval_split"], config["data_dir"],
            image_size=config["data.image_size"],
        ).source  # fmt: skip
        images, labels = source.read(np.arange(len(source))[:count])
        whole, small = (exported_probabilities(predictor, images, int8) for int8 in (False, True))
        best = whole.argmax(1), small.argmax(1)
        shares = [*(best[i] == labels for i in (0, 1)), best[0] == best[1]]
        change = f"{np.abs(whole - small).max():.4f}"
        rows.append([run, len(images), *(f"{100 * share.mean():.2f}" for share in shares), change])
    print(markdown(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sizes")
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("runs", nargs="+", metavar="RUN")
    accuracy.add_argument("--images", type=int, help="the first so many")
    options = parser.parse_args()
    if options.command == "sizes":
        print_sizes()
    else:
        print_accuracy(options.runs, options.images)


if __name__ == "__main__":
    main()
