"""The folder of a run: whose it is, and its result."""

import errno
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fixed_head_jax.storage.files import write_json

RECORD = "config.json"
SESSIONS = "sessions.jsonl"  # a line for each start: the command, versions, devices
MODEL = "model.json"  # what the model takes and tells apart: all that the config does not say

_WORK = ("checkpoints/[0-9]*", "result.json", "evaluation_*.json", "search.db")


def local_folder(workdir: str | os.PathLike) -> Path:
    """Returns the folder of a run that a text names, the home folder by its name.

    Raises:
        ValueError: if checkpoints in it could not be read back.
    """
    path = Path(workdir).expanduser()
    if "://" in str(workdir):
        raise ValueError(f"workdir {str(workdir)!r} is no folder of this machine; name one")
    # The checkpoint library takes these for a pattern, another separator, a bucket.
    unsafe = re.search(r"[\[\]\\]|:/", str(path.absolute()))
    if unsafe:
        raise ValueError(
            f"workdir {str(path.absolute())!r} has {unsafe.group()!r} in its path, where "
            "checkpoints cannot be read back; choose another"
        )
    return path


def claim(
    workdir: str | Path,
    record: Mapping[str, Any],
    may_differ: Collection[str] = (),
    *,
    assumed: Mapping[str, Any] = MappingProxyType({}),
    why_not: Mapping[str, str] = MappingProxyType({}),
    is_kept: bool = False,
) -> None:
    """Writes `config.json` in `workdir`, which is made if missing, if the run in it is this one.

    A folder without a checkpoint or a result is free: nothing is lost with its config.

    Args:
        workdir: folder of the run.
        record: flat, JSON-like: dotted key of the config -> value, and what else tells runs apart.
        may_differ: keys that cannot change a result (where the data lies, say).
        assumed: values of keys that the record of an older version lacks.
        why_not: for keys that a user may expect among `may_differ`, why they are not.
        is_kept: leaves the record of the run in the folder as it is.

    Raises:
        ValueError: if the folder cannot be written, or holds another config's run; the message
            lists the differing keys.
    """
    path = local_folder(workdir)
    record = json.loads(json.dumps(dict(record)))
    stored = None
    if (path / RECORD).exists() and holds_work(path):
        stored = read_config(path)
        theirs = {**json.loads(json.dumps(dict(assumed))), **stored}
        _check_same(path, theirs, record, may_differ, why_not)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission")
        if stored is None or not is_kept and stored != record:
            write_json(path / RECORD, record)
    except OSError as error:
        raise ValueError(f"workdir {str(path)!r} cannot be written: {error.strerror}") from error


def _check_same(path, theirs, ours, may_differ, why_not):
    differing = [
        f"{key} ({theirs.get(key)!r} there, {ours.get(key)!r} here"
        f"{f'; {why_not[key]}' if key in why_not else ''})"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and key not in may_differ
    ]
    if differing:
        raise ValueError(
            f"workdir {str(path)!r} holds the run of another config: {'; '.join(differing)}; "
            "choose another workdir, or repeat that run's command to go on with it"
        )


def holds_work(workdir: Path) -> bool:
    """Returns whether something in a folder, or a folder of it, took work: no config alone."""
    return any(
        path.is_file() or path.name.isdigit()
        for pattern in _WORK
        for path in Path(workdir).rglob(pattern)
    )


def find_runs(workdir: str | Path) -> list[Path]:
    """Returns the folders of trained runs: `workdir`, or those of stages, rows, trials in it.

    Raises:
        ValueError: if there is none.
    """
    path = local_folder(workdir)
    if (path / "checkpoints").is_dir():
        return [path]
    found = sorted(folder.parent for folder in path.rglob("checkpoints") if folder.is_dir())
    if not found:
        read_config(path)
        raise ValueError(f"workdir {str(workdir)!r} has no checkpoint yet; train first")
    return found


def add_session(workdir: str | Path, session: Mapping[str, Any]) -> None:
    """Notes a start of the run in `workdir`: when, by what command, on what."""
    with (Path(workdir) / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(session)) + "\n")


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads the config of the run in `workdir`; raises ValueError if there is none."""
    path = Path(workdir) / RECORD
    if not path.exists():
        raise ValueError(f"workdir {str(workdir)!r} holds no run: {path.name} is missing")
    return json.loads(path.read_text())
