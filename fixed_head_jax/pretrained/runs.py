"""Workdirs as a source of weights."""

from pathlib import Path
from typing import NamedTuple


class RunSource(NamedTuple):
    """A workdir, and which of its checkpoints is meant."""

    workdir: Path
    which: str


def as_run(source: str | Path) -> RunSource | None:
    """Returns what a source says of a run: `RUN`, `RUN:best`, `RUN:last`; None if it is no workdir.

    `RUN` alone is its last checkpoint.
    """
    if Path(source).is_dir():
        return RunSource(Path(source), "last")
    workdir, _, which = str(source).rpartition(":")
    if workdir and Path(workdir).is_dir() and not Path(source).exists():
        return RunSource(Path(workdir), which)
    return None
