"""Plays the pointing game: do class maps point at the digit that they are of?

Trains the small network of `configs/digits.py` with an identity and with a learned head, under the
same seeds, and shows it mosaics of four test digits. Of each digit that is the only one of its
class in a mosaic, the map of its class points right if its largest value lies in that digit's
quarter; chance is 25 %. Maps: the feature map of an identity head as it is, class activation maps
(CAM) of a learned head, Grad-CAM of both. Prints the shares seed by seed and a table: mean over
seeds, and the 95 % interval of Student's t.

    python benchmarks/class_maps.py --workdir=runs/pointing
"""

import argparse
import datetime
import platform
import re
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from scipy.stats import t

import fixed_head_jax as fhj
from fixed_head_jax.data import open_dataset
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.inference.maps import class_maps, grad_cam

HEADS = ("identity", "linear")


def make_mosaics(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Returns mosaics [count, 2h, 2w, c] of four images drawn at random, and labels [count, 4].

    Quarters are counted row by row.
    """
    drawn = np.random.default_rng(0).integers(0, len(images), (count, 4))
    parts = images[drawn]
    rows = [np.concatenate([parts[:, i], parts[:, i + 1]], axis=2) for i in (0, 2)]
    return np.concatenate(rows, axis=1), labels[drawn]


def quarter_of_largest(maps: np.ndarray) -> np.ndarray:
    """Returns the quarter, 0 ... 3, in which each map [n, h, w] is largest; h and w are even."""
    _, height, width = maps.shape
    row, column = np.divmod(maps.reshape(len(maps), -1).argmax(1), width)
    return 2 * (row >= height // 2) + (column >= width // 2)


def play(predictor, mosaics: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the share (%) of the maps of each kind that point at the right quarter."""
    seen = predictor.at_size(mosaics.shape[1])
    feature_map = np.asarray(seen(mosaics).feature_map)
    lone = (labels[:, :, None] == labels[:, None]).sum(2) == 1
    which, quarters = np.nonzero(lone)
    classes = labels[which, quarters]
    every = np.asarray(
        class_maps(seen.model, seen.variables, feature_map, np.arange(len(seen.class_names)))
    )
    gradients = grad_cam(seen.model, seen.variables, feature_map[which], classes)
    kinds = {"class map": every[which, :, :, classes], "Grad-CAM": np.asarray(gradients)}
    return {
        kind: 100 * float((quarter_of_largest(maps) == quarters).mean())
        for kind, maps in kinds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mosaics", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--data_dir", default="", help="of the prepared digits")
    options = parser.parse_args()
    shares, accuracies = {}, {}
    for seed in range(options.seeds):
        for head in HEADS:
            values = {
                "seed": seed, "data_dir": options.data_dir, "total_epochs": options.epochs,
                "report": False,
            }  # fmt: skip
            folder = Path(options.workdir, head, f"seed{seed}")
            result = fhj.train(fhj.load_config(f"digits:{head}", values), folder)
            test = open_dataset("digits", "test", options.data_dir).source
            mosaics, labels = make_mosaics(*test.read(np.arange(len(test))), options.mosaics)
            found = play(fhj.load(folder, "last"), mosaics, labels)
            print(
                f"seed {seed} {head}: accuracy {result['eval/accuracy']:.2f} %, {found}", flush=True
            )
            accuracies.setdefault(head, []).append(result["eval/accuracy"])
            for kind, share in found.items():
                shares.setdefault((head, kind), []).append(share)
    cells = [["head", "map", "points at the right digit (%)", "seed by seed"]]
    for (head, kind), values in shares.items():
        cells.append([head, kind, _interval(values), ", ".join(f"{v:.1f}" for v in values)])
    print(markdown(cells))
    for head, values in accuracies.items():
        print(f"accuracy on single digits, {head}: {_interval(values)} %")
    gaps = np.subtract(shares["identity", "class map"], shares["linear", "class map"])
    print(f"identity minus learned, class maps, seed by seed paired: {_interval(gaps)} points")
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "numpy"))
    print(f"{datetime.date.today()}, {_processor()}, python {platform.python_version()} {versions}")


def _interval(values) -> str:
    mean, count = np.mean(values), len(values)
    half = t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return f"{mean:.1f} ± {half:.1f}"


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*:\s*(.*)", text)
    return f"{name[1] if name else platform.processor()}, {jax.device_count()} device"


if __name__ == "__main__":
    main()
