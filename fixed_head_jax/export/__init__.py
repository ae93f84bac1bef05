"""A trained model as a file that runs without this package.

python -m fixed_head_jax.export RUN --format=stablehlo --out=model.stablehlo
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from fixed_head_jax import pretrained
from fixed_head_jax.export.litert import to_litert
from fixed_head_jax.export.onnx import to_onnx
from fixed_head_jax.export.program import OUTPUTS, Program, make_program
from fixed_head_jax.export.stablehlo import to_stablehlo
from fixed_head_jax.inference import Predictor
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.storage.files import replacing, write_json

SUFFIXES = {
    "stablehlo": ".stablehlo", "onnx": ".onnx", "litert": ".tflite", "torch": ".safetensors",
}  # fmt: skip


def export(
    predictor: Predictor,
    out: str | Path,
    format: str,
    outputs: Sequence[str] = ("probabilities",),
    takes_levels: bool = True,
    int8: bool = False,
) -> Path:
    """Writes a model, and beside it a JSON file of all that is needed to use it.

    Args:
        predictor: of `inference.load`.
        out: the file, ending as `SUFFIXES` says.
        format: "stablehlo", a serialised program of `jax.export` for CPU, GPU and TPU; "onnx", the
            JSON file's values also as its metadata; "litert", for one image at a time (the others
            take batches of any size); or "torch", the weights by their torch names.
        outputs: of `OUTPUTS`, what the program gives, in this order. "class_maps" are those of
            `inference.maps`, of every class.
        takes_levels: whether the program takes uint8 images of the model's size, and normalises
            them itself; or normalised float32 ones.
        int8: whether to keep the weights as 8 bits, see `quantization`; not with "torch".

    Returns:
        The path of the JSON file: class names, shape, mean and std, how images are resized.

    Raises:
        ValueError: on an unknown format or output, a model that the format cannot hold, a file that
            cannot be written, or a package that is not installed.
    """
    check_choice("format", format, SUFFIXES)
    for name in outputs:
        check_choice("output", name, OUTPUTS)
    path = Path(out).expanduser()
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"--out={str(out)!r} must end in {SUFFIXES[format]} for {format}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--out={str(out)!r} is in no folder that there is; make it")
    if int8 and format == "torch":
        raise ValueError("--int8 is for programs; torch weights are float32, leave it out")
    described = describe(predictor)
    if format == "torch":
        content = save(pretrained.to_torch(predictor.variables, predictor.model))
    else:
        program = make_program(predictor, outputs, takes_levels, int8)
        described |= {"outputs": list(outputs), "input": "uint8" if takes_levels else "float32"}
        content = _convert(program, format, described)
    with replacing(path) as partial:
        partial.write_bytes(content)
    write_json(path.with_suffix(".json"), described)
    return path.with_suffix(".json")


def describe(predictor: Predictor) -> dict[str, Any]:
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


def _convert(program: Program, format: str, described: Mapping[str, Any]) -> bytes:
    if format == "onnx":
        return to_onnx(program, described)
    return {"stablehlo": to_stablehlo, "litert": to_litert}[format](program)
