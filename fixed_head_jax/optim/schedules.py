"""Learning-rate schedules: functions of the step that are safe to call inside jit."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

Number = int | float
SCHEDULES = ("constant", "step", "cosine", "linear", "exponential", "plateau")
_MAX_EPOCHS = 1_000_000


def make_schedule(
    name: str,
    lr: Number,
    total_steps: int,
    epoch_starts: Callable[[int], int],
    *,
    warmup_steps: int = 0,
    warmup_from: Number = 0.0,
    warmup_per_epoch: bool = False,
    milestones: Sequence[int] = (),
    step_every: int = 0,
    factor: Number = 0.1,
    per_epoch: bool = False,
    final_lr: Number = 0.0,
    decay_after_warmup: bool = False,
) -> Callable:
    """Builds the learning rate as a function of the step; safe to call inside jit.

    With t of T the steps done (or epochs, per_epoch) and f = `final_lr`: cosine is
    `f + (lr - f) (1 + cos(pi t / T)) / 2`, linear `f + (lr - f) (1 - t / T)`, exponential
    `lr factor^epochs`, step `lr factor^(milestones passed)`.
    Warm-up is `w + (lr - w) (step + 1) / warmup_steps` from w = `warmup_from`, or with
    `warmup_per_epoch` `w + (lr - w) epoch / (epochs of warm-up)`; the schedule then goes on at its
    own absolute step.

    Args:
        name: one of `SCHEDULES`; "plateau" is constant here, its factor is in the optimizer state.
        lr: base learning rate, >= 0.
        total_steps: length of the run in steps; later steps keep the last rate.
        epoch_starts: epoch -> the integer step it starts at.
        warmup_steps: steps of warm-up, 0 for none.
        warmup_from: rate that warm-up starts from, >= 0; may be above `lr`.
        warmup_per_epoch: hold warm-up constant inside an epoch, and begin at `warmup_from` itself;
            `warmup_steps` must then end with an epoch.
        milestones: epochs at whose first step "step" multiplies by `factor`; increasing.
        step_every: epochs from one such step to the next, in place of `milestones`; 0 for these.
        factor: of "step" (per milestone) and "exponential" (per epoch), > 0.
        per_epoch: hold cosine, linear and exponential constant inside an epoch.
        final_lr: of cosine and linear, what they reach after the last step, >= 0.
        decay_after_warmup: see above; of cosine and linear without `per_epoch`.

    Returns:
        step -> float32 learning rate.

    Raises:
        ValueError: on an unknown name or a value out of its range.
    """
    _check(name, lr, total_steps, warmup_steps, warmup_from, milestones, step_every, factor)
    _check_end(name, final_lr, decay_after_warmup, per_epoch or warmup_per_epoch)
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


def _check_end(name, final_lr, decay_after_warmup, per_epoch):
    if final_lr < 0:
        raise ValueError(f"final_lr={final_lr} must not be negative; use a rate >= 0")
    if (final_lr or decay_after_warmup) and name not in ("cosine", "linear"):
        raise ValueError(
            f"final_lr={final_lr} and decay_after_warmup={decay_after_warmup} are of schedules "
            f"'cosine' and 'linear', got {name!r}; set them to 0 and False"
        )
    if decay_after_warmup and per_epoch:
        raise ValueError(
            "decay_after_warmup=True counts steps; set per_epoch=False and warmup_per_epoch=False"
        )


def _whole_epochs(warmup_steps, starts):
    """Returns which epoch the step `warmup_steps` begins."""
    if warmup_steps not in starts:
        raise ValueError(
            f"warmup_per_epoch=True needs whole epochs of warm-up; its {warmup_steps} steps end "
            "inside one: set warmup_epochs to a whole number"
        )
    return starts.index(warmup_steps)


def _epoch_grid(epoch_starts, total_steps):
    starts = [0]
    for epoch in range(1, _MAX_EPOCHS):
        start = epoch_starts(epoch)
        if start < starts[-1]:
            raise ValueError(f"epoch_starts({epoch})={start} is before epoch {epoch - 1}; fix it")
        if start >= total_steps:
            return np.asarray(starts, np.int32), start
        starts.append(start)
    raise ValueError(
        f"total_steps={total_steps} is more than {_MAX_EPOCHS:,} epochs; shorten total_epochs"
    )


def _check(name, lr, total_steps, warmup_steps, warmup_from, milestones, step_every, factor):
    increasing = list(milestones) == sorted(set(milestones)) and all(m >= 1 for m in milestones)
    checks = {
        f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}": name in SCHEDULES,
        f"lr={lr} must not be negative; use a value >= 0": lr >= 0,
        f"total_steps={total_steps} must be at least 1; lengthen the run": total_steps >= 1,
        f"factor={factor} must be positive; 0.1 divides the rate by ten": factor > 0,
        f"warmup_epochs makes {warmup_steps} steps of warm-up, but the run has {total_steps}; "
        "shorten the warm-up or lengthen the run": 0 <= warmup_steps <= total_steps,
        f"warmup_from={warmup_from} must not be negative; use a rate >= 0": warmup_from >= 0,
        f"milestones={milestones} must be epochs >= 1 in increasing order": increasing,
        f"step_every_epochs={step_every} must be at least 1, or 0 for milestones": step_every >= 0,
        f"milestones={milestones} and step_every_epochs={step_every} both say when to step; set "
        "one of them": not (milestones and step_every),
    }
    for message, holds in checks.items():
        if not holds:
            raise ValueError(message)
