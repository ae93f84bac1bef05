"""What the dials of transfer make of every parameter: its group, learning rate and decay."""

import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from fixed_head_jax.display.tables import markdown
from fixed_head_jax.optim.transfer.dials import Dials, Layers, group_rate, has_release_constants
from fixed_head_jax.settings import paths

GROUPS = ("head", "new", "upper", "lower")
DEFAULT_ALPHA = 0.01
# The release's constants: of the first kernel, of other anchored ones, of all else without norms.
RELEASE_FIRST_ALPHA, RELEASE_ALPHA, RELEASE_BETA = 0.04, 0.02, 5e-4


class Plan(NamedTuple):
    """Trees with one value per parameter.

    Attributes:
        group: of `GROUPS`.
        lr: base learning rate.
        beta: strength of the decay towards zero.
        alpha: strength of the decay towards the start.
    """

    group: PyTree
    lr: PyTree
    beta: PyTree
    alpha: PyTree


def make_plan(params: PyTree, layers: Layers, dials: Dials, lr: float, weight_decay: float) -> Plan:
    """Assigns every parameter its group and what goes with it.

    Args:
        params: {"backbone", "pool"?, "head"?}, or their shapes.
        layers: of the backbone.
        dials: checked.
        lr: the optimizer's base learning rate.
        weight_decay: the optimizer's.

    Source: arXiv 2107.08585, L2-SP by group: alpha (w - w0) + beta w is added to the gradient.
    """
    names, treedef = paths.flatten(params)
    depths = [_depth(name, layers) for name in names]
    groups = [_group(depth, len(layers), dials) for depth in depths]
    rates = [group_rate(dials, _rate_group(depth, dials), lr) for depth in depths]
    if has_release_constants(dials):
        alphas, betas = _release_strengths(names, depths, len(layers), dials, weight_decay)
    else:
        pairs = [
            _strengths(group, dials, weight_decay) if _is_covered(name) else (0.0, weight_decay)
            for name, group in zip(names, groups, strict=True)
        ]
        alphas, betas = zip(*pairs, strict=True)
    return Plan(*(treedef.unflatten(values) for values in (groups, rates, betas, alphas)))


def _depth(name, layers):
    """Returns the layer that a parameter is in, from 0 at the image; None in the head or pool."""
    part, _, path = name.partition("/")
    if part != "backbone":
        return None
    return next(
        depth
        for depth, parts in enumerate(layers)
        if f"{path}/".startswith(tuple(f"{part}/" for part in parts))
    )


def _group(depth, num_layers, dials):
    if depth is None:
        return "head"
    return "new" if depth > num_layers - dials.new_layers else _rate_group(depth, dials)


def _rate_group(depth, dials):
    if depth is None:
        return "head"
    return "lower" if depth < (dials.num_low_lr_layers or 0) else "upper"


def _is_covered(name):
    """Returns whether L2-SP speaks of a parameter: kernels, and all of the head."""
    return name.endswith("kernel") or not name.startswith("backbone/")


def _strengths(group, dials, weight_decay):
    """Returns alpha and beta of what L2-SP covers in a group."""
    alpha = 0.0
    if dials.l2_sp and group in ("upper", "lower"):
        alpha = getattr(dials, f"alpha_{group}")
        alpha = DEFAULT_ALPHA if alpha is None else alpha
    beta = getattr(dials, f"beta_{group}")
    if beta is None:
        beta = 0.0 if alpha else weight_decay
    return alpha, beta


def _release_strengths(names, depths, num_layers, dials, weight_decay):
    """Returns alphas and betas as the release computes them, the optimizer's decay included."""
    end = min(dials.num_low_lr_layers, num_layers - dials.new_layers)
    alphas = [
        RELEASE_ALPHA if name.endswith("kernel") and depth is not None and depth < end else 0.0
        for name, depth in zip(names, depths, strict=True)
    ]
    betas = [
        weight_decay + (RELEASE_BETA if _is_covered(name) and not alpha else 0.0)
        for name, alpha in zip(names, alphas, strict=True)
    ]
    anchored = [index for index, alpha in enumerate(alphas) if alpha]
    if anchored:
        alphas[min(anchored, key=depths.__getitem__)] = RELEASE_FIRST_ALPHA
    return alphas, betas


