"""Files written whole or not at all."""

import contextlib
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object, see `write_text`; numbers that are not finite as null."""
    values = {key: finite_or_none(value) for key, value in values.items()}
    write_text(path, json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n")


def finite_or_none(value: Any) -> Any:
    """Returns None for NaN and infinity, which JSON has no form for: most readers stop there."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, text: str) -> None:
    """Writes a text file, see `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file to write that then takes the place of `path`, made whole or not at all.

    Whoever reads or writes `path` meanwhile finds the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
