"""Optimizers, built from optax's own parts.

The chain, in order: clip, weight decay (SGD, RMSProp; LARC's is inside its rule), the rule, weight
decay (AdamW), learning rate, plateau; all of it inside `optax.partition`, which never shows it
frozen leaves. L2-SP is decay towards the start, and stands beside the weight decay. What differs by
parameter (rates, strengths of decay, what trains at all) comes as trees.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from fixed_head_jax import lookup

PlateauState = optax.contrib.ReduceLROnPlateauState
Number = int | float


class L2SPState(NamedTuple):
    """Where the parameters started, which L2-SP pulls them back to."""

    anchor: PyTree


def make_optimizer(
    params: PyTree,
    schedule: Callable | PyTree,
    name: str = "sgd",
    *,
    momentum: Number = 0.9,
    nesterov: bool = False,
    weight_decay: Number | PyTree = 0.0,
    l2_sp: PyTree = None,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number | None = None,
    rms_decay: Number = 0.99,
    clip_norm: Number = 0.0,
    clip_tensor_norm: Number = 0.0,
    trust_coefficient: Number = 0.001,
    is_trained: PyTree = None,
    plateau: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Builds the optimizer; its state is a pytree of arrays without slots for frozen leaves.

    Args:
        params: the parameters, or their shapes.
        schedule: step -> learning rate, or a tree of such functions, one per parameter; multiplies
            last, as in PyTorch.
        name: "sgd", "rmsprop" (PyTorch's: `g / (sqrt(v) + eps)`, then momentum), "adamw" or "larc"
            (`scale_by_larc`, then momentum).
        momentum: of sgd, rmsprop and larc, in [0, 1).
        nesterov: sgd only.
        weight_decay: added to the gradient (sgd, rmsprop, larc), or decoupled times lr (adamw); a
            number, or a tree of them.
        l2_sp: None, or per parameter the strength of the decay towards where it starts, see
            `pull_to_start`.
        b1: of adamw's mean gradient.
        b2: of adamw's mean square.
        eps: added to the root in rmsprop and adamw, to the norms in larc; None is 1e-8.
        rms_decay: of rmsprop's mean square.
        clip_norm: largest global norm of the gradient that is not frozen; 0 for no clipping.
        clip_tensor_norm: same, of the gradient of each parameter by itself, see `clip_by_tensor`.
        trust_coefficient: of larc, > 0.
        is_trained: per parameter, false for those that never change; None for all.
        plateau: None, or {"factor", "patience", "threshold", "mode"}, driven by `observe`.

    Returns:
        The transformation; its `update` needs `params`.

    Raises:
        ValueError: on an unknown name, a bad value, or nothing to train.
    """
    clips = {"clip_norm": clip_norm, "clip_tensor_norm": clip_tensor_norm}
    _check_optimizer(
        name, momentum, nesterov, trust_coefficient, weight_decay=weight_decay, **clips
    )
    if not _is_tree(weight_decay):
        weight_decay = jax.tree.map(lambda _: weight_decay, params)
    is_trained = jax.tree.map(lambda _: True, params) if is_trained is None else is_trained
    if not any(jax.tree.leaves(is_trained)):
        raise ValueError("all parameters are frozen; leave some of them to train")
    eps = 1e-8 if eps is None else eps
    decay = _decay(name, weight_decay, trust_coefficient, eps)
    pull = _by_value(pull_to_start, l2_sp)
    decay = pull + decay if name == "larc" else decay + pull  # scaled with the gradient, or added
    stages = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    stages += [clip_by_tensor(clip_tensor_norm)] if clip_tensor_norm else []
    stages += _rule(name, decay, momentum, nesterov, rms_decay, b1, b2, eps)
    if _is_tree(schedule):
        stages += _by_value(optax.scale_by_learning_rate, schedule)
    else:
        stages += [optax.scale_by_learning_rate(schedule)]
    stages += [_scale_by_plateau(plateau)] if plateau is not None else []
    labels = jax.tree.map(lambda trains: "trained" if trains else "frozen", is_trained)
    transforms = {"trained": optax.chain(*stages), "frozen": optax.set_to_zero()}
    return optax.partition(transforms, labels)


