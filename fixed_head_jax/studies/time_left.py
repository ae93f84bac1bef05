"""How long the runs that are left will take, by those that were run."""

import time

from fixed_head_jax.display.numbers import format_seconds


class TimeLeft:
    """Extrapolates from the runs of this process to those that are left.

    Args:
        total: runs in all.
    """

    def __init__(self, total: int):
        self._total, self._start, self._ended = total, time.monotonic(), 0

    def after(self, count: int) -> str:
        """Says that another run, the `count`-th of all, is done, and how long the rest may take."""
        self._ended += 1
        seconds = (time.monotonic() - self._start) / self._ended * (self._total - count)
        return f"done, about {format_seconds(seconds)} left" if count < self._total else "done"
