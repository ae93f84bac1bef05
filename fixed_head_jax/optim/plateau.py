"""A learning rate that drops when a metric stops improving."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fixed_head_jax.settings.kinds import AT_LEAST_0, COUNT, choice, number
from fixed_head_jax.settings.schema import Group, option

PlateauState = optax.contrib.ReduceLROnPlateauState


@dataclass(frozen=True)
class Plateau(Group, name="optim.plateau"):
    """When the rate drops; `best_metric` is watched at every evaluation."""

    factor: float = option(0.2, number("(0, 1)"), "of a reduction")
    patience: int = option(3, COUNT, "reduces at the evaluation after this many bad ones")
    threshold: float = option(1e-4, AT_LEAST_0, "an improvement must exceed it; absolute")
    mode: str = option("max", choice("max", "min"), "which way best_metric improves")


def observe(opt_state: PyTree, value: Any, plateau: Plateau | None = None) -> PyTree:
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
    value = jnp.asarray(value, jnp.float32)

    def advance(node):
        return _advance(node, value, plateau) if _is_plateau(node) else node

    return jax.tree.map(advance, opt_state, is_leaf=_is_plateau)


def plateau_scale(opt_state: PyTree) -> jax.Array:
    """Returns the factor the plateau has reached, 1 without one: lr = schedule(step) * this."""
    states = _plateaus(opt_state)
    return jnp.asarray(states[0].scale if states else 1.0, jnp.float32)


def _is_plateau(node: Any) -> bool:
    return isinstance(node, PlateauState)


def _plateaus(opt_state):
    return [s for s in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(s)]


def _reduce_on_plateau(plateau):
    # optax reduces when the count of bad values reaches its patience, PyTorch when it exceeds it.
    return optax.contrib.reduce_on_plateau(
        plateau.factor, plateau.patience + 1, rtol=0.0, atol=plateau.threshold
    )


@partial(jax.jit, static_argnames="plateau")
def _advance(state, value, plateau):
    sign = -1.0 if plateau.mode == "max" else 1.0
    return _reduce_on_plateau(plateau).update({}, state, value=sign * value)[1]


def scale_by_plateau(plateau: Plateau) -> optax.GradientTransformation:
    """Scales updates by the factor that `observe` has brought the state to."""
    tx = _reduce_on_plateau(plateau)

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates), state

    # Float32 whatever the parameters are: a metric rounded to bfloat16 would hide improvements.
    return optax.GradientTransformation(lambda _: tx.init(jnp.zeros((), jnp.float32)), update)
