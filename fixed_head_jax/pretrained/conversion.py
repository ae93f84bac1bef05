"""Rewrites weights under their plain torch names."""

import pickle
from collections.abc import Sequence
from pathlib import Path

from flax import traverse_util
from safetensors.numpy import save_file

from fixed_head_jax.backbones import get_backbone
from fixed_head_jax.model import get_model
from fixed_head_jax.pretrained import from_torch, to_torch
from fixed_head_jax.pretrained.files import read_weights
from fixed_head_jax.pretrained.fitting import (
    HEAD,
    check_patterns,
    has_background,
    matches,
    torch_name,
)
from fixed_head_jax.pretrained.runs import as_run
from fixed_head_jax.pretrained.torch_names import (
    CONSTANTS,
    name_of,
    plain_names,
    to_detectron2,
)
from fixed_head_jax.storage.checkpoint import read_variables
from fixed_head_jax.storage.workdir import read_config


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
        source: a weights file, the name of public weights or a workdir, see `pretrained.load`.
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
    if run := as_run(source):
        state_dict = _of_run(*run, backbone, skip)
    else:
        state_dict = _of_file(source, backbone, (image_size, image_size, channels), skip)
    if Path(target).suffix == ".pkl":
        exported = to_detectron2(state_dict)
        Path(target).write_bytes(pickle.dumps(exported))
        return len(exported["model"])
    save_file(state_dict, target)
    return len(state_dict)


def _of_run(workdir, which, backbone, skip):
    """Returns the state dict of a run."""
    theirs = read_config(workdir).get("model.backbone")
    if theirs != backbone:
        raise ValueError(f"{str(workdir)!r} is a run of {theirs}, not of {backbone}; name that one")
    variables = read_variables(workdir, which)
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
        constants = {torch_name(name, model): given[name] for name in kept}
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
