"""Learning-rate schedules and optimizers, built from optax's own parts.

The chain, in order: clip, weight decay (SGD, RMSProp), the rule, weight decay (AdamW), learning
rate, multipliers, plateau; all of it inside `optax.partition`, which never shows it frozen leaves.
Parameters are selected by regular expressions on their path, such as "backbone/conv1/kernel".
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from fixed_head_jax import lookup, paths

PlateauState = optax.contrib.ReduceLROnPlateauState
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
    milestones: Sequence[int] = (),
    factor: Number = 0.1,
    per_epoch: bool = False,
) -> Callable:
    """Builds the learning rate as a function of the step; safe to call inside jit.

    With t of T the steps done (or epochs, per_epoch): cosine is `lr (1 + cos(pi t / T)) / 2`,
    linear `lr (1 - t / T)`, exponential `lr factor^epochs`, step `lr factor^(milestones passed)`.
    Warm-up is `lr (step + 1) / warmup_steps`; the schedule then goes on at its own absolute step.

    Args:
        name: one of `SCHEDULES`; "plateau" is constant here, its factor is in the optimizer state.
        lr: base learning rate, >= 0.
        total_steps: length of the run in steps; later steps keep the last rate.
        epoch_starts: epoch -> the integer step it starts at.
        warmup_steps: steps of warm-up, 0 for none.
        milestones: epochs at whose first step "step" multiplies by `factor`; increasing.
        factor: of "step" (per milestone) and "exponential" (per epoch), > 0.
        per_epoch: hold cosine, linear and exponential constant inside an epoch.

    Returns:
        step -> float32 learning rate.

    Raises:
        ValueError: on an unknown name or a value out of its range.
    """
    _check_schedule(name, lr, total_steps, warmup_steps, milestones, factor)
    starts, end = _epoch_grid(epoch_starts, total_steps)
    num_epochs = len(starts)
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
    table = lr * decay(np.arange(num_epochs, dtype=np.float64), num_epochs, np)
    length = end if name == "exponential" else total_steps  # its last epoch may be cut short

    def schedule(step):
        step = jnp.asarray(step)
        if per_epoch or name == "step":
            epoch = jnp.searchsorted(starts, step, side="right", method="compare_all") - 1
            rate = jnp.asarray(table, jnp.float32)[epoch]
        else:
            rate = lr * decay(jnp.minimum(step, total_steps).astype(jnp.float32), length, jnp)
        warmup = (step + 1) * jnp.float32(lr / max(warmup_steps, 1))
        return jnp.where(step < warmup_steps, warmup, rate).astype(jnp.float32)

    return schedule


def make_optimizer(
    params: PyTree,
    schedule: Callable,
    name: str = "sgd",
    *,
    momentum: Number = 0.9,
    nesterov: bool = False,
    weight_decay: Number = 0.0,
    no_decay: Sequence[str] = (),
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number | None = None,
    rms_decay: Number = 0.99,
    clip_norm: Number = 0.0,
    frozen: Sequence[str] = (),
    lr_multipliers: Sequence[Any] = (),
    plateau: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Builds the optimizer; its state is a pytree of arrays without slots for frozen leaves.

    Args:
        params: the parameters, or their shapes.
        schedule: step -> learning rate; multiplies last, as in PyTorch.
        name: "sgd", "rmsprop" (PyTorch's: `g / (sqrt(v) + eps)`, then momentum) or "adamw".
        momentum: of sgd and rmsprop, in [0, 1).
        nesterov: sgd only.
        weight_decay: added to the gradient (sgd, rmsprop), or decoupled times lr (adamw).
        no_decay: patterns of parameters without decay.
        b1: of adamw's mean gradient.
        b2: of adamw's mean square.
        eps: added to the root in rmsprop and adamw; None is 1e-8.
        rms_decay: of rmsprop's mean square.
        clip_norm: largest global norm of the gradient that is not frozen; 0 for no clipping.
        frozen: patterns of parameters that never change.
        lr_multipliers: pairs (pattern, multiplier of the rate); the first match wins.
        plateau: None, or {"factor", "patience", "threshold", "mode"}, driven by `observe`.

    Returns:
        The transformation; its `update` needs `params`.

    Raises:
        ValueError: on an unknown name, a bad value or a pattern that matches no parameter.
    """
    _check_optimizer(name, momentum, nesterov, weight_decay, clip_norm)
    decayed = jax.tree.map(lambda no: not no, paths.match(params, "no_decay", no_decay))
    is_frozen = paths.match(params, "frozen", frozen)
    if all(jax.tree.leaves(is_frozen)):
        raise ValueError(f"frozen={frozen!r} leaves no parameter to train; narrow the patterns")
    decay = [optax.add_decayed_weights(weight_decay, decayed)] if weight_decay else []
    stages = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    stages += _rule(name, decay, momentum, nesterov, rms_decay, b1, b2, eps)
    stages += [optax.scale_by_learning_rate(schedule)] + _multipliers(params, lr_multipliers)
    stages += [_scale_by_plateau(plateau)] if plateau is not None else []
    labels = jax.tree.map(lambda freeze: "frozen" if freeze else "trained", is_frozen)
    transforms = {"trained": optax.chain(*stages), "frozen": optax.set_to_zero()}
    return optax.partition(transforms, labels)


