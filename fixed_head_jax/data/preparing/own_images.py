"""A user's own images, wherever they are: defined, and prepared the first time they are named."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fixed_head_jax.data.builders.definition import Definition
from fixed_head_jax.data.preparing import (
    huggingface,
    image_folder,
    labels_file,
    webdataset_shards,
)
from fixed_head_jax.data.preparing.prepare import dataset_path, prepare
from fixed_head_jax.data.preparing.scratch import is_complete
from fixed_head_jax.data.preparing.text import shorten
from fixed_head_jax.display.numbers import format_classes

READERS = {"hf": huggingface, "wds": webdataset_shards}


class OwnImages(NamedTuple):
    """What a dataset of one's own is to be made of.

    Attributes:
        path: a folder of the form that `image_folder.read` takes; a table of `labels_file`, .csv;
            `hf:FOLDER`, see `huggingface`; `wds:PATTERN`, see `webdataset_shards`.
        labels: table of the images in the folder; empty: their folders are their classes.
        unlabelled: whether to read no labels, and all images in a folder.
        fraction: of each class that is held out where there is no split for it; None is 0.2.
        seed: of that draw, >= 0.
        channels: 3 reads grey images as RGB; None does so unless all images of a folder are grey.
    """

    path: str
    labels: str = ""
    unlabelled: bool = False
    fraction: float | None = None
    seed: int = 0
    channels: int | None = None


def define(own: OwnImages) -> Definition:
    """Defines a dataset.

    Raises:
        ValueError: if the path, the labels or the channels are not of the forms above.
    """
    path, labels, unlabelled, fraction, seed, channels = own
    kind = _kind(path)
    if channels not in (None, 3):
        raise ValueError(
            f"channels must be 3 (grey images count as RGB) or left out, got {channels}: colours "
            "are not made grey"
        )
    if labels and (kind != "folder" or unlabelled):
        raise ValueError(f"labels={labels!r} is for a folder of images, not for {path!r}")
    if kind in READERS:
        place = path.partition(":")[2]
        return READERS[kind].read(place, fraction, seed, unlabelled)
    if kind == "table" or labels:
        folder = path if labels else None
        return labels_file.read(labels or path, folder, fraction, seed)
    if unlabelled:
        return image_folder.read_unlabelled(path, channels)
    definition, ignored = image_folder.read(path, fraction, seed, channels)
    kinds = ", ".join(f"{n:,} {kind or '(none)'}" for kind, n in sorted(ignored.items()))
    left_out = f"ignored, no images by their extension: {kinds}" * bool(ignored)
    return definition._replace(left_out=left_out)


def announce(definition: Definition) -> None:
    """Prints the classes in the order of their labels, and what is left out."""
    if names := definition.class_names:
        print(f"{format_classes(len(names))}: {shorten(names)}", flush=True)
    if definition.left_out:
        print(definition.left_out, flush=True)


def describe(own: OwnImages) -> str:
    """Returns the description of the dataset that `define` gives: what it is made of."""
    if _kind(own.path) == "folder" and not own.labels and not own.unlabelled:
        return image_folder.describe(own.path, *own[3:])  # images that are gone by now, too
    return define(own).description


def prepare_own_images(path: str | Path, data_dir: str = "", unlabelled: bool = False) -> str:
    """Prepares a user's images, unless that was done, and returns the dataset's name.

    Unusual images (grey, CMYK, turned by a tag ...) are re-encoded; those that cannot be read are
    left out and listed in DATA_DIR/NAME_problems.txt. The name is the path's with a digest of the
    names and sizes of its files: what has changed is another dataset.

    Args:
        path: see `OwnImages`.
        data_dir: directory of prepared datasets, made if missing; empty for TFDS's default.
        unlabelled: likewise.

    Raises:
        ValueError: if the path is not of these forms, or none of its images can be used.
    """
    path = os.path.expanduser(path)
    if _kind(path) == "folder" and not Path(path).is_dir():
        raise ValueError(
            f"data.path={path!r} is not a folder; name that of your photographs, a .csv file, "
            "hf:FOLDER or wds:PATTERN"
        )
    name = f"{_slug(path)}_{'unlabelled_' * unlabelled}{_digest(path)}"
    target = dataset_path(name, data_dir)
    if is_complete(target):
        return name
    print(f"preparing {path} as {name!r} in {target}", flush=True)
    definition = define(OwnImages(path, unlabelled=unlabelled, channels=3))
    announce(definition)
    report = prepare(name, definition, data_dir, skip_bad=True, unusual="convert", progress=True)
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    print(f"{format_classes(len(definition.class_names))}; images: {counts}", flush=True)
    if report.left_out:
        problems = target.parents[1] / f"{name}_problems.txt"
        problems.write_text("\n".join(report.left_out) + "\n", "utf-8", "backslashreplace")
        print(f"{len(report.left_out):,} could not be used, listed in {problems}", flush=True)
    return name


def _kind(path):
    """Returns the reader that a path names, "table" or "folder"."""
    kind = str(path).partition(":")[0]
    if kind in READERS:
        return kind
    return "table" if str(path).endswith(".csv") else "folder"


def _slug(path):
    """Returns the name of what a path stands for as that of a dataset."""
    kind = _kind(path)
    place = Path(path.partition("#")[0]).stem if kind != "folder" else Path(path).resolve().name
    return "_".join([kind, *re.findall("[a-z0-9]+", place.lower())])


def _digest(path):
    """Returns what differs where names or sizes of the files that a path stands for do.

    Of files that name labels or classes it is what is in them: exchanged labels have one size.
    """
    kind, place = _kind(path), path.partition(":")[2]
    digest = hashlib.sha256(path.partition("#")[2].encode() if kind in READERS else b"")
    naming = READERS[kind].find_names(place) if kind in READERS else [Path(path)]
    for file in naming if kind != "folder" else ():
        digest.update(file.read_bytes() if file.is_file() else b"")
    for name, file in _files(path):
        size = file.stat().st_size if file.exists() else 0
        digest.update(os.fsencode(name) + f"\0{size}\0".encode())
    return digest.hexdigest()[:8]


def _files(path: str) -> Iterator[tuple[str, Path]]:
    """Finds the files that a path stands for, and what tells them apart."""
    kind = _kind(path)
    if kind in READERS:
        for file in READERS[kind].find_files(path.partition(":")[2]):
            yield str(file), file
        return
    folder = Path(path).parent if kind == "table" else Path(path)
    for parent, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            yield os.path.relpath(os.path.join(parent, name), folder), Path(parent, name)
