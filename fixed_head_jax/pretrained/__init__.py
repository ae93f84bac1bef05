"""Weights in and out of PyTorch: state dicts <-> variables, exactly.

From the command line: `python -m fixed_head_jax.pretrained convert IN OUT --backbone=resnet50`;
`list` shows public weights by name.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.pretrained import addresses
from fixed_head_jax.pretrained.addresses import imagenet_class_names, preprocessing_of
from fixed_head_jax.pretrained.downloads import is_public
from fixed_head_jax.pretrained.files import read_weights
from fixed_head_jax.pretrained.fitting import (
    HEAD,
    check_patterns,
    compare_heads,
    fit,
    matches,
    torch_name,
)
from fixed_head_jax.pretrained.runs import as_run
from fixed_head_jax.pretrained.torch_names import axes_of, name_of, plain_names
from fixed_head_jax.settings.lookup import closest
from fixed_head_jax.storage.checkpoint import read_variables

__all__ = [
    "from_torch", "imagenet_class_names", "load", "load_classifier", "preprocessing_of", "to_torch"
]  # fmt: skip


def from_torch(
    state_dict: Mapping[str, Any],
    model: Classifier,
    image_size: int | tuple[int, int, int] = 224,
    *,
    skip_head: bool = False,
    skip: Sequence[str] = (),
    resample: bool = True,
    rng: jax.Array | None = None,
    on_other_head: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Converts a torch state dict to the variables of a model.

    Takes the names of torchvision and timm and those of upstream releases, see
    `torch_names.plain_names`, and brings them to the model's shapes, see `fitting.fit`. Of
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
        on_other_head: told, in one line, that the head of the state dict is of another number of
            classes or of another kind, which is skipped then; None: it is refused.

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
    shapes = {name: _torch_shape(path, expected[path].shape) for path, name in names.items()}
    difference = compare_heads(given, shapes, model, patterns)
    if on_other_head and difference:
        patterns = [*patterns, HEAD]
        on_other_head(f"head left out: {difference}")
    kept = {path: name for path, name in names.items() if not matches(patterns, name)}
    given = {name: value for name, value in given.items() if not matches(patterns, name)}
    shapes = {name: shapes[name] for name in kept.values()}
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
        state_dict[torch_name(name_of(path), model)] = np.asarray(value, order="C")
    return state_dict


def load(source: str | Path, model: Classifier) -> dict[str, Any]:
    """Reads a state dict from a weights file, by the name of public weights, or from a workdir.

    Args:
        source: a file or a name, see `read_weights`; or the workdir of a run, of which the last
            checkpoint is read: `RUN:best` takes the best, `RUN:last` the last. Where the run kept
            averages of the parameters, these are taken.
        model: which the run is of.

    Raises:
        ValueError: if there is nothing to read, see `read_weights`.
    """
    if run := as_run(source):
        return to_torch(read_variables(*run), model)
    return read_weights(source)


def load_classifier(
    source: str | Path,
) -> tuple[Classifier, dict[str, Any], addresses.Preprocessing] | None:
    """Loads public weights as the classifier of ImageNet's 1,000 classes that they are.

    Args:
        source: a name of `addresses.KNOWN`, or a file that is called as the weights are.

    Returns:
        The model, its variables and what makes its images; None where the source names neither.

    Raises:
        ValueError: if a name is not known, or the weights cannot be read or have no classifier.
    """
    weights = addresses.find(source)
    if not weights and is_public(source):
        hint = closest(str(source), addresses.KNOWN)
        raise ValueError(
            f"weights {str(source)!r} are not known{hint}; `fixed-head pretrained list` shows all "
            "that are"
        )
    if not weights or not (is_public(source) or Path(source).is_file()):
        return None
    model, expected = (
        get_model(len(imagenet_class_names()), weights.backbone),
        weights.preprocessing,
    )
    return model, from_torch(load(source, model), model, expected.image_size), expected


def _torch_shape(path, shape):
    return tuple(shape[axis] for axis in axes_of(path, len(shape)))
