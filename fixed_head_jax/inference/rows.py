"""Tables that are written row by row, of any length in little memory."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
_GROUP = 4096  # rows of a parquet group

Write = Callable[[Mapping[str, Any]], None]


def check_path(path: Path) -> None:
    """Raises ValueError unless rows can be written there."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--out={str(path)!r} must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"--out={str(path)!r} is in no folder that there is; make it")
    if path.suffix == ".parquet":
        _load_pyarrow()


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[Write]:
    """Gives what writes a row, a mapping with the same keys each time.

    What was written is a whole table whenever writing ends, by an error or ctrl-C too.
    """
    kinds = {".csv": _csv_rows, ".json": _json_rows, ".jsonl": _jsonl_rows}
    with kinds.get(path.suffix, _parquet_rows)(path) as write:
        yield write


@contextlib.contextmanager
def open_array(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives what appends rows [b, D] to a .npy file; its head says how many once it is closed."""
    count, row = 0, ()
    with path.open("wb") as file:

        def write_head():
            file.seek(0)
            head = {"descr": "<f4", "fortran_order": False, "shape": (count, *row)}
            np.lib.format.write_array_header_1_0(file, head)  # has room for any count

        def append(rows):
            nonlocal count, row
            if not count:
                row = rows.shape[1:]
                write_head()
            count += len(rows)
            file.write(np.ascontiguousarray(rows, "<f4").data)

        try:
            yield append
        finally:
            write_head()


@contextlib.contextmanager
def _csv_rows(path):
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        is_first = True

        def write(row):
            nonlocal is_first
            if is_first:
                table.writerow(row)
            is_first = False
            table.writerow(row.values())

        yield write


@contextlib.contextmanager
def _jsonl_rows(path):
    with path.open("w", encoding="utf-8") as file:
        yield lambda row: file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def _json_rows(path):
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def write(row):
            nonlocal separator
            file.write(separator + json.dumps(row))
            separator = ",\n"

        try:
            yield write
        finally:
            file.write("\n]\n" if separator == ",\n" else "[]\n")


@contextlib.contextmanager
def _parquet_rows(path):
    pyarrow, parquet = _load_pyarrow()
    rows: list[dict] = []
    writer = None

    def flush():
        nonlocal writer
        if not rows:
            return
        table = pyarrow.Table.from_pylist(rows)
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        rows.clear()

    def write(row):
        rows.append(dict(row))
        if len(rows) == _GROUP:
            flush()

    try:
        yield write
    finally:
        flush()
        if writer is not None:
            writer.close()


def _load_pyarrow():
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            "writing .parquet needs pyarrow: pip install 'fixed_head_jax[formats]', or name a "
            ".csv file"
        ) from error
    return pyarrow, parquet
