"""Optimizers, built from optax's own parts.

The chain, in order: clip, weight decay (SGD, RMSProp; LARC's is inside its rule), the rule, weight
decay (AdamW), learning rate, plateau; all of it inside `optax.partition`, which never shows it
frozen leaves. L2-SP is decay towards the start, and stands beside the weight decay. What differs by
parameter (rates, strengths of decay, what trains at all) comes as trees.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from fixed_head_jax.optim.plateau import scale_by_plateau
from fixed_head_jax.optim.transforms import Number, clip_by_tensor, pull_to_start, scale_by_larc
from fixed_head_jax.settings import lookup


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
    stages += [scale_by_plateau(plateau)] if plateau is not None else []
    labels = jax.tree.map(lambda trains: "trained" if trains else "frozen", is_trained)
    transforms = {"trained": optax.chain(*stages), "frozen": optax.set_to_zero()}
    return optax.partition(transforms, labels)


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