def scale_by_larc(
    weight_decay: Number, trust_coefficient: Number = 0.001, eps: Number = 1e-8
) -> optax.GradientTransformation:
    """Scales `g + weight_decay p` to the size of p, parameter by parameter.

    The factor is `trust_coefficient |p| / (|g| + weight_decay |p| + eps)`. Where p or g is zero, g
    stays as it is, without decay. Unlike `optax.lars`, the norms are added instead of taken of the
    sum, and no parameter is left out.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888, as in NVIDIA apex, without clipping.
    """

    def scale(g, p):
        norm_p, norm_g = optax.tree.norm(p), optax.tree.norm(g)
        factor = trust_coefficient * norm_p / (norm_g + weight_decay * norm_p + eps)
        return jnp.where((norm_p > 0) & (norm_g > 0), factor * (g + weight_decay * p), g)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params))


def clip_by_tensor(largest: Number) -> optax.GradientTransformation:
    """Clips the norm of each parameter's gradient by itself: g min(1, largest / (|g| + 1e-6)).

    Source: Self-Classifier's code, whose published runs do not use it.
    """

    def clip(g):
        return g * jnp.minimum(1.0, largest / (optax.tree.norm(g) + 1e-6))

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def pull_to_start(strength: Number) -> optax.GradientTransformation:
    """Adds `strength (w - w0)` to the gradient, w0 being the parameters at `init`: L2-SP.

    That is the gradient of `strength / 2 |w - w0|^2`. w0 is a part of the state, so that a run
    that goes on from a checkpoint is pulled to where the first one started.

    Source: Li, Grandvalet & Davoine 2018, https://arxiv.org/abs/1802.01483, L2-SP.
    """

    def init(params):
        return L2SPState(jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        pulled = jax.tree.map(
            lambda u, w, start: u + strength * (w - start), updates, params, state.anchor
        )
        return pulled, state

    return optax.GradientTransformation(init, update)


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


def _decay(name, weight_decay, trust_coefficient, eps):
    """Returns the stages of the weight decay; LARC's are the scaling that it is a part of."""
    if name != "larc":
        return _by_value(optax.add_decayed_weights, weight_decay)
    larc = partial(scale_by_larc, trust_coefficient=trust_coefficient, eps=eps)
    return _by_value(larc, weight_decay, skip_zero=False)


def _rule(name, decay, momentum, nesterov, rms_decay, b1, b2, eps):
    """Returns the stages of the rule with those of the decay: before it, after it for AdamW."""
    trace = [optax.trace(momentum, nesterov)] if momentum else []
    rules = {
        "sgd": lambda: decay + trace,
        "rmsprop": lambda: decay + [optax.scale_by_rms(rms_decay, eps, eps_in_sqrt=False)] + trace,
        "adamw": lambda: [optax.scale_by_adam(b1, b2, eps)] + decay,
        "larc": lambda: decay + trace,
    }
    return lookup.build("optimizer", rules, name, {})


def _by_value(make, values, skip_zero=True):
    """Returns `make(value)` of every distinct value, for the parameters that have it."""
    distinct = [v for v in dict.fromkeys(jax.tree.leaves(values)) if v != 0 or not skip_zero]
    return [
        optax.masked(make(value), jax.tree.map(lambda v, value=value: v == value, values))
        for value in distinct
    ]


def _is_tree(value: Any) -> bool:
    return not callable(value) and not isinstance(value, Number)


def _check_optimizer(name, momentum, nesterov, trust_coefficient, **not_negative):
    if not trust_coefficient > 0:
        raise ValueError(f"trust_coefficient must be positive, got {trust_coefficient}")
    if nesterov and (name != "sgd" or not momentum):
        raise ValueError(
            f"nesterov=True needs sgd with momentum > 0, got {name!r} with {momentum}; set it False"
        )
    for key, values in not_negative.items():
        for value in jax.tree.leaves(values):
            if value < 0:
                raise ValueError(f"{key}={value} is negative; use 0 to switch it off")
