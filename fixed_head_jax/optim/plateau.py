"""A learning rate that drops when a metric stops improving."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fixed_head_jax.settings import lookup

PlateauState = optax.contrib.ReduceLROnPlateauState


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


def scale_by_plateau(plateau):
    tx, _ = lookup.build("plateau", {"plateau": _reduce_on_plateau}, "plateau", plateau)

    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u: u * state.scale.astype(u.dtype), updates), state

    # Float32 whatever the parameters are: a metric rounded to bfloat16 would hide improvements.
    return optax.GradientTransformation(lambda _: tx.init(jnp.zeros((), jnp.float32)), update)
