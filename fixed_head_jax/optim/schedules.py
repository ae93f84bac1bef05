"""Learning-rate schedules: functions of the step that are safe to call inside jit."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from fixed_head_jax.settings.kinds import (
    AT_LEAST_0,
    COUNT,
    EPOCHS,
    FLAG,
    POSITIVE,
    ascending,
    choice,
    number,
)
from fixed_head_jax.settings.schema import Group, option

_MAX_EPOCHS = 100_000


@dataclass(frozen=True)
class Schedule(Group, name="optim"):
    """The learning rate as a function of the step, the base rate aside."""

    schedule: str = option(
        "constant",
        choice("constant", "step", "cosine", "linear", "exponential", "plateau"),
        "of the learning rate",
    )
    warmup_epochs: float = option(0.0, EPOCHS, "over which the rate rises")
    warmup_from: float = option(0.0, AT_LEAST_0, "rate that warm-up starts from")
    final_lr: float = option(0.0, AT_LEAST_0, "cosine, linear: rate after the last step")
    decay_after_warmup: bool = option(False, FLAG, "cosine, linear: begin where warm-up ends")
    warmup_per_epoch: bool = option(False, FLAG, "warm-up is constant within an epoch")
    milestones: tuple[float, ...] = option(
        (),
        ascending(number("[1, 1e9]"), strictly=True),
        "step: each multiplies the rate by factor",
    )
    step_every_epochs: int = option(0, COUNT, "step: instead of milestones, every so many epochs")
    factor: float = option(0.1, POSITIVE, "step: at each milestone; exponential: each epoch")
    per_epoch: bool = option(False, FLAG, "cosine, linear, exponential: constant within an epoch")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.milestones and self.step_every_epochs:
            raise ValueError(
                f"optim.milestones={self.milestones} and optim.step_every_epochs="
                f"{self.step_every_epochs} both say when to step; set one of them"
            )
        ends = self.schedule in ("cosine", "linear")
        if (self.final_lr or self.decay_after_warmup) and not ends:
            raise ValueError(
                f"optim.final_lr={self.final_lr} and optim.decay_after_warmup="
                f"{self.decay_after_warmup} are of schedules 'cosine' and 'linear', got "
                f"{self.schedule!r}; set them to 0 and False"
            )
        if self.decay_after_warmup and (self.per_epoch or self.warmup_per_epoch):
            raise ValueError(
                "optim.decay_after_warmup=True counts steps; set optim.per_epoch=False and "
                "optim.warmup_per_epoch=False"
            )


def make_schedule(
    options: Schedule, lr: float, total_steps: int, epoch_starts: Callable[[float], int]
) -> Callable:
    """Builds the learning rate as a function of the step; safe to call inside jit.

    With t of T the steps done (or epochs, per_epoch) and f = `final_lr`: cosine is
    `f + (lr - f) (1 + cos(pi t / T)) / 2`, linear `f + (lr - f) (1 - t / T)`, exponential
    `lr factor^epochs`, step `lr factor^(milestones passed)`.
    Warm-up of n steps is `w + (lr - w) (step + 1) / n` from w = `warmup_from`, or with
    `warmup_per_epoch` `w + (lr - w) epoch / (epochs of warm-up)`; the schedule then goes on at its
    own absolute step. "plateau" is constant here: its factor is in the optimizer's state.

    Args:
        options: of the schedule.
        lr: base learning rate, >= 0.
        total_steps: length of the run in steps; later steps keep the last rate.
        epoch_starts: epoch -> the integer step it starts at.

    Returns:
        step -> float32 learning rate.

    Raises:
        ValueError: if the run is too short for the warm-up, or too long.
    """
    name, per_epoch, factor = options.schedule, options.per_epoch, options.factor
    warmup_from, final_lr, milestones = options.warmup_from, options.final_lr, options.milestones
    warmup_per_epoch, decay_after_warmup = options.warmup_per_epoch, options.decay_after_warmup
    warmup_steps, step_every = epoch_starts(options.warmup_epochs), options.step_every_epochs
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps} must be at least 1; lengthen the run")
    if warmup_steps > total_steps:
        raise ValueError(
            f"optim.warmup_epochs={options.warmup_epochs:g} makes {warmup_steps} steps of warm-up, "
            f"but the run has {total_steps}; shorten the warm-up or lengthen the run"
        )
    starts, end = _epoch_grid(epoch_starts, total_steps)
    num_epochs = len(starts)
    if step_every:
        milestones = tuple(range(step_every, num_epochs, step_every))
    decays = {
        "constant": lambda t, total, xp: xp.ones_like(t),
        "plateau": lambda t, total, xp: xp.ones_like(t),
        # (1 + cos x) / 2 = sin^2((pi - x) / 2), without cancellation near the end.
        "cosine": lambda t, total, xp: xp.sin(0.5 * np.pi * (total - t) / total) ** 2,
        "linear": lambda t, total, xp: (total - t) / total,
        "exponential": lambda t, total, xp: factor ** (t * (num_epochs / total)),
        "step": lambda t, total, xp: factor ** xp.searchsorted(milestones, t, side="right") * 1.0,
    }
    decay = decays[name]
    # Per epoch: a table in float64, so that every rate is the correctly rounded one.
    table = decay(np.arange(num_epochs, dtype=np.float64), num_epochs, np)
    table = final_lr + (lr - final_lr) * table
    first = warmup_steps if decay_after_warmup else 0
    length = end if name == "exponential" else total_steps - first  # its last epoch may be cut
    warmup_epochs = _whole_epochs(warmup_steps, [*starts, end]) if warmup_per_epoch else 0

    def schedule(step):
        step = jnp.asarray(step)
        epoch = jnp.searchsorted(starts, step, side="right", method="compare_all") - 1
        if per_epoch or name == "step":
            rate = jnp.asarray(table, jnp.float32)[epoch]
        else:
            done = jnp.maximum(jnp.minimum(step, total_steps) - first, 0).astype(jnp.float32)
            rate = final_lr + (lr - final_lr) * decay(done, max(length, 1), jnp)
        done, of = (epoch, warmup_epochs) if warmup_per_epoch else (step + 1, warmup_steps)
        if decay_after_warmup:
            done, of = step, warmup_steps - 1
        warmup = warmup_from + done * jnp.float32((lr - warmup_from) / max(of, 1))
        return jnp.where(step < warmup_steps, warmup, rate).astype(jnp.float32)

    return schedule


def _whole_epochs(warmup_steps, starts):
    """Returns which epoch the step `warmup_steps` begins."""
    if warmup_steps not in starts:
        raise ValueError(
            f"warmup_per_epoch=True needs whole epochs of warm-up; its {warmup_steps} steps end "
            "inside one: set warmup_epochs to a whole number"
        )
    return starts.index(warmup_steps)


def _epoch_grid(epoch_starts, total_steps):
    if epoch_starts(_MAX_EPOCHS) < total_steps:
        raise ValueError(
            f"total_steps={total_steps} is more than {_MAX_EPOCHS:,} epochs; shorten total_epochs"
        )
    starts = [0]
    while (start := epoch_starts(len(starts))) < total_steps:
        starts.append(start)
    return np.asarray(starts, np.int32), start
