"""From a config to how the parameters train: groups, learning rates and the optimizer."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fixed_head_jax import optim
from fixed_head_jax.optim import schedules, transfer
from fixed_head_jax.settings import paths


class Training(NamedTuple):
    """How the parameters train.

    Attributes:
        plan: group, base rate and decay of every parameter, as carried out.
        is_trained: per parameter: false where it is frozen.
        rates: learning rates of a step, by the name they are logged under.
        tx: the optimizer.
    """

    plan: transfer.Plan
    is_trained: PyTree
    rates: dict[str, Callable]
    tx: Any


def make_training(
    config: ConfigDict,
    dials: transfer.Dials,
    params: PyTree,
    layers: transfer.Layers,
    total_steps: int,
    starts: Callable[[float], int],
) -> Training:
    """Builds the optimizer of a config; arguments as in `experiment.build`.

    Args:
        config: every key of `configs/common.py`.
        dials: of `config.transfer`, checked.
        params: the parameters' shapes.
        layers: of the backbone.
        total_steps: length of the run.
        starts: epoch -> the step it starts at.

    Raises:
        ValueError: if a pattern matches nothing, L2-SP pulls nothing or nothing is left to train.
    """
    plan, is_trained = _make_plan(config, dials, params, layers)
    make_schedule = _schedule_maker(config.optim, dials, total_steps, starts)
    rates, logged_rates = transfer.make_rates(plan, is_trained, make_schedule)
    tx = _make_optimizer(config.optim, params, rates, plan, is_trained)
    return Training(plan, is_trained, logged_rates, tx)


def _make_plan(config, dials, params, layers):
    """Returns how every parameter trains, and whether it does."""
    options, lr = config.optim, config.optim.lr
    patterns = (*options.frozen, *transfer.frozen_patterns(dials, params, layers, lr))
    patterns += ("^backbone/",) if config.model.frozen_backbone else ()
    is_frozen = paths.match(params, "optim.frozen", patterns)
    is_trained = jax.tree.map(lambda frozen: not frozen, is_frozen)
    plan = transfer.make_plan(params, layers, dials, lr, options.weight_decay)
    factors = paths.multipliers(params, "optim.decay_multipliers", options.decay_multipliers)
    plan = transfer.restrict(
        plan._replace(beta=jax.tree.map(operator.mul, plan.beta, factors)),
        is_trained,
        paths.match(params, "optim.no_decay", options.no_decay),
        paths.multipliers(params, "optim.lr_multipliers", options.lr_multipliers),
    )
    if dials.l2_sp and not any(jax.tree.leaves(plan.alpha)):
        raise ValueError(
            "transfer.l2_sp=True, but no layer is pulled: all are new or frozen, or have an alpha "
            "of 0; set transfer.l2_sp=False"
        )
    return plan, is_trained


def _schedule_maker(config, dials, total_steps, starts):
    """Returns `base learning rate -> schedule`."""
    keys = ("milestones", "factor", "per_epoch", "warmup_per_epoch", "decay_after_warmup")
    options = {key: config[key] for key in keys}
    options["warmup_steps"] = starts(config.warmup_epochs)
    options["step_every"] = config.step_every_epochs

    def make_schedule(lr):
        # Every group warms up from its own share of the rate.
        share = 1.0 if dials.as_published or not config.lr else lr / config.lr
        return schedules.make_schedule(
            config.schedule, lr, total_steps, starts, warmup_from=share * config.warmup_from,
            final_lr=share * config.final_lr, **options,
        )  # fmt: skip

    return make_schedule


def _make_optimizer(config, params, rates, plan, is_trained):
    keys = (
        "name", "momentum", "nesterov", "b1", "b2", "eps", "rms_decay", "clip_norm",
        "clip_tensor_norm", "trust_coefficient",
    )  # fmt: skip
    plateau = dict(config.plateau) if config.schedule == "plateau" else None
    return optim.make_optimizer(
        params, rates, weight_decay=plan.beta, l2_sp=plan.alpha, plateau=plateau,
        is_trained=is_trained, **{key: config[key] for key in keys},
    )  # fmt: skip
