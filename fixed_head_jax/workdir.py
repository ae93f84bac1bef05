"""The folder of a run: whose it is, and its result."""

import contextlib
import json
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def claim(workdir: str | Path, config: dict[str, Any], may_differ: tuple[str, ...]) -> None:
    """Creates `workdir` and writes `config.json`, or checks that the run in it is the same one.

    Args:
        workdir: folder of the run.
        config: flat, JSON-like: dotted key -> value.
        may_differ: keys that cannot change a result (where the data lies, say).

    Raises:
        ValueError: if the folder cannot be written, or holds another config's run; the message
            lists the differing keys.
    """
    path = Path(workdir)
    config = json.loads(json.dumps(config))
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / "config.json").exists():
            write_json(path / "config.json", config)
            return
    except OSError as error:
        raise ValueError(f"workdir {str(path)!r} cannot be written: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"workdir {str(path)!r} cannot be written: no permission")
    theirs = read_config(path)
    differing = [
        f"{key} ({theirs.get(key)!r} there, {config.get(key)!r} here)"
        for key in sorted(theirs.keys() | config.keys())
        if theirs.get(key) != config.get(key) and key not in may_differ
    ]
    if differing:
        raise ValueError(
            f"workdir {str(path)!r} holds the run of another config: {'; '.join(differing)}; "
            "choose another workdir, or repeat that run's command to go on with it"
        )


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads the config of the run in `workdir`; raises ValueError if there is none."""
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise ValueError(f"workdir {str(workdir)!r} holds no run: {path.name} is missing")
    return json.loads(path.read_text())


def write_json(path: Path, values: dict[str, Any]) -> None:
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
