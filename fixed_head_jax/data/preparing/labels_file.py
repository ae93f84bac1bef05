"""Images in one folder, and a table that says what they are: `FILE.csv`.

    file,label            or without this line; also image, path, id and class, category, target
    0001.jpg,cat
    birds/0002.jpg,bird

A column `split` may say train, validation or test. Files may stand without their ending, as in
many competitions.
"""

import collections
import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fixed_head_jax.data.builders.definition import Definition
from fixed_head_jax.data.preparing.image_folder import find_images, read_bytes
from fixed_head_jax.data.preparing.own_splits import SPLITS, Split, define
from fixed_head_jax.data.preparing.text import shorten

_FILES = ("file", "file_name", "filename", "image", "image_id", "path", "name", "id")
_LABELS = ("label", "labels", "class", "class_name", "category", "target", "breed", "species")


class Row(NamedTuple):
    """A line of the table."""

    number: int
    file: str
    label: str
    split: str


def read(
    table: str | Path,
    folder: str | Path | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> Definition:
    """Defines the dataset of a folder's images and a table of their labels.

    Classes are those of the table: numbers in their order where all are, else sorted as text.

    Args:
        table: the file.
        folder: of the images, in it and in the folders in it; None: that of the table.
        fraction: see `own_splits.define`.
        seed: likewise.

    Raises:
        ValueError: if the table cannot be read, names files that are not there, twice or without a
            label, or the labels do not fit.
    """
    table = Path(table).expanduser()
    folder = table.parent if folder is None else Path(folder).expanduser()
    rows = _rows(table)
    images = list(find_images(folder))
    paths = _resolve(table, rows, folder, images)
    by_split: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_split.setdefault(row.split or "train", []).append(index)
    splits = {
        name: Split(
            [rows[i].label for i in members],
            partial(_read, folder, [paths[i] for i in members]),
        )
        for name, members in by_split.items()
    }
    description = f"Images of the folder {folder.resolve()}, labels of {table.resolve()}"
    return define(splits, description, None, fraction, seed, _left_out(folder, images, paths))


def _left_out(folder, images, paths):
    others = sorted({*images} - {*paths})
    shown = shorten([path.relative_to(folder).as_posix() for path in others], 5)
    return f"left out, not named by the labels: {len(others):,} images: {shown}" * bool(others)


def _rows(table):
    """Returns the rows of a table, checked."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, line) for line in reader if any(line)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ValueError(f"labels={str(table)!r} cannot be read: {error}") from error
    head = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    file = next((head.index(name) for name in _FILES if name in head), None)
    label = next((head.index(name) for name in _LABELS if name in head), None)
    split, first = head.index("split") if "split" in head else None, 1
    if file is None or label is None:
        if len(head) != 2:
            raise ValueError(
                f"labels={str(table)!r} must have a column named {' or '.join(_FILES[:3])} and one "
                f"named {' or '.join(_LABELS[:3])}, or two without names; got {shorten(head)}"
            )
        file, label, split, first = 0, 1, None, 0
    widest = max(i for i in (file, label, split) if i is not None)
    short = [number for number, line in lines if len(line) <= widest]
    if short:
        raise ValueError(
            f"labels={str(table)!r}: {len(short):,} lines have fewer cells than the first, such as "
            f"line {short[0]}"
        )
    rows = [
        Row(
            number,
            line[file].strip().removeprefix("./"),
            line[label].strip(),
            "" if split is None else line[split].strip().lower(),
        )
        for number, line in lines[first:]
    ]
    _check(table, rows)
    return rows


def _check(table, rows):
    if not rows:
        raise ValueError(f"labels={str(table)!r} names no image")
    counts = collections.Counter(row.file for row in rows)
    wrong = {
        "without a label": [row for row in rows if not row.label],
        "that are named before": [row for row in rows if counts[row.file] > 1],
        f"of a split that is none of {', '.join(SPLITS)}": [
            row for row in rows if row.split and row.split not in SPLITS
        ],
    }
    for what, found in wrong.items():
        if found:
            shown = shorten([f"{row.file!r} (line {row.number})" for row in found], 5)
            raise ValueError(
                f"labels={str(table)!r}: {len(found):,} files {what}: {shown}; mend these lines"
            )


def _resolve(table, rows: Sequence[Row], folder: Path, images: Sequence[Path]) -> list[Path]:
    """Returns the image that each row names: by its path, or else by its name or its stem."""
    exact = {image.relative_to(folder).as_posix(): image for image in images}
    names: dict[str, set[Path]] = {}
    for image in images:
        inner = image.relative_to(folder)
        for name in {inner.name, inner.with_suffix("").as_posix(), inner.stem}:
            names.setdefault(name, set()).add(image)
    found = [{exact[row.file]} if row.file in exact else names.get(row.file, set()) for row in rows]
    missing = [row.file for row, paths in zip(rows, found, strict=True) if not paths]
    if missing:
        raise ValueError(
            f"labels={str(table)!r}: {len(missing):,} of {len(rows):,} files are not in "
            f"{str(folder)!r}: {shorten(missing, 5)}; add them or take their lines out"
        )
    several = [row.file for row, paths in zip(rows, found, strict=True) if len(paths) > 1]
    if several:
        raise ValueError(
            f"labels={str(table)!r}: {len(several):,} names are of several files in "
            f"{str(folder)!r}, give their folders too: {shorten(several, 5)}"
        )
    chosen = [next(iter(paths)) for paths in found]
    counts = collections.Counter(chosen)
    twice = [row.file for row, path in zip(rows, chosen, strict=True) if counts[path] > 1]
    if twice:
        raise ValueError(
            f"labels={str(table)!r}: {len(twice):,} lines name an image that another one names, "
            f"too: {shorten(twice, 5)}; keep one of each"
        )
    return chosen


def _read(folder: Path, paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        yield path.relative_to(folder).as_posix(), read_bytes(path)
