"""What a run writes while it trains: metrics.jsonl, the console, and what trackers take."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from tqdm import tqdm

from fixed_head_jax.display.numbers import format_number
from fixed_head_jax.storage.files import finite_or_none, write_text
from fixed_head_jax.training.screen import format_lines
from fixed_head_jax.training.trackers import Tracker, finite

METRICS_FILE = "metrics.jsonl"
# The bar shows these, whatever they are prefixed with (train/loss).
POSTFIX_KEYS = ("loss", "accuracy", "images_per_second")
# No two runs share these: kept out of metrics.jsonl, which a repeated run writes the same.
TIMING_PREFIX = "timing/"


class Writer:
    """Writes metrics to metrics.jsonl, trackers and the console; a context manager.

    On resume the lines after `resume_step` are cut from metrics.jsonl, so that a killed and resumed
    run leaves the lines of an uninterrupted one. That needs every line up to a checkpoint's step to
    be written before the checkpoint is.

    Args:
        workdir: the run's directory; made if missing.
        total_steps: steps of the whole run.
        resume_step: the step of the restored checkpoint; 0 starts the files afresh.
        show_progress: draw a progress bar; None draws one if standard error is a terminal.
        is_main: False, on every process but the first, writes nothing.
        trackers: of `open_trackers`; closed with the writer.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        total_steps: int,
        resume_step: int = 0,
        show_progress: bool | None = None,
        is_main: bool = True,
        trackers: Sequence[Tracker] = (),
    ):
        self._total_steps, self._trackers = total_steps, trackers
        self._is_main = is_main
        self._bar: tqdm | None = None
        if not is_main:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / METRICS_FILE
        _cut(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        if sys.stderr.isatty() if show_progress is None else show_progress:
            self._bar = tqdm(
                total=total_steps, initial=resume_step, unit="step", dynamic_ncols=True
            )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Writes one line of metrics.

        Args:
            step: the number of optimizer steps done.
            values: metrics by name, "epoch" among them or not. Names that start with `timing/` go
                to trackers and the console only.
        """
        if not self._is_main:
            return
        shown = {key: float(value) for key, value in values.items()}
        kept = {key: v for key, v in shown.items() if not key.startswith(TIMING_PREFIX)}
        self._file.write(_dump(step, kept) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(step, finite(shown))
        text = "\n".join(format_lines(step, self._total_steps, shown))
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)
            postfix = {
                key: format_number(value)
                for key, value in shown.items()
                if key.rsplit("/", 1)[-1] in POSTFIX_KEYS
            }
            self._bar.set_postfix(postfix, refresh=False)
            self.progress(step)

    def progress(self, step: int) -> None:
        """Moves the progress bar to `step`; cheap enough to call at every step."""
        if self._bar is not None and step > self._bar.n:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flushes and closes the files and the bar; a second call does nothing."""
        if not self._is_main:
            return
        if self._bar is not None:
            self._bar.close()
        if not self._file.closed:
            self._file.close()
            for tracker in self._trackers:
                tracker.close()


def _dump(step: int, values: Mapping[str, float]) -> str:
    epoch = {"epoch": values["epoch"]} if "epoch" in values else {}
    row = {"step": step} | epoch | dict(values)
    return json.dumps({key: finite_or_none(v) for key, v in row.items()}, allow_nan=False)


def _finished_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError(f"{path} line {number} is not a line of metrics: {line[:80]!r}; remove it")
    return row


def _cut(path: Path, resume_step: int) -> None:
    """Rewrites the file, atomically, with its finished lines up to `resume_step`."""
    if not path.exists():
        return
    kept = []
    if resume_step > 0:
        lines = _finished_lines(path)
        kept = [
            line + "\n"
            for number, line in enumerate(lines, start=1)
            if _parse(line, path, number)["step"] <= resume_step
        ]
    write_text(path, "".join(kept))
