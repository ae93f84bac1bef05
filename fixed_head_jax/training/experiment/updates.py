"""From a config to how the parameters train: groups, learning rates and the optimizer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtyping import PyTree
from ml_collections import ConfigDict

from fixed_head_jax.optim import Plateau, Rule, Schedule, make_optimizer, make_schedule, transfer
from fixed_head_jax.optim.strengths import Strengths, make_plan
from fixed_head_jax.settings.schema import read


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
    strengths, schedule = read(Strengths, config), read(Schedule, config)
    frozen = ("^backbone/",) if config.model.frozen_backbone else ()
    plan, is_trained = make_plan(strengths, dials, params, layers, frozen)

    def make_group_schedule(lr):
        # Every group warms up from its own share of the rate.
        share = 1.0 if dials.as_published or not strengths.lr else lr / strengths.lr
        scaled = replace(
            schedule, warmup_from=share * schedule.warmup_from, final_lr=share * schedule.final_lr
        )
        return make_schedule(scaled, lr, total_steps, starts)

    rates, logged_rates = transfer.make_rates(plan, is_trained, make_group_schedule)
    plateau = read(Plateau, config) if schedule.schedule == "plateau" else None
    tx = make_optimizer(
        params, rates, read(Rule, config), weight_decay=plan.beta, l2_sp=plan.alpha,
        is_trained=is_trained, plateau=plateau,
    )  # fmt: skip
    return Training(plan, is_trained, logged_rates, tx)
