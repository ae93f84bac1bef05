"""How strongly every parameter trains: base rate and decay, and what of them differs by path."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jaxtyping import PyTree

from fixed_head_jax.optim import transfer
from fixed_head_jax.settings import paths
from fixed_head_jax.settings.kinds import AT_LEAST_0, FACTORS, PATTERNS
from fixed_head_jax.settings.schema import Group, option


@dataclass(frozen=True)
class Strengths(Group, name="optim"):
    """The base rate, the weight decay, and for which parameters they are others."""

    lr: float = option(0.1, AT_LEAST_0, "learning rate, the schedule's base")
    weight_decay: float = option(0.0, AT_LEAST_0, "L2 in the gradient; adamw: decoupled")
    no_decay: tuple[str, ...] = option((), PATTERNS, "of parameter paths without weight decay")
    decay_multipliers: tuple[tuple[str, float], ...] = option(
        (), FACTORS, "of the decay, by path, first match wins"
    )
    frozen: tuple[str, ...] = option((), PATTERNS, "of parameter paths that do not train")
    lr_multipliers: tuple[tuple[str, float], ...] = option(
        (), FACTORS, "of the rate, by path, first match wins"
    )


def make_plan(
    strengths: Strengths,
    dials: transfer.Dials,
    params: PyTree,
    layers: transfer.Layers,
    frozen: Sequence[str] = (),
) -> tuple[transfer.Plan, PyTree]:
    """Returns how every parameter trains, and per parameter whether it does.

    Args:
        strengths: of all parameters.
        dials: of groups of layers.
        params: the parameters, or their shapes.
        layers: of the backbone.
        frozen: patterns of the paths of more parameters that do not train.

    Raises:
        ValueError: if a pattern matches nothing, or L2-SP pulls nothing.
    """
    lr = strengths.lr
    patterns = (*strengths.frozen, *transfer.frozen_patterns(dials, params, layers, lr), *frozen)
    is_frozen = paths.match(params, "optim.frozen", patterns)
    is_trained = jax.tree.map(operator.not_, is_frozen)
    plan = transfer.make_plan(params, layers, dials, lr, strengths.weight_decay)
    factors = paths.multipliers(params, "optim.decay_multipliers", strengths.decay_multipliers)
    plan = transfer.restrict(
        plan._replace(beta=jax.tree.map(operator.mul, plan.beta, factors)),
        is_trained,
        paths.match(params, "optim.no_decay", strengths.no_decay),
        paths.multipliers(params, "optim.lr_multipliers", strengths.lr_multipliers),
    )
    if dials.l2_sp and not any(jax.tree.leaves(plan.alpha)):
        raise ValueError(
            "transfer.l2_sp=True, but no layer is pulled: all are new or frozen, or have an alpha "
            "of 0; set transfer.l2_sp=False"
        )
    return plan, is_trained
