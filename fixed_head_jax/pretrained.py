"""Weights in and out of PyTorch: state dicts <-> variables, exactly.

Submodules are named as in torchvision and timm, so one rule converts every backbone: the path of
a variable, joined by dots, with `kernel` and a norm's `scale` called weight, `mean` and `var`
called running_mean and running_var, and `head` called what the backbone's `torch_head` says.

    python -m fixed_head_jax.pretrained convert IN OUT --backbone=resnet50
"""

import argparse
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.checkpoint import read_variables
from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.weight_files import read_weights, unwrap

_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # of a kernel [kh, kw, in, out] or [in, out]
_SHOWN = 8  # names that an error lists of each kind


def from_torch(
    state_dict: Mapping[str, Any],
    model: Classifier,
    image_size: int | tuple[int, int, int] = 224,
    *,
    skip_head: bool = False,
    skip: Sequence[str] = (),
    rng: jax.Array | None = None,
) -> dict[str, Any]:
    """Converts a torch state dict to the variables of a model.

    Takes the names of torchvision and timm, also inside a training checkpoint ("state_dict"), with
    `module.` in front, with the `backbone.` of a Self-Classifier release, or with `shortcut` for
    `downsample` (the STL-10 ResNet-18 of Shalev et al.). Counters of batches are dropped; of a
    classifier with 1,001 rows for 1,000 classes, the first row (the background class of the older
    Inception v4 file) is.

    Args:
        state_dict: torch name -> array (numpy, or anything `np.asarray` takes).
        model: from `get_model`.
        image_size: side in pixels of the images that the variables are built for, or their
            (height, width, channels).
        skip_head: leaves the head at its initial values, and what the state dict has for it out.
        skip: regular expressions, searched in the names (of the classifier: "head.weight",
            "head.bias"): what matches is left at its initial values, or out.
        rng: for the initial values of what is skipped; None is `jax.random.key(0)`.

    Returns:
        {"params", "batch_stats"?, "fixed"?}.

    Raises:
        ValueError: one, that lists what is missing, unexpected and of another shape; or a pattern
            of `skip` matches no name.
    """
    patterns = [*skip, *([r"^head\."] if skip_head else [])]
    given = _normalize(state_dict, model.backbone.torch_head)

    shape = (image_size, image_size, 3) if isinstance(image_size, int) else image_size

    def init(rng):
        return model.init(rng, jnp.zeros((1, *shape)), train=False)

    rng = jax.random.key(0) if rng is None else rng
    expected = traverse_util.flatten_dict(jax.eval_shape(init, rng))
    names = {path: _name(path) for path in expected}
    for pattern in skip:
        if not any(re.search(pattern, name) for name in (*given, *names.values())):
            raise ValueError(f"skip pattern {pattern!r} matches no name; e.g. {next(iter(given))}")
    kept = {path: name for path, name in names.items() if not _matches(patterns, name)}
    given = {name: value for name, value in given.items() if not _matches(patterns, name)}
    shapes = {kept[path]: _torch_shape(path, expected[path].shape) for path in kept}
    _drop_background(given, shapes)
    _check(given, shapes)
    variables = {} if len(kept) == len(names) else traverse_util.flatten_dict(jax.jit(init)(rng))
    for path, name in kept.items():
        value = given[name].transpose(np.argsort(_torch_axes(path, given[name].ndim)))
        variables[path] = jnp.asarray(value, expected[path].dtype)
    return traverse_util.unflatten_dict(variables)


def to_torch(variables: Mapping[str, Any], model: Classifier) -> dict[str, np.ndarray]:
    """Converts variables to a torch state dict: the exact inverse of `from_torch`.

    Counters of batches (`num_batches_tracked`) are left out; torch fills them in. The stored
    class vectors of a fixed head go where its classifier's weight is.

    Args:
        variables: of `model`.
        model: from `get_model`.

    Returns:
        torch name -> numpy array, ready for `safetensors.numpy.save_file`.
    """
    state_dict = {}
    for path, value in traverse_util.flatten_dict(variables).items():
        name = re.sub(r"^head\.", f"{model.backbone.torch_head}.", _name(path))
        value = np.asarray(value).transpose(_torch_axes(path, np.ndim(value)))
        state_dict[name] = np.ascontiguousarray(value)
    return state_dict


