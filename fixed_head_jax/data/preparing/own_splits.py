"""From the labels that a source of images gives, whatever they look like, to a definition."""

import collections
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
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
        labels: of every image in order, whole numbers or names, None where one is missing; empty
            where none is to be read.
        images: iterates over their names and encoded bytes, in that order, from the start at each
            call.
    """

    labels: Sequence[int | str | None]
    images: Callable[[], Iterator[tuple[str, bytes]]]


def split_of(path: PurePath) -> str | None:
    """Returns the split that a file's path names, None where it names none.

    As a word of the file's name (`train-00000-of-00003.parquet`, `birds-val-000.tar`), else as the
    name of a folder (`test/0.parquet`).
    """
    words = [*re.split("[^a-z0-9]+", path.name.lower()), *map(str.lower, path.parts[-2::-1])]
    return next((word for word in words if word in SPLITS), None)


def group_by_split(
    files: Iterable[Path], folder: Path | None = None
) -> tuple[dict[str, list[Path]], str]:
    """Groups files by the split that each names; where none does, all are `train`.

    Args:
        files: in their order.
        folder: where the paths that count begin; None: at the folder of each file.

    Returns:
        The groups, and a line on the files that name no split where others do: they may be anything
        (`extra-000.tar`) and are in no group.
    """
    groups: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for file in files:
        path = file.relative_to(folder) if folder else PurePath(*file.parts[-2:])
        split = split_of(path)
        (groups.setdefault(split, []) if split else unnamed).append(file)
    if not groups:
        return {"train": unnamed}, ""
    names = shorten([file.name for file in unnamed])
    return groups, f"left out, files named for no split: {names}" * bool(unnamed)


def check_draw(fraction: float | None, seed: int) -> None:
    """Raises ValueError unless a part of each class can be drawn so."""
    if seed < 0 or not 0 <= (fraction or 0) < 1:
        raise ValueError(
            f"test_fraction must be in [0, 1) and seed >= 0, got {fraction} and {seed}"
        )


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
        labels: places among the names, where there are any, or names.
        class_names: in their order; None: those of the labels, as numbers where all are, else as
            text.

    Raises:
        ValueError: on a label that is not among the names, fewer than two classes, or names that
            cannot be kept.
    """
    if class_names is None:
        labels = [str(label) for label in labels]
        texts = {*map(str, labels)}
        are_numbers = all(re.fullmatch("-?[0-9]+", text) for text in texts)
        class_names = sorted(texts, key=_by_number) if are_numbers else sorted(texts)
    numbers: dict[int | str, int] = {name: number for number, name in enumerate(class_names)}
    numbers |= {number: number for number in range(len(class_names))}
    if strange := sorted(map(str, set(labels) - numbers.keys())):
        raise ValueError(
            f"labels that are none of the {len(class_names)} classes: {shorten(strange)}; mend them"
        )
    if len(class_names) < 2:
        raise ValueError(
            f"there must be at least 2 classes, got {len(class_names)}: {shorten(class_names)}"
        )
    unfit = [name for name in class_names if not name or name != as_text(name).strip()]
    unfit += [name for name, count in collections.Counter(class_names).items() if count > 1]
    if unfit:
        raise ValueError(
            "class names that are empty, there twice, or with blanks at their ends or line ends: "
            f"{shorten([repr(name) for name in unfit])}; rename them"
        )
    return tuple(class_names), np.array([numbers[label] for label in labels], np.int64)


def _by_number(text):
    return int(text), text  # "01" after "1"


_Part = tuple[Split, np.ndarray | None, np.ndarray | None]  # labels, and which are taken


def define(
    splits: Mapping[str, Split],
    description: str,
    class_names: Sequence[str] | None = None,
    fraction: float | None = None,
    seed: int = 0,
    left_out: str = "",
) -> Definition:
    """Defines a dataset of RGB images, grey ones among them.

    A split of which no label is known (None, or -1 where the classes have names), as tests of
    competitions are, is left out.

    Args:
        splits: by name; where `train` is the only one, a part of each class is held out as `test`.
        description: of what it is made of.
        class_names: see `number_classes`.
        fraction: 0 <= fraction < 1, of each class that is held out; None is 0.2.
        seed: of that draw, >= 0.
        left_out: see `Definition`.

    Raises:
        ValueError: see `number_classes`; if there is no split `train`, or a part of its labels is
            missing.
    """
    check_draw(fraction, seed)
    if "train" not in splits:
        raise ValueError(
            f"there is no split 'train' among {', '.join(splits)}; name the training files so"
        )
    if not splits["train"].labels:
        return _define({"train": (splits["train"], None, None)}, (), description, left_out)
    missing = {name: _count_missing(split, class_names) for name, split in splits.items()}
    hidden = [name for name, split in splits.items() if missing[name] == len(split.labels)]
    splits = {name: split for name, split in splits.items() if name not in hidden}
    if wrong := [name for name in ("train", *splits) if missing[name]]:
        raise ValueError(
            f"{missing[wrong[0]]:,} images of the split {wrong[0]!r} have no label; add the labels "
            "or take the images out"
        )
    if hidden:
        left_out = "; ".join(
            filter(None, [left_out, f"left out, splits without labels: {shorten(hidden)}"])
        )
    if fraction is not None and len(splits) > 1:
        raise ValueError("test_fraction is not for images that have a split to hold out")
    fraction = TEST_FRACTION if fraction is None else fraction
    every = [one for split in splits.values() for one in split.labels if one is not None]
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
    return _define(parts, class_names, description, left_out)


def _count_missing(split, class_names):
    return sum(
        label is None or (class_names is not None and label == UNKNOWN) for label in split.labels
    )


def _define(parts, class_names, description, left_out):
    return Definition(
        class_names=class_names,
        splits={name: partial(_examples, *part) for name, part in parts.items()},
        counts={
            name: int(mask.sum()) if mask is not None else len(labels)
            for name, (_, labels, mask) in parts.items()
            if labels is not None
        },
        description=as_text(description),
        homepage="",
        channels=3,
        repeats_grey=True,
        left_out=left_out,
    )


def _examples(split, labels, mask):
    for index, (name, encoded) in enumerate(split.images()):
        if mask is None or mask[index]:
            label = UNKNOWN if labels is None else int(labels[index])
            yield Example(as_text(name), encoded, label)
