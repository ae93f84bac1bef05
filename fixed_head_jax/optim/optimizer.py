"""Optimizers, built from optax's own parts.

The chain, in order: clip, weight decay (SGD, RMSProp; LARC's is inside its rule), the rule, weight
decay (AdamW), learning rate, plateau; all of it inside `optax.partition`, which never shows it
frozen leaves. L2-SP is decay towards the start, and stands beside the weight decay. What differs by
parameter (rates, strengths of decay, what trains at all) comes as trees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from fixed_head_jax.optim.plateau import Plateau, scale_by_plateau
from fixed_head_jax.optim.transforms import Number, clip_by_tensor, pull_to_start, scale_by_larc
from fixed_head_jax.settings.kinds import AT_LEAST_0, DECAY, FLAG, POSITIVE, choice
from fixed_head_jax.settings.schema import Group, option


@dataclass(frozen=True)
class Rule(Group, name="optim"):
    """How gradients become an update, the learning rate aside."""

    name: str = option("sgd", choice("sgd", "rmsprop", "adamw", "larc"), "rule of the update")
    momentum: float = option(0.9, DECAY, "sgd, rmsprop, larc")
    nesterov: bool = option(False, FLAG, "sgd")
    b1: float = option(0.9, DECAY, "adamw: decay of the mean gradient")
    b2: float = option(0.999, DECAY, "adamw: decay of the mean square")
    rms_decay: float = option(0.99, DECAY, "rmsprop: same")
    eps: float = option(1e-8, AT_LEAST_0, "rmsprop (outside the root), adamw, larc")
    trust_coefficient: float = option(0.001, POSITIVE, "larc")
    clip_norm: float = option(0.0, AT_LEAST_0, "largest global norm of the gradient; 0: none")
    clip_tensor_norm: float = option(
        0.0, AT_LEAST_0, "same, of each parameter's gradient by itself"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ValueError(
                "optim.nesterov=True needs optim.name='sgd' with optim.momentum > 0, got "
                f"{self.name!r} with {self.momentum}; set it False"
            )


def make_optimizer(
    params: PyTree,
    schedule: Callable | PyTree,
    rule: Rule = Rule(),
    *,
    weight_decay: Number | PyTree = 0.0,
    l2_sp: PyTree = None,
    is_trained: PyTree = None,
    plateau: Plateau | None = None,
) -> optax.GradientTransformation:
    """Builds the optimizer; its state is a pytree of arrays without slots for frozen leaves.

    RMSProp is PyTorch's: `g / (sqrt(v) + eps)`, then momentum; LARC is `scale_by_larc`, then
    momentum. Clipping is of the gradient that is not frozen.

    Args:
        params: the parameters, or their shapes.
        schedule: step -> learning rate, or a tree of such functions, one per parameter; multiplies
            last, as in PyTorch.
        rule: of the update.
        weight_decay: added to the gradient (sgd, rmsprop, larc), or decoupled times lr (adamw); a
            number >= 0, or a tree of them.
        l2_sp: None, or per parameter the strength of the decay towards where it starts, see
            `pull_to_start`.
        is_trained: per parameter, false for those that never change; None for all.
        plateau: None, or what `observe` drives.

    Returns:
        The transformation; its `update` needs `params`.

    Raises:
        ValueError: if there is nothing to train.
    """
    if not _is_tree(weight_decay):
        weight_decay = jax.tree.map(lambda _: weight_decay, params)
    is_trained = jax.tree.map(lambda _: True, params) if is_trained is None else is_trained
    if not any(jax.tree.leaves(is_trained)):
        raise ValueError("all parameters are frozen; leave some of them to train")
    decay = _decay(rule, weight_decay)
    pull = _by_value(pull_to_start, l2_sp)
    decay = pull + decay if rule.name == "larc" else decay + pull  # scaled with the gradient
    stages = [optax.clip_by_global_norm(rule.clip_norm)] if rule.clip_norm else []
    stages += [clip_by_tensor(rule.clip_tensor_norm)] if rule.clip_tensor_norm else []
    stages += _update(rule, decay)
    if _is_tree(schedule):
        stages += _by_value(optax.scale_by_learning_rate, schedule)
    else:
        stages += [optax.scale_by_learning_rate(schedule)]
    stages += [scale_by_plateau(plateau)] if plateau is not None else []
    labels = jax.tree.map(lambda trains: "trained" if trains else "frozen", is_trained)
    transforms = {"trained": optax.chain(*stages), "frozen": optax.set_to_zero()}
    return optax.partition(transforms, labels)


def _decay(rule, weight_decay):
    """Returns the stages of the weight decay; LARC's are the scaling that it is a part of."""
    if rule.name != "larc":
        return _by_value(optax.add_decayed_weights, weight_decay)
    larc = partial(scale_by_larc, trust_coefficient=rule.trust_coefficient, eps=rule.eps)
    return _by_value(larc, weight_decay, skip_zero=False)


def _update(rule, decay):
    """Returns the stages of the rule with those of the decay: before it, after it for AdamW."""
    trace = [optax.trace(rule.momentum, rule.nesterov)] if rule.momentum else []
    if rule.name == "adamw":
        return [optax.scale_by_adam(rule.b1, rule.b2, rule.eps), *decay]
    if rule.name == "rmsprop":
        decay = [*decay, optax.scale_by_rms(rule.rms_decay, rule.eps, eps_in_sqrt=False)]
    return [*decay, *trace]


def _by_value(make, values, skip_zero=True):
    """Returns `make(value)` of every distinct value, for the parameters that have it."""
    distinct = [v for v in dict.fromkeys(jax.tree.leaves(values)) if v != 0 or not skip_zero]
    return [
        optax.masked(make(value), jax.tree.map(lambda v, value=value: v == value, values))
        for value in distinct
    ]


def _is_tree(value: Any) -> bool:
    return not callable(value) and not isinstance(value, Number)
