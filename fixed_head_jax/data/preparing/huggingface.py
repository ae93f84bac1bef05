"""Hugging Face datasets on disk: parquet files with encoded images, or what `save_to_disk` leaves.

    PATH/data/train-00000-of-00003.parquet    as the hub has them
    PATH/default/train/0000.parquet           as its converter writes them
    PATH/train/data-00000-of-00001.arrow      as `save_to_disk` writes them

Read by pyarrow, which is what the `datasets` library reads them with. The names of the classes are
in the files themselves or, as the hub has them, in the README.md beside them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fixed_head_jax.data.builders.definition import Definition
from fixed_head_jax.data.preparing.own_splits import Split, define, group_by_split
from fixed_head_jax.data.preparing.text import shorten

_ENDINGS = (".parquet", ".arrow")
_ROWS = 64  # of a batch
_IMAGES, _LABELS = ("image", "img"), ("label", "labels")
_CARD = "README.md"


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
    folder = _folder(place)
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


def find_names(place: str) -> list[Path]:
    """Returns the file that may name the classes, if there is one: the dataset's card."""
    folder = _folder(place)
    cards = (folder / _CARD, folder.parent / _CARD)  # that of a configuration is one folder up
    return [card for card in cards if card.is_file()][:1]


def _folder(place):
    return Path(place.partition("#")[0]).expanduser().absolute()


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
    files, wanted, folder = find_files(place), place.partition("#")[2], _folder(place)
    pyarrow, _ = _load()
    by_split, left_out = group_by_split(files, folder)
    try:
        _check_alike(folder, by_split)
        cards = [_read_card(card, folder.name) for card in find_names(place)]
        columns = find_columns(_schema(files[0]), wanted, *cards)
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
        raise ValueError(
            f"hf:{place} has no column that is plainly the label; add #COLUMN to the path, or set "
            "data.unlabelled=True"
        )
    description = f"Images of the Hugging Face dataset {folder.resolve()}, {columns.label}"
    return define(splits, description, columns.class_names, fraction, seed, left_out)


def _check_alike(folder, by_split):
    """Raises ValueError where the files are those of several datasets."""
    for split, files in by_split.items():
        folders = sorted({str(file.parent.relative_to(folder)) for file in files})
        if len(folders) > 1:
            raise ValueError(
                f"the files of split {split!r} lie in several folders of {str(folder)!r}: "
                f"{shorten(folders)}; name one of them"
            )
    first, *others = [file for files in by_split.values() for file in files]
    names = _schema(first).names
    if other := next((file for file in others if _schema(file).names != names), None):
        raise ValueError(
            f"{other.name} and {first.name} of {str(folder)!r} have other columns than each other: "
            f"{shorten(_schema(other).names)}; {shorten(names)}; keep those of one dataset"
        )


def _read_card(card, configuration):
    """Returns the names of the classes by column, of the YAML in front of a dataset's card."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # what that reads it with

    try:
        infos = (metadata_load(card) or {}).get("dataset_info", {})
        infos = infos if isinstance(infos, list) else [infos]
        named = [info for info in infos if info.get("config_name") == configuration]
        info = (named or infos or [{}])[0] if named or len(infos) == 1 else {}
        kinds = {one["name"]: one["dtype"] for one in info.get("features", [])}
        found = {
            column: kind["class_label"]["names"]
            for column, kind in kinds.items()
            if isinstance(kind, dict) and "class_label" in kind
        }
        return {
            column: [str(names[key]) for key in sorted(names, key=int)]
            if isinstance(names, dict)
            else [str(name) for name in names]
            for column, names in found.items()
        }
    except (YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(card)!r} does not describe classes as cards do ({reason}); mend it or move it"
        ) from error


def find_columns(
    schema: Any, wanted: str = "", card: Mapping[str, Sequence[str]] | None = None
) -> Columns:
    """Says which columns of a dataset are its images and its labels.

    Args:
        schema: pyarrow's, of one of its files.
        wanted: column of the labels; empty: "label", "labels" or the only `ClassLabel`.
        card: names of the classes by column, for a schema that has none.

    Raises:
        ValueError: if it is not plain.
    """
    kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = kept.get("info", {}).get("features", {})
    kinds = {name: value.get("_type", "") for name, value in features.items()}
    images = [
        field.name for field in schema if kinds.get(field.name) == "Image" or _has_bytes(field.type)
    ]
    images = [name for name in images if name in _IMAGES] or images
    if len(images) != 1:
        raise ValueError(
            f"of the columns {', '.join(schema.names)}, {len(images)} hold images; there must be "
            f"1, or 1 that is named {' or '.join(_IMAGES)}"
        )
    classes = {name: features[name]["names"] for name in kinds if kinds[name] == "ClassLabel"}
    classes = {**(card or {}), **classes}
    found = [name for name in _LABELS if name in schema.names] or list(classes)
    label = wanted or (found[0] if len(found) == 1 else "")
    if wanted and wanted not in schema.names:
        raise ValueError(f"there is no column {wanted!r} among {', '.join(schema.names)}")
    if len(found) > 1 and not wanted:
        raise ValueError(
            f"the labels may be {' or '.join(found)}; add #COLUMN to the path, #{found[0]} for one"
        )
    names = classes.get(label)
    return Columns(images[0], label, tuple(names) if names else None)


def _has_bytes(kind):
    """Tells whether a column is as images are stored: bytes, or a group of bytes and a path."""
    pyarrow, _ = _load()
    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _labels(files, column):
    if not column:
        return ()
    return [value for file in files for batch in _batches(file, column) for value in batch]


def _images(folder: Path, files: list[Path], column: str) -> Iterator[tuple[str, bytes]]:
    for file in files:
        row = 0
        for batch in _batches(file, column):
            for value in batch:
                value = value if isinstance(value, dict) else {"bytes": value}
                name = f"{file.relative_to(folder)}/{row:06}/{value.get('path') or ''}"
                yield name.rstrip("/"), value.get("bytes") or b""
                row += 1


def _batches(file, column):
    """Iterates over the values of a column, some rows at a time."""
    pyarrow, parquet = _load()
    if file.suffix == ".parquet":
        with parquet.ParquetFile(file, pre_buffer=False) as opened:  # else it keeps the whole file
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
