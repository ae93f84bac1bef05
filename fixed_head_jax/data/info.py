"""What a prepared dataset holds: counts, sizes, and a sheet of examples."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from PIL import Image

from fixed_head_jax.data import prepared, sources
from fixed_head_jax.data.decoding import decode
from fixed_head_jax.data.records import parse
from fixed_head_jax.display import pictures
from fixed_head_jax.display.numbers import format_classes

SAMPLE = 2000  # images of a split whose size is looked at
ROWS = COLUMNS = 8
_CELL = 96  # pixels
_CHUNK = 256  # records read at a time
_FORMATS = ("array_record", "tfrecord")
_ENDS = 3  # classes shown at either end


class Split(NamedTuple):
    """What `scan` found.

    Attributes:
        class_counts: number of images of each class.
        unlabelled: number of images without one; TFDS stores -1 for their label.
        sizes: (height, width) of up to `SAMPLE` images, evenly spaced over the split.
    """

    class_counts: Int[np.ndarray, " classes"]
    unlabelled: int
    sizes: Int[np.ndarray, "sample 2"]


def open_splits(
    name: str, data_dir: str = "", split: str = ""
) -> tuple[tfds.core.DatasetBuilder, list[sources.Source]]:
    """Opens a prepared dataset and its splits.

    Args:
        name: dataset, and `data_dir`, as in `prepared.find`.
        split: one split, slices included; empty for all of them.

    Raises:
        ValueError: if it is not prepared, has no such split or is not for classification.
    """
    builder = prepared.find(name, data_dir)
    splits = [split] if split else list(builder.info.splits)
    return builder, [sources.open_source(name, s, data_dir, image_size=_CELL) for s in splits]


def describe(builder: tfds.core.DatasetBuilder) -> str:
    """Returns lines about the dataset as a whole."""
    info, path = builder.info, Path(builder.data_path)
    files = [file for file in path.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    kinds = [kind for kind in _FORMATS if any(f".{kind}-" in file.name for file in files)]
    classes = format_classes(info.features["label"].num_classes)
    lines = [
        f"{info.full_name}: {' '.join((info.description or '').split())[:200]}",
        f"  {path}: {size / 1e6:,.1f} MB, {' and '.join(kinds)}",
        f"  {classes}, images {info.features['image'].shape}",
    ]
    return "\n".join(lines)


def scan(source: sources.Source) -> Split:
    """Counts the images of every class and looks at the sizes of some."""
    labels = source.all_labels()
    is_class = (labels >= 0) & (labels < source.num_classes)
    counts = np.bincount(labels[is_class], minlength=source.num_classes)
    sizes = []
    for encoded, _ in _examples(source, SAMPLE):
        with Image.open(io.BytesIO(encoded)) as image:
            sizes.append((image.height, image.width))
    return Split(counts, int((~is_class).sum()), np.asarray(sizes))


def describe_split(source: sources.Source, found: Split, all_classes: bool) -> str:
    """Returns lines about one split.

    Args:
        source: the split.
        found: by `scan`.
        all_classes: whether to list every class, not only the first and last few.
    """
    counts, class_names = found.class_counts, source.class_names
    lines = [
        f"{source.split}: {counts.sum() + found.unlabelled:,} images",
        f"  of a class: {_range(counts)}" if counts.any() else "  unlabelled",
        f"  height: {_range(found.sizes[:, 0])} pixels (of {len(found.sizes):,} images)",
        f"  width: {_range(found.sizes[:, 1])} pixels",
    ]
    if not counts.any():
        return "\n".join(lines)
    if found.unlabelled:
        lines.append(f"  images without a label: {found.unlabelled:,}")
    if empty := (counts == 0).sum():
        lines.append(f"  classes without images: {empty:,}")
    width = min(max(map(len, class_names)), 40)
    table = [f"  {i:5} {class_names[i]:{width}.{width}} {n:9,}" for i, n in enumerate(counts)]
    if not all_classes and len(table) > 2 * _ENDS + 1:
        table = [*table[:_ENDS], "    ...", *table[-_ENDS:]]
    return "\n".join(lines + table)


def sheet(source: sources.Source) -> UInt8[np.ndarray, "h w 3"]:
    """Draws examples, evenly spaced over a split, cropped to squares, with their classes.

    Raises:
        ValueError: if one is damaged.
    """
    images, captions = [], []
    for encoded, label in _examples(source, ROWS * COLUMNS):
        images.append(_square(decode(encoded, source.image_shape[-1])))
        caption = source.class_names[label] if 0 <= label < source.num_classes else "unlabelled"
        captions.append(caption.encode("ascii", "replace").decode())
    return pictures.contact_sheet(images, COLUMNS, _CELL, captions)


def _examples(source: sources.Source, count: int) -> Iterator[tuple[bytes, int]]:
    """Iterates over the encoded image and the label of examples, evenly spaced over a split."""
    length = len(source.records)
    count = min(length, count)
    positions = [index * length // count for index in range(count)]
    for start in range(0, count, _CHUNK):
        yield from map(parse, source.records.__getitems__(positions[start : start + _CHUNK]))


def _square(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "s s c"]:
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _range(values: Int[np.ndarray, " n"]) -> str:
    return f"min {values.min():,}, median {np.median(values):,g}, max {values.max():,}"
