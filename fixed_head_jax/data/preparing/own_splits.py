"""From the labels that a source of images gives, whatever they look like, to a definition."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from fixed_head_jax.data.builders.definition import UNKNOWN, Definition, Example
from fixed_head_jax.data.preparing.text import as_text, shorten

SPLITS = ("train", "validation", "val", "valid", "test")
TEST_FRACTION = 0.2


class Split(NamedTuple):
    """The images of a split, as their source has them.

    Attributes:
        labels: of every image in order, whole numbers or names; empty where none is known.
        images: iterates over their names and encoded bytes, in that order, from the start at each
            call.
    """

    labels: Sequence[int | str]
    images: Callable[[], Iterator[tuple[str, bytes]]]


def split_of(path: PurePath) -> str:
    """Returns the split that a file's path names, "train" where it names none.

    As the name of a folder, or as the first word of the file's: `test/0.parquet`,
    `test-00000-of-00001.parquet`.
    """
    words = [*path.parts[:-1][::-1], path.name.replace("_", "-").replace(".", "-").split("-")[0]]
    return next((word for word in words if word in SPLITS), "train")


def held_out(labels: Int[np.ndarray, " n"], fraction: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Draws which images of each class are held out; every class keeps one."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(len(members) * fraction), len(members) - 1)
        order = np.random.default_rng([seed, max(label, 0)]).permutation(len(members))
        mask[members[order[:count]]] = True
    return mask


def number_classes(
    labels: Sequence[int | str], class_names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Int[np.ndarray, " n"]]:
    """Returns the names of the classes and the number of each label.

    Args:
        labels: whole numbers or names; numbers are places among `class_names`, if there are any.
        class_names: in their order; None: those of the labels, as numbers where all are, else as
            text.

    Raises:
        ValueError: on a label that is not among the names, or fewer than two classes.
    """
    texts = [str(label) for label in labels]
    if class_names is None:
        is_number = all(text.removeprefix("-").isdecimal() for text in texts)
        class_names = sorted(set(texts), key=int if is_number else None)
        numbers = {name: number for number, name in enumerate(class_names)}
    else:
        numbers = {str(number): number for number in range(len(class_names))}
        numbers |= {name: number for number, name in enumerate(class_names)}
    if strange := sorted(set(texts) - numbers.keys()):
        raise ValueError(
            f"labels that are none of the {len(class_names)} classes: {shorten(strange)}"
        )
    if len(class_names) < 2:
        raise ValueError(
            f"there must be at least 2 classes, got {len(class_names)}: {shorten(class_names)}"
        )
    return tuple(class_names), np.array([numbers[text] for text in texts], np.int64)


_Part = tuple[Split, np.ndarray | None, np.ndarray | None]  # labels, and which are taken


def define(
    splits: Mapping[str, Split],
    description: str,
    class_names: Sequence[str] | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> Definition:
    """Defines a dataset of RGB images, grey ones among them.

    Args:
        splits: by name; where `train` is the only one, a part of each class is held out as `test`.
        description: of what it is made of.
        class_names: see `number_classes`.
        fraction: 0 <= fraction < 1, of each class that is held out; None is 0.2.
        seed: of that draw, >= 0.

    Raises:
        ValueError: see `number_classes`; if there is no split `train`.
    """
    if "train" not in splits:
        raise ValueError(f"there is no split 'train' among {', '.join(splits)}")
    if fraction is not None and len(splits) > 1:
        raise ValueError("test_fraction is not for images that have a split to hold out")
    fraction = TEST_FRACTION if fraction is None else fraction
    is_labelled = len(splits["train"].labels) > 0
    if not is_labelled:
        return _define({"train": (splits["train"], None, None)}, (), description)
    every = [label for split in splits.values() for label in split.labels]
    class_names, numbers = number_classes(every, class_names)
    ends = np.cumsum([len(split.labels) for split in splits.values()])
    labels = dict(zip(splits, np.split(numbers, ends[:-1]), strict=True))
    parts: dict[str, _Part] = {n: (split, labels[n], None) for n, split in splits.items()}
    if len(splits) == 1 and fraction:
        out = held_out(labels["train"], fraction, seed)
        if not out.any():
            raise ValueError(
                f"test_fraction {fraction} of every class is no image; raise it or set it to 0"
            )
        parts = {
            "train": (splits["train"], labels["train"], ~out),
            "test": (splits["train"], labels["train"], out),
        }
        description = f"{description}, {fraction:g} of each class held out with seed {seed}"
    return _define(parts, class_names, description)


def _define(parts, class_names, description):
    return Definition(
        class_names=class_names,
        splits={name: partial(_examples, *part) for name, part in parts.items()},
        counts={
            name: int(mask.sum()) if mask is not None else len(labels)
            for name, (_, labels, mask) in parts.items()
            if labels is not None
        },
        description=description,
        homepage="",
        channels=3,
        repeats_grey=True,
    )


def _examples(split, labels, mask):
    for index, (name, encoded) in enumerate(split.images()):
        if mask is None or mask[index]:
            label = UNKNOWN if labels is None else int(labels[index])
            yield Example(as_text(name), encoded, label)
