"""A dataset of one's own: folders of images, one for each class."""

import collections
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fixed_head_jax.data.builders import DEFINITIONS
from fixed_head_jax.data.builders.definition import UNKNOWN, Definition, Example
from fixed_head_jax.data.preparing import inspect_image
from fixed_head_jax.data.preparing.own_splits import SPLITS, TEST_FRACTION, check_draw, held_out
from fixed_head_jax.data.preparing.text import as_text, shorten

EXTENSIONS = frozenset(".bmp .gif .jfif .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())

Files = dict[str, tuple[Path, ...]]  # class -> its images


def check_name(name: str) -> None:
    """Raises ValueError if a dataset of one's own cannot have this name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise ValueError(
            f"name must be lower-case words, digits and single underscores such as 'my_birds', "
            f"got {name!r}"
        )
    taken = {*DEFINITIONS, "image_folder", *tfds.list_builders(with_community_datasets=False)}
    if name in taken:
        raise ValueError(f"name {name!r} is that of another dataset; choose one of your own")


def describe(
    path: str | Path, test_fraction: float | None = None, seed: int = 0, channels: int | None = None
) -> str:
    """Returns the description of the dataset that `read` defines: what it was made of."""
    path, drawn = Path(path), ""
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    if fraction and not _folders(path / "train"):
        drawn = f", {fraction:g} of each class drawn for the test with seed {seed}"
    repeated = ", grey ones as RGB" if channels else ""
    return f"Images of the folder {as_text(str(path.resolve()))}{drawn}{repeated}."


def read(
    path: str | Path, test_fraction: float | None = None, seed: int = 0, channels: int | None = None
) -> tuple[Definition, dict[str, int]]:
    """Defines the dataset that a folder holds.

    Either `path/train/<class>/*`, with `test`, `validation`, `val` or `valid` next to `train` if
    there are any, or `path/<class>/*`, of which a part of each class is drawn for the test. Classes
    are the folders' names in sorted order. Hidden files and folders are not read.

    Args:
        path: the folder.
        test_fraction: 0 <= test_fraction < 1, of each class where there is no folder `train`;
            every class keeps an image for training. None is 0.2. 0 makes no split `test`.
        seed: of the draw, >= 0.
        channels: 3 for a dataset of RGB images, in which grey ones are read with their values
            repeated; None for a grey one where all images are grey.

    Returns:
        The definition, and the number of files that were ignored by
        extension: all that are not in `EXTENSIONS`.

    Raises:
        ValueError: if the folder is not of one of these forms, or a class has no images.
    """
    path, ignored = Path(path), collections.Counter[str]()
    if not path.is_dir():
        raise ValueError(f"path {str(path)!r} is not a folder; give the folder of the classes")
    check_draw(test_fraction, seed)
    if _folders(path / "train"):
        if test_fraction is not None:
            raise ValueError(f"test_fraction is not for {str(path)!r}, which has a folder 'train'")
        splits = _read_splits(path, ignored)
    else:
        files = _read_classes(path, ignored)
        splits = _divide(files, TEST_FRACTION if test_fraction is None else test_fraction, seed)
    description = describe(path, test_fraction, seed, channels)
    return _define(path, splits, description, channels), dict(ignored)


def read_unlabelled(path: str | Path, channels: int | None = None) -> Definition:
    """Defines the dataset of all images in a folder and the folders in it, without labels.

    Args:
        path: the folder; its layout says nothing of the images.
        channels: as in `read`.

    Raises:
        ValueError: if it is not a folder, or holds no image.
    """
    path = Path(path)
    images = tuple(find_images(path)) if path.is_dir() else ()
    if not images:
        raise ValueError(f"path {str(path)!r} is not a folder with images; give one")
    description = f"Images of the folder {as_text(str(path.resolve()))}, without labels."
    return Definition(
        class_names=(),
        splits={"train": partial(_examples, path, {UNKNOWN: images})},
        counts={"train": len(images)},
        description=description,
        homepage="",
        channels=channels or (1 if all(map(_is_grey, images)) else 3),
        repeats_grey=channels == 3,
    )


def find_images(path: Path) -> Iterator[Path]:
    """Finds the visible images in a folder and the folders in it, in the order of their names."""
    for parent, inner, files in os.walk(path, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield Path(parent, name)


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_classes(path: Path, ignored: collections.Counter) -> Files:
    """Returns the images of each class folder in `path`."""
    files = {}
    for folder in _folders(path):
        if folder.name != as_text(folder.name).strip():  # it would be read back as another
            raise ValueError(
                f"class folder {str(folder)!r} has blanks at its ends, control characters or bytes "
                "that are not UTF-8; rename it"
            )
        if inner := _folders(folder):
            raise ValueError(
                f"class folder {str(folder)!r} holds a folder {inner[0].name!r}; put the images "
                "directly into the class folders"
            )
        visible = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        is_image = [p.suffix.lower() in EXTENSIONS for p in visible]
        files[folder.name] = tuple(itertools.compress(visible, is_image))
        others = [p.suffix.lower() for p in visible if p.suffix.lower() not in EXTENSIONS]
        ignored.update(map(as_text, others))
    if len(files) < 2:
        raise ValueError(
            f"{str(path)!r} holds {len(files)} class folders; there must be at least 2"
        )
    if empty := [name for name, images in files.items() if not images]:
        raise ValueError(
            f"class folders of {str(path)!r} without images: {shorten(empty)}; fill or remove them"
        )
    return files


def _read_splits(path: Path, ignored: collections.Counter) -> dict[str, Files]:
    """Returns the classes of each split folder in `path`, which must be the same."""
    if others := [folder.name for folder in _folders(path) if folder.name not in SPLITS]:
        raise ValueError(
            f"{str(path)!r} holds 'train' and folders that are no splits: {shorten(others)}; "
            f"move them away, splits are {', '.join(SPLITS)}"
        )
    folders = {split: path / split for split in SPLITS if (path / split).is_dir()}
    splits = {split: _read_classes(folder, ignored) for split, folder in folders.items()}
    for split, files in splits.items():
        if files.keys() == splits["train"].keys():
            continue
        only_here = shorten(sorted(files.keys() - splits["train"].keys())) or "none"
        only_train = shorten(sorted(splits["train"].keys() - files.keys())) or "none"
        raise ValueError(
            f"train and {split} must have the same class folders; only in train: {only_train}; "
            f"only in {split}: {only_here}"
        )
    return splits


def _divide(files: Files, test_fraction: float, seed: int) -> dict[str, Files]:
    """Draws a part of each class for the test."""
    if test_fraction == 0:
        return {"train": files}
    labels = np.repeat(np.arange(len(files)), [len(images) for images in files.values()])
    out, train, test = held_out(labels, test_fraction, seed), {}, {}
    for label, (class_name, images) in enumerate(files.items()):
        is_test = out[labels == label]
        test[class_name] = tuple(itertools.compress(images, is_test))
        train[class_name] = tuple(itertools.compress(images, ~is_test))
    if not any(test.values()):
        raise ValueError(
            f"test_fraction {test_fraction} of every class is no image; raise it or set it to 0"
        )
    return {"train": train, "test": test}


def _define(
    path: Path, splits: Mapping[str, Files], description: str, channels: int | None
) -> Definition:
    images = (image for files in splits.values() for group in files.values() for image in group)
    return Definition(
        class_names=tuple(splits["train"]),
        splits={split: _reader(path, files) for split, files in splits.items()},
        counts={s: sum(map(len, files.values())) for s, files in splits.items()},
        description=description,
        homepage="",
        channels=channels or (1 if all(map(_is_grey, images)) else 3),
        repeats_grey=channels == 3,
    )


def _reader(path: Path, files: Files) -> Callable[[], Iterator[Example]]:
    return partial(_examples, path, dict(enumerate(files.values())))


def _examples(path: Path, by_label: Mapping[int, Sequence[Path]]) -> Iterator[Example]:
    for label, images in by_label.items():
        for image in images:
            yield Example(as_text(str(image.relative_to(path))), read_bytes(image), label)


def read_bytes(path: Path) -> bytes:
    """Reads an image file; one that cannot be read is empty, a bad image among others."""
    try:
        return path.read_bytes() if path.is_file() else b""  # a pipe would hang
    except OSError:
        return b""


def _is_grey(path: Path) -> bool:
    """Returns whether an image is grey; one that cannot be opened has no say."""
    if not path.is_file():  # a pipe would hang
        return True
    try:
        with Image.open(path) as image:
            return inspect_image.is_grey(image)
    except Exception:  # found and named when every image is checked
        return True
