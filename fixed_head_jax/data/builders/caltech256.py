"""Caltech-256-30: the first images of each class to train, the next to tune, the rest to test."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import archives
from fixed_head_jax.data.builders.definition import Definition, Example

_HOMEPAGE = "https://data.caltech.edu/records/nyy15-4j048"
_IMAGE = re.compile(r"256_ObjectCategories/(\d{3}\.[^/]+)/\d{3}_(\d{4})\.jpg")
_CLUTTER = "257.clutter"
_SPLITS = {"train": (1, 30), "validation": (31, 50), "test": (51, 9999)}  # numbers in a class


def caltech256_30(manual_dir: Path | None, with_clutter: bool = False) -> Definition:
    """Defines `caltech256_30`: of each class images 1-30, 31-50 and from 51 on.

    That is 7,680 / 5,120 / 16,980 images of 256 classes; with clutter 7,710 / 5,140 / 17,757 of
    257. Whatever is no image of the archive's own naming is left out: it holds a script in class
    198 and an empty folder in class 056.

    Args:
        manual_dir: holds `256_ObjectCategories.tar`, or the folder extracted from it.
        with_clutter: whether `257.clutter`, of no class in particular, is a class too.

    Raises:
        ValueError: if the archive is missing or damaged, or holds no such image.

    Source: G. Griffin et al., Caltech-256 Object Category Dataset, 2007; splits of J. Plested et
        al., arXiv 2107.08585, whose release keeps the clutter.
    """
    names = ("256_ObjectCategories.tar", "256_ObjectCategories")
    path = archives.find(manual_dir, names, _HOMEPAGE)
    images = (_IMAGE.fullmatch(member.name) for member in archives.members(path))
    found = {image[1] for image in images if image}
    class_names = tuple(sorted(found if with_clutter else found - {_CLUTTER}))
    if not class_names:
        raise ValueError(
            f"{str(path)!r} holds no image named 256_ObjectCategories/<class>/<nnn>_<mmmm>.jpg; "
            f"get it from {_HOMEPAGE}"
        )
    labels = {name: label for label, name in enumerate(class_names)}
    counts = (7710, 5140, 17757) if with_clutter else (7680, 5120, 16980)
    return Definition(
        class_names=class_names,
        splits={s: partial(_examples, path, labels, *span) for s, span in _SPLITS.items()},
        counts=dict(zip(_SPLITS, counts, strict=True)),
        description="Objects of 256 categories (Caltech-256), 30 images of each to train.",
        homepage=_HOMEPAGE,
    )


def _examples(path: Path, labels: Mapping[str, int], first: int, last: int) -> Iterator[Example]:
    for member in archives.members(path):
        image = _IMAGE.fullmatch(member.name)
        if image and image[1] in labels and first <= int(image[2]) <= last:
            yield Example(member.name, member.read(), labels[image[1]])
