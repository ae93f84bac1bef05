"""Weights in and out of PyTorch: state dicts <-> variables, exactly.

From the command line: `python -m fixed_head_jax.pretrained convert IN OUT --backbone=resnet50`.
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from fixed_head_jax.backbones import BACKBONES, get_backbone
from fixed_head_jax.checkpoint import read_variables
from fixed_head_jax.command_line import Parser, user_errors
from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.torch_names import CONSTANTS, axes_of, name_of, plain_names, to_detectron2
from fixed_head_jax.weight_files import read_weights
from fixed_head_jax.weight_fitting import HEAD, check_patterns, fit, has_background, matches
from fixed_head_jax.workdir import read_config


def from_torch(
    state_dict: Mapping[str, Any],
    model: Classifier,
    image_size: int | tuple[int, int, int] = 224,
    *,
    skip_head: bool = False,
    skip: Sequence[str] = (),
    resample: bool = True,
    rng: jax.Array | None = None,
) -> dict[str, Any]:
    """Converts a torch state dict to the variables of a model.

    Takes the names of torchvision and timm and those of upstream releases, see
    `torch_names.plain_names`, and brings them to the model's shapes, see `weight_fitting.fit`. Of
    an Inception v4 classifier with 1,001 rows for 1,000 classes, the first row (the background
    class of the older file) is dropped; the positions of a ViT for another image size than the
    model's `backbone_options.image_size` are resampled.

    Args:
        state_dict: torch name -> array (numpy, or anything `np.asarray` takes).
        model: from `get_model`.
        image_size: side in pixels of the images that the variables are built for, or their
            (height, width, channels).
        skip_head: leaves the head at its initial values, and what the state dict has for it out.
        skip: regular expressions, searched in the names (of the classifier: "head.weight",
            "head.bias"): what matches is left at its initial values, or out.
        resample: whether weights for another image size are resampled, or refused.
        rng: for the initial values of what is skipped; None is `jax.random.key(0)`.

    Returns:
        {"params", "batch_stats"?, "fixed"?}.

    Raises:
        ValueError: one, that lists what is missing, unexpected and of another shape; or a pattern
            of `skip` is none, or matches no name.
    """
    given = plain_names(state_dict, model.backbone)
    shape = (image_size, image_size, 3) if isinstance(image_size, int) else image_size

    def init(rng):
        return model.init(rng, jnp.zeros((1, *shape)), train=False)

    rng = jax.random.key(0) if rng is None else rng
    expected = traverse_util.flatten_dict(jax.eval_shape(init, rng))
    names = {path: name_of(path) for path in expected}
    check_patterns(skip, [*given, *names.values()])
    patterns = [*skip, HEAD] if skip_head else skip
    kept = {path: name for path, name in names.items() if not matches(patterns, name)}
    given = {name: value for name, value in given.items() if not matches(patterns, name)}
    shapes = {kept[path]: _torch_shape(path, expected[path].shape) for path in kept}
    given = fit(given, shapes, model.backbone, model.head, resample)
    variables = {} if len(kept) == len(names) else traverse_util.flatten_dict(jax.jit(init)(rng))
    for path, name in kept.items():
        value = given[name].transpose(np.argsort(axes_of(path, given[name].ndim)))
        variables[path] = jnp.asarray(value, expected[path].dtype)
    return traverse_util.unflatten_dict(variables)


def to_torch(variables: Mapping[str, Any], model: Classifier) -> dict[str, np.ndarray]:
    """Converts variables to a torch state dict: the exact inverse of `from_torch`.

    Counters of batches (`num_batches_tracked`) are left out; torch fills them in. Stored class
    vectors are `fixed_weight` of the classifier.

    Args:
        variables: of `model`.
        model: from `get_model`.

    Returns:
        torch name -> numpy array, ready for `safetensors.numpy.save_file`.
    """
    state_dict = {}
    for path, value in traverse_util.flatten_dict(variables).items():
        value = np.asarray(value).transpose(axes_of(path, np.ndim(value)))
        # Not `ascontiguousarray`, which makes a vector of a number.
        state_dict[_torch_name(name_of(path), model)] = np.asarray(value, order="C")
    return state_dict


def load(source: str | Path, model: Classifier) -> dict[str, Any]:
    """Reads a state dict from a weights file, or from the last checkpoint of a workdir.

    Of a workdir whose run kept averages of the parameters, these are taken.

    Raises:
        ValueError: if there is nothing to read, see `read_weights`.
    """
    if Path(source).is_dir():
        return to_torch(read_variables(source), model)
    return read_weights(source)


def _torch_name(name, model):
    return re.sub(HEAD, f"{model.backbone.torch_head}.", name)


def _torch_shape(path, shape):
    return tuple(shape[axis] for axis in axes_of(path, len(shape)))


def convert(
    source: str,
    target: str,
    backbone: str,
    image_size: int = 224,
    channels: int = 3,
    skip: Sequence[str] = (),
) -> int:
    """Writes weights under their plain torch names: a file after a check, or a run's variables.

    Args:
        source: a weights file or a workdir.
        target: .safetensors, or .pkl for detectron2's layout.
        backbone: a name of `BACKBONES`. A file's classifier is kept if it is a weight with or
            without a bias, or that of the t-vMF release, and left out otherwise.
        image_size: side in pixels of the images that a file is checked for; of a ViT, those that
            its positions are for.
        channels: of these images.
        skip: patterns of names to leave out.

    Returns:
        The number of arrays written.

    Raises:
        ValueError: if the weights do not fit, or `target` cannot be written.
    """
    if Path(target).suffix not in (".safetensors", ".pkl"):
        raise ValueError(f"OUT {target!r} must end in .safetensors, or .pkl for detectron2")
    if not Path(target).absolute().parent.is_dir():
        raise ValueError(f"the folder of OUT {target!r} does not exist; create it")
    if Path(source).is_dir():
        state_dict = _of_run(source, backbone, skip)
    else:
        state_dict = _of_file(source, backbone, (image_size, image_size, channels), skip)
    if Path(target).suffix == ".pkl":
        exported = to_detectron2(state_dict)
        Path(target).write_bytes(pickle.dumps(exported))
        return len(exported["model"])
    save_file(state_dict, target)
    return len(state_dict)


def _of_run(workdir, backbone, skip):
    """Returns the state dict of a run."""
    theirs = read_config(workdir).get("model.backbone")
    if theirs != backbone:
        raise ValueError(f"{workdir!r} is a run of {theirs}, not of {backbone}; name that one")
    variables = read_variables(workdir)
    check_patterns(skip, [name_of(path) for path in traverse_util.flatten_dict(variables)])
    return to_torch(_without(skip, variables), get_model(2, backbone))


def _of_file(file, backbone, shape, skip):
    """Returns the state dict of a file, checked against the model that it fits."""
    # The table of a ViT has to be for the size that is named: converting resamples nothing.
    sized = {"image_size": shape[0]} if hasattr(get_backbone(backbone), "image_size") else {}
    model, state_dict = get_model(2, backbone, backbone_options=sized), read_weights(file)
    given = plain_names(state_dict, model.backbone)
    head, options = _head_of(given)
    constants = {}
    if head is None:
        skip = [*skip, HEAD]
    else:
        rows = len(given["head.weight"])
        rows = 1000 if has_background(model.backbone) and rows == 1001 else rows
        model = get_model(rows, backbone, head, backbone_options=sized, head_options=options)
        kept = [name for name in CONSTANTS if name in given and not matches(skip, name)]
        constants = {_torch_name(name, model): given[name] for name in kept}
    variables = from_torch(state_dict, model, shape, skip=skip, resample=False)
    return to_torch(_without(skip, variables), model) | constants


def _head_of(given):
    """Returns the head that holds what a file has of a classifier, and its options, or None."""
    names = {name.removeprefix("head.") for name in given if name.startswith("head.")}
    if names in ({"weight"}, {"weight", "bias"}):
        return "linear", {"use_bias": "bias" in names}
    if {"weight", "raw_scale"} <= names <= {"weight", "raw_scale", "kappa", "bias"}:
        kappa = given["head.kappa"].item() if "kappa" in names else 0.0
        return "cosine", {"kappa": kappa, "bias_form": "inside" if "bias" in names else "none"}
    return None, {}


def _without(patterns, variables):
    """Returns the variables but for those whose names match a pattern."""
    flat = traverse_util.flatten_dict(variables)
    kept = {path: value for path, value in flat.items() if not matches(patterns, name_of(path))}
    return traverse_util.unflatten_dict(kept)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("python -m fixed_head_jax.pretrained")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("convert", help="check weights and write them to another file")
    command.add_argument("source", metavar="IN", help="a file of weights or a workdir")
    command.add_argument("target", metavar="OUT", help=".safetensors, or .pkl for detectron2")
    command.add_argument("--backbone", required=True, choices=BACKBONES)
    command.add_argument("--image_size", type=int, default=224, help="pixels, of a file's images")
    command.add_argument("--channels", type=int, default=3, help="of a file's images")
    command.add_argument(
        "--skip", action="append", default=[], help="pattern of names to leave out"
    )
    options = vars(parser.parse_args(arguments))
    del options["command"]
    with user_errors(parser):
        count = convert(**options)
    print(f"{count} arrays of {options['backbone']} in {options['target']}")


if __name__ == "__main__":
    main()
