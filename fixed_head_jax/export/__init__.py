"""A trained model as a file that runs without this package.

python -m fixed_head_jax.export RUN --format=stablehlo --out=model.stablehlo
"""

from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import save_file

from fixed_head_jax import pretrained
from fixed_head_jax.export.program import make_program
from fixed_head_jax.export.stablehlo import to_stablehlo
from fixed_head_jax.inference import Predictor
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.storage.files import replacing, write_json

SUFFIXES = {"stablehlo": ".stablehlo", "torch": ".safetensors"}
OUTPUTS = ("probabilities", "logits", "features", "feature_map")


def export(
    predictor: Predictor,
    out: str | Path,
    format: str,
    outputs: Sequence[str] = ("probabilities",),
    takes_levels: bool = True,
) -> Path:
    """Writes a model, and beside it a JSON file of all that is needed to use it.

    Args:
        predictor: of `inference.load`.
        out: the file, ending as `SUFFIXES` says.
        format: "stablehlo", a serialised program of `jax.export` for CPU, GPU and TPU and for
            batches of any size; or "torch", the weights by their torch names.
        outputs: of `OUTPUTS`, what the program gives, in this order.
        takes_levels: whether the program takes uint8 images of the model's size, and normalises
            them itself; or normalised float32 ones.

    Returns:
        The path of the JSON file: class names, shape, mean and std, how images are resized.

    Raises:
        ValueError: on an unknown format or output, or a file that cannot be written.
    """
    check_choice("format", format, SUFFIXES)
    for name in outputs:
        check_choice("output", name, OUTPUTS)
    path = Path(out).expanduser()
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"--out={str(out)!r} must end in {SUFFIXES[format]} for {format}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--out={str(out)!r} is in no folder that there is; make it")
    if format == "torch":
        with replacing(path) as partial:
            save_file(pretrained.to_torch(predictor.variables, predictor.model), partial)
        program = {}
    else:
        made = make_program(predictor, outputs, takes_levels)
        content = to_stablehlo(made, predictor, takes_levels)
        with replacing(path) as partial:
            partial.write_bytes(content)
        program = {"outputs": list(outputs), "input": "uint8" if takes_levels else "float32"}
    write_json(path.with_suffix(".json"), {**describe(predictor), **program})
    return path.with_suffix(".json")


def describe(predictor: Predictor) -> dict:
    """Returns what has to be known of a model to use it: its input and its classes."""
    shape, resize_size, interpolation, mean, std = predictor.preprocessing
    return {
        "class_names": list(predictor.class_names),
        "image_shape": list(shape),
        "resize_size": resize_size or shape[0],
        "interpolation": interpolation,
        "mean": list(mean),
        "std": list(std),
    }