def to_detectron2(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Renames a ResNet's state dict to detectron2's R-50 layout, without the classifier.

    `layerK` becomes `res(K + 1)`, everything outside the stages gets `stem.` in front, `bnK`
    becomes `convK.norm`, `downsample.0` and `.1` become `shortcut` and `shortcut.norm`. Pickled
    to a .pkl file, the result is what detectron2's MODEL.WEIGHTS takes.

    Raises:
        ValueError: if the names are not those of a ResNet.
    """
    if "layer4.0.conv1.weight" not in state_dict:
        raise ValueError("state_dict has no layer4.0.conv1.weight; detectron2 needs a ResNet")
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith("fc."):
            continue
        name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        name = name if name.startswith("res") else f"stem.{name}"
        name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[name] = value
    return {"model": renamed, "__author__": "fixed_head_jax", "matching_heuristics": True}


def load(source: str | Path, model: Classifier) -> dict[str, Any]:
    """Reads a state dict from a weights file, or from the last checkpoint of a workdir.

    Of a workdir whose run kept averages of the parameters, these are taken.

    Raises:
        ValueError: if there is nothing to read, see `read_weights`.
    """
    if Path(source).is_dir():
        return to_torch(read_variables(source), model)
    return read_weights(source)


def _normalize(state_dict, torch_head):
    """Returns plain names -> arrays, the classifier's called "head", without batch counters."""
    given = {}
    for name, value in unwrap(state_dict).items():
        name = re.sub(r"(^|\.)module\.", r"\1", name)
        name = re.sub(r"^backbone\.", "", name)
        name = re.sub(r"\bshortcut\.", "downsample.", name)
        name = re.sub(rf"^{re.escape(torch_head)}\.", "head.", name)
        name = re.sub(r"^(mlp_head|cls_\d+)\.", r"head.\1.", name)
        if not name.endswith("num_batches_tracked"):
            given[name] = np.asarray(value)
    return given


def _name(path):
    """Returns the torch name of a variable: its path is (collection, part, submodules..., leaf)."""
    _, part, *modules, leaf = path
    if part == "head":
        return ".".join(["head", *modules, "weight" if leaf == "kernel" else leaf])
    prefix = [] if part == "backbone" else [part]
    return ".".join([*prefix, *modules, _TORCH_LEAVES.get(leaf, leaf)])


def _torch_axes(path, ndim):
    """Returns the order of the axes in torch: kernels are [out, in, kh, kw] or [out, in] there."""
    return _TORCH_AXES[ndim] if path[-1] == "kernel" else tuple(range(ndim))


def _torch_shape(path, shape):
    return tuple(shape[axis] for axis in _torch_axes(path, len(shape)))


def _matches(patterns, name):
    return any(re.search(pattern, name) for pattern in patterns)


def _drop_background(given, shapes):
    """Drops the first row of a classifier with 1,001 rows where the model has 1,000."""
    for name in ("head.weight", "head.bias"):
        if shapes.get(name, ())[:1] == (1000,) and given.get(name, np.empty(0)).shape[:1] == (
            1001,
        ):
            given[name] = given[name][1:]


def _check(given, shapes):
    missing = [name for name in shapes if name not in given]
    unexpected = [name for name in given if name not in shapes]
    wrong = [
        f"{name} {given[name].shape} instead of {shapes[name]}"
        for name in shapes
        if name in given and given[name].shape != shapes[name]
    ]
    found = [
        f"{kind}: {_list(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("shape", wrong))
        if names
    ]
    if found:
        raise ValueError(
            f"the weights do not fit the model; {'; '.join(found)}. Leave parts out with skip "
            "(init_skip in a config), the classifier by the pattern '^head'"
        )


def _list(names):
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def convert(
    source: str, target: str, backbone: str, image_size: int = 224, channels: int = 3
) -> int:
    """Checks weights against a backbone and writes them under their plain torch names.

    Args:
        source: a weights file or a workdir.
        target: .safetensors, or .pkl for detectron2's layout.
        backbone: a name of `BACKBONES`; the classifier is kept if it is a weight with or without
            a bias, and left out otherwise.
        image_size: side of the images in pixels.
        channels: of the images.

    Returns:
        The number of arrays written.

    Raises:
        ValueError: if the weights do not fit, or on another kind of target.
    """
    if Path(target).suffix not in (".safetensors", ".pkl"):
        raise ValueError(f"OUT {target!r} must end in .safetensors, or .pkl for detectron2")
    model = get_model(2, backbone)
    state_dict = load(source, model)
    given = _normalize(state_dict, model.backbone.torch_head)
    head = {name for name in given if name.startswith("head.")}
    keep_head = head in ({"head.weight"}, {"head.weight", "head.bias"})
    if keep_head:
        rows = len(given["head.weight"])
        options = {"use_bias": "head.bias" in head}
        model = get_model(1000 if rows == 1001 else rows, backbone, head_options=options)
    shape = (image_size, image_size, channels)
    variables = from_torch(state_dict, model, shape, skip_head=not keep_head)
    if not keep_head:
        variables = {key: {"backbone": tree["backbone"]} for key, tree in variables.items()}
    converted = to_torch(variables, model)
    if Path(target).suffix == ".pkl":
        Path(target).write_bytes(pickle.dumps(to_detectron2(converted)))
    else:
        save_file(converted, target)
    return len(converted)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fixed_head_jax.pretrained")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="check weights and write them to another file")
    command.add_argument("source", metavar="IN", help=".safetensors, .pth, .pt or a workdir")
    command.add_argument("target", metavar="OUT", help=".safetensors, or .pkl for detectron2")
    command.add_argument("--backbone", required=True, choices=BACKBONES)
    command.add_argument("--image_size", type=int, default=224, help="pixels")
    command.add_argument("--channels", type=int, default=3, help="of the images")
    options = parser.parse_args(arguments)
    try:
        sizes = (options.image_size, options.channels)
        count = convert(options.source, options.target, options.backbone, *sizes)
    except ValueError as error:
        sys.exit(f"pretrained: {error}")
    print(f"{count} arrays of {options.backbone} in {options.target}")


if __name__ == "__main__":
    main()