def observe(opt_state: PyTree, value: Any, plateau: Mapping[str, Any] | None = None) -> PyTree:
    """Advances the plateau stage of an optimizer state by one evaluation's metric.

    The rate is multiplied at the evaluation after `patience` bad ones in a row, where good is
    better than the best by more than the absolute `threshold`; counting then restarts.

    Args:
        opt_state: of an optimizer from `make_optimizer`.
        value: the metric; with mode "max" larger is better.
        plateau: what `make_optimizer` was given.

    Returns:
        The new state; `opt_state` itself where it has no plateau stage.

    Raises:
        ValueError: when the state has a plateau stage and `plateau` is None.

    Source: PyTorch's ReduceLROnPlateau, threshold_mode "abs"; no floor, so unlike there changes of
        the rate below 1e-8 are made too.
    """
    if not _plateaus(opt_state):
        return opt_state
    if plateau is None:
        raise ValueError("plateau=None, but the state has a plateau stage; pass its options")
    options, value = tuple(sorted(plateau.items())), jnp.asarray(value, jnp.float32)

    def advance(node):
        return _advance(node, value, options) if _is_plateau(node) else node

    return jax.tree.map(advance, opt_state, is_leaf=_is_plateau)


def plateau_scale(opt_state: PyTree) -> jax.Array:
    """Returns the factor the plateau has reached, 1 without one: lr = schedule(step) * this."""
    states = _plateaus(opt_state)
    return jnp.asarray(states[0].scale if states else 1.0, jnp.float32)


def _is_plateau(node: Any) -> bool:
    return isinstance(node, PlateauState)


def _plateaus(opt_state):
    return [s for s in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(s)]


def _reduce_on_plateau(factor=0.2, patience=3, threshold=1e-4, mode="max"):
    if mode not in ("min", "max"):
        raise ValueError(f"plateau mode={mode!r} is unknown; use 'min' or 'max'")
    # optax reduces when the count of bad values reaches its patience, PyTorch when it exceeds it.
    tx = optax.contrib.reduce_on_plateau(factor, patience + 1, rtol=0.0, atol=threshold)
    return tx, -1.0 if mode == "max" else 1.0


@partial(jax.jit, static_argnames="options")
def _advance(state, value, options):
    tx, sign = _reduce_on_plateau(**dict(options))
    return tx.update({}, state, value=sign * value)[1]


def _scale_by_plateau(plateau):
    tx, _ = lookup.build("plateau", {"plateau": _reduce_on_plateau}, "plateau", plateau)

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates), state

    # Float32 whatever the parameters are: a metric rounded to bfloat16 would hide improvements.
    return optax.GradientTransformation(lambda _: tx.init(jnp.zeros((), jnp.float32)), update)


def _rule(name, decay, momentum, nesterov, rms_decay, b1, b2, eps):
    """Returns the stages of the rule with those of the decay: before it, after it for AdamW."""
    trace = [optax.trace(momentum, nesterov)] if momentum else []
    eps = 1e-8 if eps is None else eps
    rules = {
        "sgd": lambda: decay + trace,
        "rmsprop": lambda: decay + [optax.scale_by_rms(rms_decay, eps, eps_in_sqrt=False)] + trace,
        "adamw": lambda: [optax.scale_by_adam(b1, b2, eps)] + decay,
    }
    return lookup.build("optimizer", rules, name, {})


def _multipliers(params, lr_multipliers):
    paths.match(params, "lr_multipliers", [pattern for pattern, _ in lr_multipliers])
    names, treedef = paths.flatten(params)
    chosen = [next((m for p, m in lr_multipliers if re.search(p, name)), 1.0) for name in names]
    masks = {m: treedef.unflatten([c == m for c in chosen]) for m in dict.fromkeys(chosen)}
    return [optax.masked(optax.scale(m), mask) for m, mask in masks.items() if m != 1.0]


def _epoch_grid(epoch_starts, total_steps):
    starts = [0]
    for epoch in range(1, _MAX_EPOCHS):
        start = epoch_starts(epoch)
        if start < starts[-1]:
            raise ValueError(f"epoch_starts({epoch})={start} is before epoch {epoch - 1}; fix it")
        if start >= total_steps:
            return np.asarray(starts, np.int32), start
        starts.append(start)
    raise ValueError(f"epoch_starts never reaches total_steps={total_steps}; it must increase")


def _check_optimizer(name, momentum, nesterov, weight_decay, clip_norm):
    if nesterov and (name != "sgd" or not momentum):
        raise ValueError(
            f"nesterov=True needs sgd with momentum > 0, got {name!r} with {momentum}; set it False"
        )
    for key, value in {"weight_decay": weight_decay, "clip_norm": clip_norm}.items():
        if value < 0:
            raise ValueError(f"{key}={value} is negative; use 0 to switch it off")


def _check_schedule(name, lr, total_steps, warmup_steps, milestones, factor):
    increasing = list(milestones) == sorted(set(milestones)) and all(m >= 1 for m in milestones)
    checks = {
        f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}": name in SCHEDULES,
        f"lr={lr} must not be negative; use a value >= 0": lr >= 0,
        f"total_steps={total_steps} must be at least 1; lengthen the run": total_steps >= 1,
        f"factor={factor} must be positive; 0.1 divides the rate by ten": factor > 0,
        f"warmup_steps={warmup_steps} must be between 0 and total_steps={total_steps}; shorten "
        "the warm-up or lengthen the run": 0 <= warmup_steps <= total_steps,
        f"milestones={milestones} must be epochs >= 1 in increasing order": increasing,
    }
    for message, holds in checks.items():
        if not holds:
            raise ValueError(message)
