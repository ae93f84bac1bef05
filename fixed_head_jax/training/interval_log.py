"""Training metrics averaged over log intervals, fetched one interval late."""

import math
import time
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np


class NonFiniteLossError(FloatingPointError):
    """The loss or the gradient stopped being finite."""


class IntervalLog:
    """Collects device metrics per step and writes their mean every `every_steps` steps.

    An interval is fetched when the next one ends, when its values are long there, so that logging
    never makes the device wait. `flush` before anything is saved: it raises if a step went wrong.
    Images per second count from dispatch to dispatch; the first interval includes the compile.

    Args:
        every_steps: length of an interval.
        total_steps: end of the run, and of the last interval.
        write: called as `write(step, {"train/...": mean, "timing/...": value})`.
        examples_per_step: global batch size.
        partial: `partial()` of the run this one resumes: steps since its last full interval.
    """

    def __init__(
        self,
        every_steps: int,
        total_steps: int,
        write: Callable,
        examples_per_step: int,
        partial: Iterable = (),
    ):
        self._every_steps, self._total_steps = every_steps, total_steps
        self._write = write
        self._examples_per_step = examples_per_step
        self._current = [(step, values) for step, values in partial]
        self._ended: tuple | None = None
        self._waited, self._timed_steps, self._mark = 0.0, 0, time.perf_counter()
        self._has_compiled = False

    def add(self, last_step: int, metrics: dict[str, jax.Array], waited: float) -> None:
        """Adds the metrics [steps] of one dispatch that ended at `last_step`."""
        self._current.append((last_step, metrics))
        self._waited += waited
        self._timed_steps += len(metrics["loss"])
        if last_step % self._every_steps == 0 or last_step == self._total_steps:
            self._write_ended()
            clock = (time.perf_counter(), self._timed_steps, self._waited)
            self._ended = (last_step, self._current, clock)
            self._current, self._waited, self._timed_steps = [], 0.0, 0

    def exclude(self, seconds: float) -> None:
        """Leaves time spent on something else (an evaluation, a save) out of the timing."""
        self._mark += seconds

    def flush(self) -> None:
        """Writes the ended interval and checks every step so far; waits for the device."""
        self._write_ended()
        self._current = [(step, _fetch(step, metrics)) for step, metrics in self._current]

    def partial(self) -> list:
        """Returns, after `flush`, the steps of the unfinished interval, as JSON."""
        return list(self._current)  # what saves it asynchronously must not see later steps

    def _write_ended(self) -> None:
        if self._ended is None:
            return
        last_step, entries, (dispatched, steps, waited) = self._ended
        self._ended = None
        fetched = [_fetch(step, metrics) for step, metrics in entries]
        means = {
            f"train/{key}": float(np.mean(np.concatenate([entry[key] for entry in fetched])))
            for key in fetched[0]
        }
        seconds = max(dispatched - self._mark, 1e-9)
        self._mark = dispatched
        timing = {
            "timing/images_per_second": steps * self._examples_per_step / seconds,
            "timing/data_wait_percent": min(100 * waited / seconds, 100.0),
        }
        if self._has_compiled and last_step < self._total_steps:
            timing["timing/seconds_left"] = (self._total_steps - last_step) * seconds / steps
        self._has_compiled = True
        self._write(last_step, {**means, **timing})


def _fetch(last_step: int, metrics: dict) -> dict[str, list[float]]:
    fetched = {key: np.asarray(value).tolist() for key, value in metrics.items()}
    first_step = last_step - len(fetched["loss"]) + 1
    for key in ("loss", "grad_norm"):
        for offset, value in enumerate(fetched.get(key, ())):
            if not math.isfinite(value):
                raise NonFiniteLossError(_message(key, value, first_step + offset))
    return fetched


def check_evaluation(step: int, metrics: Mapping[str, float]) -> None:
    """Raises NonFiniteLossError if a loss that an evaluation after `step` gave is not finite."""
    for key, value in metrics.items():
        if key.endswith("/loss") and not math.isfinite(value):
            raise NonFiniteLossError(_message(key, value, step))


def _message(key, value, step):
    return (
        f"{key} is {value} at step {step}; nothing was saved after it: lower optim.lr or set "
        "optim.clip_norm, or look at the data of that step"
    )
