"""Given weights and the shapes of a model: what is brought to them, and what is refused."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fixed_head_jax.pretrained.torch_names import CONSTANTS

HEAD = r"^head\."
_SHOWN = 8  # names that an error lists of each kind


def check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raises ValueError on patterns that are none, or match no name."""
    if isinstance(patterns, str):
        raise ValueError(f"skip={patterns!r} is a string; pass a sequence: ({patterns!r},)")
    for pattern in patterns:
        try:
            # A head may have no variables; to leave it out is no mistake then.
            found = any(re.search(pattern, name) for name in (*names, "head.weight", "head.bias"))
        except re.error as error:
            raise ValueError(f"skip pattern {pattern!r} is no pattern: {error}") from error
        if not found:
            raise ValueError(f"skip pattern {pattern!r} matches no name; e.g. {names[0]}")


def torch_name(name: str, model: Any) -> str:
    """Returns the name of a variable in the reference network, whose head has one of its own."""
    return re.sub(HEAD, f"{model.backbone.torch_head}.", name)


def matches(patterns: Iterable[str], name: str) -> bool:
    """Tells whether one of the patterns is found in a name."""
    return any(re.search(pattern, name) for pattern in patterns)


def compare_heads(
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    model: Any,
    skip: Sequence[str] = (),
) -> str:
    """Says in what the head of given weights is another one than the model's.

    Another number of classes is, and another kind of head; other features are not: that is for the
    backbone to answer for.

    Args:
        given: plain torch name -> array.
        shapes: of all that the model takes, in torch's layout.
        model: from `get_model`.
        skip: patterns of names that do not count.

    Returns:
        Such as "1,000 classes in the weights, 10 here"; empty where it is the same.
    """
    theirs = _head_of({name: value.shape for name, value in given.items()}, skip)
    ours = _head_of(shapes, skip)
    classes, num_classes = _count_classes(theirs), _count_classes(ours)
    is_older = has_background(model.backbone) and (classes, num_classes) == (1001, 1000)
    if set(theirs) != set(ours):
        return f"{_describe(theirs, classes)} in the weights, {_describe(ours, num_classes)} here"
    if is_older or classes == num_classes:
        return ""
    return f"{classes:,} classes in the weights, {num_classes:,} here"


def _head_of(shapes, skip):
    """Returns the shapes of the variables of a head, which constants are not."""
    names = [name for name in shapes if re.search(HEAD, name) and not matches(skip, name)]
    return {name.removeprefix("head."): shapes[name] for name in names if name not in CONSTANTS}


def _count_classes(head):
    """Returns the number of classes of a head; None if its variables do not tell."""
    kernel = head.get("weight", head.get("fixed_weight", ()))
    return kernel[0] if len(kernel) == 2 else None


def _describe(head, classes):
    of_classes = f" of {classes:,} classes" if classes else ""
    return f"{_list(sorted(head))}{of_classes}" if head else "none"


def fit(
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    backbone: Any,
    head: Any,
    resample: bool = True,
) -> dict[str, np.ndarray]:
    """Returns what is given in the shapes that a model has for it.

    A number may have shape (1,), as torch code often keeps it. A classifier's row for the
    background class is dropped where the backbone may have one, and what belongs to images of
    another size is resampled where the backbone knows how. Constants of the head are compared with
    the model's and left out.

    Args:
        given: plain torch name -> array.
        shapes: of all that the model takes, in torch's layout.
        backbone, head: parts of the model.
        resample: whether to resample, or to refuse another image size.

    Raises:
        ValueError: one, that lists what is missing, unexpected and of another shape; or a constant
            of the head is another one.
    """
    fitted = {}
    for name, value in given.items():
        shape = shapes.get(name, value.shape)
        if shape == () and value.shape == (1,):
            value = value.reshape(())
        elif has_background(backbone) and _is_older(name, value, shape):
            value = value[1:]
        elif resample and value.shape != shape and hasattr(backbone, "resample"):
            value = backbone.resample(name, value)
        if not _is_constant(name, value, head):
            fitted[name] = value
    _check(fitted, shapes)
    return fitted


def has_background(backbone: Any) -> bool:
    """Tells whether an older public classifier has a first row for no class."""
    return getattr(backbone, "torch_has_background", False)


def _is_older(name, value, shape):
    is_classifier = name in ("head.weight", "head.bias")
    return is_classifier and (shape[:1], value.shape[:1]) == ((1000,), (1001,))


def _is_constant(name, value, head):
    """Tells whether a name is that of a constant of the head; raises if the head has another."""
    field = name.removeprefix("head.")
    if name not in CONSTANTS or not hasattr(head, field):
        return False
    ours = getattr(head, field)
    if value.size != 1 or np.float32(value.item()) != np.float32(ours):
        theirs = ", ".join(f"{number:.6g}" for number in value.ravel())
        raise ValueError(
            f"the weights are of a head with {field}={theirs}, the model has {ours:.6g}; set "
            f"model.head_options.{field}, or leave the number out with skip '^{name}$'"
        )
    return True


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
        is_rgb = any(
            name in given and (given[name].shape[1:2], shape[1:2]) == ((3,), (1,))
            for name, shape in shapes.items()
        )
        advice = "Grey images are read as RGB by data.channels=3 in a config. " if is_rgb else ""
        raise ValueError(
            f"the weights do not fit the model; {'; '.join(found)}. {advice}Leave parts out with "
            "skip (init_skip in a config), the classifier by the pattern '^head'"
        )


def _list(names):
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
