"""Hugging Face datasets on disk: parquet files with encoded images, or what `save_to_disk` leaves.

    PATH/data/train-00000-of-00003.parquet    as the hub has them
    PATH/default/train/0000.parquet           as its converter writes them
    PATH/train/data-00000-of-00001.arrow      as `save_to_disk` writes them

Read by pyarrow, which is what the `datasets` library reads them with.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fixed_head_jax.data.builders.definition import Definition
from fixed_head_jax.data.preparing.own_splits import Split, define, split_of

_ENDINGS = (".parquet", ".arrow")
_ROWS = 64  # of a batch
_LABELS = ("label", "labels")


class Columns(NamedTuple):
    """What the files of a dataset hold.

    Attributes:
        image: column of the images.
        label: column of the labels; empty where there is none.
        class_names: of the labels, where they are numbers with names.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None


def find_files(place: str) -> list[Path]:
    """Returns the files of a dataset, sorted.

    Args:
        place: folder, or `FOLDER#COLUMN` to say which column is the label.

    Raises:
        ValueError: if there are none.
    """
    folder = Path(place.partition("#")[0]).expanduser()
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in _ENDINGS and not file.name.startswith("cache-")
    )
    if not files:
        raise ValueError(
            f"hf:{place} has no .parquet or .arrow files; name the folder of the dataset's files"
        )
    return files


def read(
    place: str, fraction: float | None = None, seed: int = 0, unlabelled: bool = False
) -> Definition:
    """Defines the dataset that the files in a folder hold.

    Splits are those that folders or files are named after. Classes and their order are those of the
    dataset's own `ClassLabel`, or those of the values of its column of labels.

    Args:
        place: see `find_files`.
        fraction: see `own_splits.define`.
        seed: likewise.
        unlabelled: whether to leave the labels out.

    Raises:
        ValueError: if pyarrow is not installed, the files cannot be read, it is not plain which
            columns to read, or the labels do not fit.
    """
    files, wanted = find_files(place), place.partition("#")[2]
    pyarrow, _ = _load()
    try:
        columns = find_columns(_schema(files[0]), wanted)
        folder = Path(place.partition("#")[0]).expanduser()
        by_split: dict[str, list[Path]] = {}
        for file in files:
            by_split.setdefault(split_of(file.relative_to(folder)), []).append(file)
        splits = {
            name: Split(
                () if unlabelled else _labels(group, columns.label),
                partial(_images, folder, group, columns.image),
            )
            for name, group in by_split.items()
        }
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"hf:{place} cannot be read: {error}") from error
    if not (unlabelled or columns.label):
        raise ValueError(f"hf:{place} has no column of labels; set data.unlabelled=True")
    description = f"Images of the Hugging Face dataset {folder.resolve()}, {columns.label}"
    return define(splits, description, columns.class_names, fraction, seed)


def find_columns(schema: Any, wanted: str = "") -> Columns:
    """Says which columns of a dataset are its images and its labels.

    Args:
        schema: pyarrow's, of one of its files.
        wanted: column of the labels; empty: "label", "labels" or the only `ClassLabel`.

    Raises:
        ValueError: if it is not plain.
    """
    kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = kept.get("info", {}).get("features", {})
    kinds = {name: value.get("_type", "") for name, value in features.items()}
    images = [
        field.name for field in schema if kinds.get(field.name) == "Image" or _has_bytes(field.type)
    ]
    if len(images) != 1:
        raise ValueError(
            f"of the columns {', '.join(schema.names)}, {len(images)} hold images; there must be 1"
        )
    classes = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    found = [name for name in _LABELS if name in schema.names] or classes
    label = wanted or (found[0] if len(found) == 1 else "")
    if wanted and wanted not in schema.names:
        raise ValueError(f"there is no column {wanted!r} among {', '.join(schema.names)}")
    if len(found) > 1 and not wanted:
        raise ValueError(
            f"the labels may be {' or '.join(found)}; add #COLUMN to the path, #{found[0]} for one"
        )
    names = features.get(label, {}).get("names")
    return Columns(images[0], label, tuple(names) if names else None)


def _has_bytes(kind):
    """Tells whether a column is as images are stored: a group of bytes and a path."""
    return hasattr(kind, "get_field_index") and kind.get_field_index("bytes") >= 0


def _labels(files, column):
    if not column:
        return ()
    return [value for file in files for batch in _batches(file, column) for value in batch]


def _images(folder: Path, files: list[Path], column: str) -> Iterator[tuple[str, bytes]]:
    for file in files:
        row = 0
        for batch in _batches(file, column):
            for value in batch:
                value = value or {}
                name = f"{file.relative_to(folder)}/{row:06}/{value.get('path') or ''}"
                yield name.rstrip("/"), value.get("bytes") or b""
                row += 1


def _batches(file, column):
    """Iterates over the values of a column, some rows at a time."""
    pyarrow, parquet = _load()
    if file.suffix == ".parquet":
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_ROWS, columns=[column]):
                yield batch.column(0).to_pylist()
        return
    with pyarrow.memory_map(str(file)) as opened:
        for batch in pyarrow.ipc.open_stream(opened):
            for start in range(0, len(batch), _ROWS):
                yield batch.column(column)[start : start + _ROWS].to_pylist()


def _schema(file):
    pyarrow, parquet = _load()
    if file.suffix == ".parquet":
        return parquet.read_schema(file)
    with pyarrow.memory_map(str(file)) as opened:
        return pyarrow.ipc.open_stream(opened).schema


def _load():
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("hf:PATH needs pyarrow: pip install 'fixed_head_jax[formats]'") from error
    return pyarrow, parquet