def restrict(plan: Plan, is_trained: PyTree, has_no_decay: PyTree, lr_multipliers: PyTree) -> Plan:
    """Returns the plan as it is carried out, other keys of the optimizer considered.

    Args:
        plan: of `make_plan`.
        is_trained: per parameter; what is frozen has no rate and no decay.
        has_no_decay: per parameter; what has none is not pulled to zero.
        lr_multipliers: per parameter, of its rate.
    """

    def where(keeps, values):
        return jax.tree.map(lambda keep, value: value if keep else 0.0, keeps, values)

    decays = jax.tree.map(lambda trained, no: trained and not no, is_trained, has_no_decay)
    return plan._replace(
        lr=where(is_trained, jax.tree.map(operator.mul, plan.lr, lr_multipliers)),
        beta=where(decays, plan.beta),
        alpha=where(is_trained, plan.alpha),
    )


def make_rates(
    plan: Plan, is_trained: PyTree, make_schedule: Callable[[float], Callable]
) -> tuple[PyTree, dict[str, Callable]]:
    """Returns the schedule of every parameter, and those of the groups to log.

    Args:
        plan: of `restrict`.
        is_trained: per parameter.
        make_schedule: base learning rate -> schedule.

    Returns:
        A tree of schedules, one object per distinct rate; and by name "lr", or where trained
        parameters differ in it, "lr_<group>" each.
    """
    by_rate = {rate: make_schedule(rate) for rate in sorted(set(jax.tree.leaves(plan.lr)))}
    leaves = zip(*map(jax.tree.leaves, (plan.group, plan.lr, is_trained)), strict=True)
    trained = {(group, rate) for group, rate, trains in leaves if trains}
    if len({rate for _, rate in trained}) == 1:
        (rate,) = {rate for _, rate in trained}
        logged = {"lr": by_rate[rate]}
    else:
        # Where a group has several rates, the log shows the largest.
        logged = {f"lr_{group}": by_rate[rate] for group, rate in sorted(trained)}
    return jax.tree.map(by_rate.get, plan.lr), logged


def table(plan: Plan, params: PyTree, layers: Layers) -> str:
    """Formats a plan as a Markdown table, from the head down.

    One row per group and base learning rate: its layers, parameters, rate, and the strengths of
    the decay to zero and to the start, in brackets those of what L2-SP does not cover (norms,
    biases and embeddings of the backbone) if they differ.
    """
    names, _ = paths.flatten(params)
    leaves = [
        jax.tree.leaves(tree) for tree in (plan.group, plan.lr, params, plan.beta, plan.alpha)
    ]
    rows: dict[tuple[str, float], list] = {}
    for name, group, rate, leaf, beta, alpha in zip(names, *leaves, strict=True):
        rows.setdefault((group, rate), []).append((name, leaf.size, beta, alpha))
    header = ["group", "layers", "parameters", "learning rate", "decay to 0", "decay to the start"]
    cells = [header]
    for group, rate in sorted(rows, key=lambda key: (GROUPS.index(key[0]), -key[1])):
        members = rows[group, rate]
        depths = {_depth(name, layers) for name, *_ in members} - {None}
        size = sum(size for _, size, *_ in members)
        strengths = [
            _shown(
                {member[column] for member in members if _is_covered(member[0])},
                {member[column] for member in members if not _is_covered(member[0])},
            )
            for column in (2, 3)
        ]
        cells.append([group, _range(sorted(depths), layers), f"{size:,}", f"{rate:g}", *strengths])
    return markdown(cells)


def _range(depths, layers):
    """Names layers by their first parts, neighbours as a range, and how many they are."""
    if not depths:
        return "head"
    starts = [depth for depth in depths if depth - 1 not in depths]
    ends = [depth for depth in depths if depth + 1 not in depths]
    spans = [
        layers[first][0] if first == last else f"{layers[first][0]} ... {layers[last][0]}"
        for first, last in zip(starts, ends, strict=True)
    ]
    return ", ".join(spans) + (f" ({len(depths)})" if len(depths) > 1 else "")


def _shown(covered, others):
    parts = [
        ", ".join(f"{value:g}" for value in sorted(values, reverse=True))
        for values in (covered, others)
    ]
    if not all(parts) or parts[0] == parts[1]:
        return parts[0] or parts[1]
    return f"{parts[0]} ({parts[1]})"
