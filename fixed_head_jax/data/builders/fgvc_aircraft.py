"""FGVC Aircraft: 100 variants of aircraft."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import archives
from fixed_head_jax.data.builders.definition import Definition, Example

_HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
_DATA = "fgvc-aircraft-2013b/data"
_LISTS = {"train": "train", "validation": "val", "test": "test"}


def fgvc_aircraft(manual_dir: Path | None) -> Definition:
    """Defines `fgvc_aircraft`: the 100 variants, 3,334 / 3,333 / 3,333 images.

    The classes are those of `variants.txt`, whatever the order of the lists of images. The strip
    of about 20 pixels with the credits stays at the bottom of the images.

    Args:
        manual_dir: holds `fgvc-aircraft-2013b.tar.gz`, or the folder extracted from it.

    Raises:
        ValueError: if the archive, or a list in it, is missing or damaged.

    Source: S. Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv 1306.5151.
    """
    names = ("fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b")
    path = archives.find(manual_dir, names, _HOMEPAGE)
    lists = {split: f"{_DATA}/images_variant_{name}.txt" for split, name in _LISTS.items()}
    variants = f"{_DATA}/variants.txt"
    wanted = [variants, *lists.values()]
    texts = dict(archives.pick(archives.members(path), wanted, "the dataset"))
    lines = {name: text.decode().splitlines() for name, text in texts.items()}
    class_names = tuple(line.strip() for line in lines[variants] if line.strip())
    splits = {
        split: partial(_examples, path, _labels(lines[name], class_names, name), name)
        for split, name in lists.items()
    }
    return Definition(
        class_names=class_names,
        splits=splits,
        counts={"train": 3334, "validation": 3333, "test": 3333},
        description="Aircraft of 100 variants (FGVC Aircraft 2013b).",
        homepage=_HOMEPAGE,
    )


def _labels(lines, class_names, name) -> dict[str, int]:
    """Returns the label of each image; a line is its number and its variant."""
    labels = {}
    for line in filter(str.strip, lines):
        number, _, variant = line.strip().partition(" ")
        if variant not in class_names:
            raise ValueError(f"line {line!r} of {name!r} names no variant of variants.txt")
        labels[f"{_DATA}/images/{number}.jpg"] = class_names.index(variant)
    return labels


def _examples(path: Path, labels: Mapping[str, int], listing: str) -> Iterator[Example]:
    for name, encoded in archives.pick(archives.members(path), labels, repr(listing)):
        yield Example(name, encoded, labels[name])
