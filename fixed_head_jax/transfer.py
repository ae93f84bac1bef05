"""The dials of non-binary transfer: which layers start anew, and how every group of layers trains.

Layers are those of the backbone's `layers`, counted from the image, and on top of them the head
(with the pooling): Inception v4 has 22 and the head. The learning rate has three groups: `head`,
`lower` (the first `num_low_lr_layers` layers) and `upper` (the layers between). Decay has a
fourth one, `new`: the layers drawn anew, which have no start that L2-SP could pull them to.

Source: Plested, Shen & Gedeon 2021, https://arxiv.org/abs/2107.08585.
"""

import re
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from fixed_head_jax import paths
from fixed_head_jax.report import markdown

DEFAULT_ALPHA = 0.01
# The release's constants: of the first kernel, of other anchored ones, of all else without norms.
RELEASE_FIRST_ALPHA, RELEASE_ALPHA, RELEASE_BETA = 0.04, 0.02, 5e-4


class Dials(NamedTuple):
    """The keys of `config.transfer`; by default nothing is transferred in any special way.

    Attributes:
        new_layers: k, layers that are drawn anew, counted from the head down: 1 is the head, 2 the
            last layer of the backbone too; 0 is none, and loads the head.
        num_low_lr_layers: n, layers of the group `lower`; None is none, and has no such group.
        lr_head: base learning rate of a group, None for the optimizer's; 0 freezes it, with its
            batch statistics.
        lr_upper: same.
        lr_lower: same.
        l2_sp: pulls transferred kernels back to where they started. Norms and biases of the
            backbone are left to the optimizer's own weight decay.
        alpha_upper: strength of that; None is 0.01.
        alpha_lower: same.
        beta_head: strength of the pull of kernels to zero (of the head: of its biases too); None is
            the optimizer's weight decay, or 0 where there is a pull to the start.
        beta_new: same.
        beta_upper: same.
        beta_lower: same.
        as_published: does as the release does. Its L2-SP has its own constants (0.04 on the first
            kernel, 0.02 on others), reaches the layers below both n and L - k for a backbone of L
            layers, and decays all other kernels and the head by 0.0005; the optimizer's weight
            decay acts on everything in addition. Its warm-up starts all groups at the same rate,
            so that a group with rate 0 trains until it is over.

    Source: arXiv 2107.08585, its flags new-layers, num-lowlrs, lr, L2SP and L2SP_rates.
    """

    new_layers: int = 0
    num_low_lr_layers: int | None = None
    lr_head: float | None = None
    lr_upper: float | None = None
    lr_lower: float | None = None
    l2_sp: bool = False
    alpha_upper: float | None = None
    alpha_lower: float | None = None
    beta_head: float | None = None
    beta_new: float | None = None
    beta_upper: float | None = None
    beta_lower: float | None = None
    as_published: bool = False


class Plan(NamedTuple):
    """What the dials make of the parameters: trees with one value per parameter.

    Attributes:
        group: "head", "new", "upper" or "lower".
        lr: base learning rate.
        beta: strength of the decay towards zero.
        alpha: strength of the decay towards the start.
    """

    group: PyTree
    lr: PyTree
    beta: PyTree
    alpha: PyTree


def is_used(dials: Dials) -> bool:
    """Returns whether any dial is turned."""
    return dials != Dials()


def check(dials: Dials, num_layers: int, start: str, frozen_backbone: bool = False) -> None:
    """Raises ValueError on dials that cannot be meant.

    Args:
        dials: the dials.
        num_layers: layers of the backbone.
        start: the config's `init_from`.
        frozen_backbone: whether nothing of the backbone trains.
    """
    k, n = dials.new_layers, dials.num_low_lr_layers
    for key, count, most in (
        ("new_layers", k, num_layers + 1),
        ("num_low_lr_layers", n, num_layers),
    ):
        if count is not None and not 0 <= count <= most:
            raise ValueError(
                f"transfer.{key}={count} must be 0 ... {most}: the backbone has {num_layers} layers"
                + (", and the head is one more" if most > num_layers else "")
            )
    for key, value in dials._asdict().items():
        if key.startswith(("lr_", "alpha_", "beta_")) and value is not None and value < 0:
            raise ValueError(f"transfer.{key}={value} is negative; use 0, or None for the default")
        if key.endswith("_lower") and value is not None and n is None:
            raise ValueError(
                f"transfer.{key}={value} needs a group of lower layers; set "
                "transfer.num_low_lr_layers"
            )
        if key.startswith("alpha_") and value is not None and not dials.l2_sp:
            raise ValueError(f"transfer.{key}={value} is of L2-SP; set transfer.l2_sp=True")
        if key.startswith(("alpha_", "beta_")) and value is not None and _has_own_constants(dials):
            raise ValueError(
                f"transfer.{key}={value}, but as_published=True has the release's own constants; "
                "leave it None"
            )
    if _has_own_constants(dials) and not n:
        raise ValueError(
            f"transfer.as_published=True anchors the lower layers alone, and num_low_lr_layers={n} "
            "are none; the release needs at least 1"
        )
    upper_is_frozen = frozen_backbone or (dials.lr_upper == 0 and not dials.as_published)
    if k > 1 and upper_is_frozen:
        raise ValueError(
            f"transfer.new_layers={k} draws layers of the backbone anew that model.frozen_backbone "
            "or transfer.lr_upper=0 never train; set new_layers=1"
        )
    _check_start(dials, start)


def _check_start(dials, start):
    wants = {"new_layers": dials.new_layers, "l2_sp": dials.l2_sp}
    for key, value in wants.items():
        if value and not start:
            raise ValueError(
                f"transfer.{key}={value} needs weights to start from, and init_from is empty: name "
                "a file or a workdir (README lists public files); init_from=none trains from "
                "scratch" + (", without l2_sp" if dials.l2_sp else "")
            )
    if dials.l2_sp and start == "none":
        raise ValueError(
            "transfer.l2_sp=True pulls to the weights of the start, and init_from='none' has none; "
            "set transfer.l2_sp=False, or init_from to a file"
        )


def _has_own_constants(dials):
    return dials.l2_sp and dials.as_published


def new_parts(dials: Dials, layers: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Returns the paths of the backbone's parts that start anew: the top k - 1 layers."""
    first = len(layers) - max(dials.new_layers - 1, 0)
    return tuple(part for layer in layers[first:] for part in layer)


def frozen_parts(dials: Dials, layers: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Returns the paths of the backbone's parts whose learning rate is 0."""
    if dials.as_published:  # they train while the rate warms up
        return ()
    lower = dials.num_low_lr_layers or 0
    frozen = layers[:lower] if dials.lr_lower == 0 else ()
    frozen += layers[lower:] if dials.lr_upper == 0 else ()
    return tuple(part for layer in frozen for part in layer)


def frozen_patterns(
    dials: Dials, params: PyTree, layers: tuple[tuple[str, ...], ...]
) -> tuple[str, ...]:
    """Returns patterns of the paths of parameters whose learning rate is 0."""
    parts = frozen_parts(dials, layers)
    patterns = [rf"^backbone/{re.escape(part)}(/|$)" for part in parts]
    if dials.lr_head == 0 and not dials.as_published:
        patterns += [f"^{part}/" for part in ("head", "pool") if params.get(part)]
    return tuple(patterns)


def make_plan(
    params: PyTree,
    layers: tuple[tuple[str, ...], ...],
    dials: Dials,
    lr: float,
    weight_decay: float,
) -> Plan:
    """Assigns every parameter its group and what goes with it.

    Args:
        params: {"backbone", "pool"?, "head"?}, or their shapes.
        layers: of the backbone, from the image up, each the paths of its parts.
        dials: checked.
        lr: the optimizer's base learning rate.
        weight_decay: the optimizer's.
    """
    names, treedef = paths.flatten(params)
    depths = [_depth(name, layers) for name in names]
    values = [
        _values(name, depth, len(layers), dials, lr, weight_decay)
        for name, depth in zip(names, depths, strict=True)
    ]
    group, rates, betas, alphas = (list(column) for column in zip(*values, strict=True))
    if _has_own_constants(dials):
        anchored = [index for index, alpha in enumerate(alphas) if alpha]
        if anchored:
            alphas[min(anchored, key=depths.__getitem__)] = RELEASE_FIRST_ALPHA
    return Plan(*map(treedef.unflatten, (group, rates, betas, alphas)))


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


def _values(name, depth, num_layers, dials, lr, weight_decay):
    """Returns group, learning rate, beta and alpha of one parameter."""
    n = dials.num_low_lr_layers or 0
    rate_group = "head" if depth is None else "lower" if depth < n else "upper"
    is_new = depth is not None and depth > num_layers - dials.new_layers
    group = "new" if is_new else rate_group
    rate = getattr(dials, f"lr_{rate_group}")
    rate = lr if rate is None else rate
    if depth is not None and not name.endswith("kernel"):
        return group, rate, weight_decay, 0.0
    if _has_own_constants(dials):
        last = num_layers - max(dials.new_layers, 1)  # one lower than what is new
        anchored = depth is not None and depth < min(n, last)
        beta = weight_decay + (0.0 if anchored else RELEASE_BETA)
        return group, rate, beta, RELEASE_ALPHA if anchored else 0.0
    alpha = 0.0
    if dials.l2_sp and group in ("upper", "lower"):
        alpha = getattr(dials, f"alpha_{group}")
        alpha = DEFAULT_ALPHA if alpha is None else alpha
    beta = getattr(dials, f"beta_{group}")
    if beta is None:
        beta = 0.0 if alpha else weight_decay
    return group, rate, beta, alpha


def table(plan: Plan, params: PyTree, layers: tuple[tuple[str, ...], ...]) -> str:
    """Formats a plan as a Markdown table, from the head down.

    One row per group and base learning rate: its layers, parameters, rate, and the strengths of
    the decay to zero and to the start (of norms and biases in brackets, if they differ).
    """
    names, _ = paths.flatten(params)
    leaves = [
        jax.tree.leaves(tree) for tree in (plan.group, plan.lr, params, plan.beta, plan.alpha)
    ]
    rows: dict[Any, list] = {}
    for name, group, rate, leaf, beta, alpha in zip(names, *leaves, strict=True):
        rows.setdefault((group, rate), []).append((name, leaf.size, beta, alpha))
    order = ("head", "new", "upper", "lower")
    cells = [["group", "layers", "parameters", "learning rate", "decay to 0", "decay to the start"]]
    for group, rate in sorted(rows, key=lambda key: (order.index(key[0]), -key[1])):
        members = rows[group, rate]
        counted = [member for member in members if group == "head" or _is_kernel(member[0])]
        others = [member for member in members if member not in counted]
        cells.append(
            [
                group,
                _range(sorted({_depth(name, layers) for name, *_ in members} - {None}), layers),
                f"{sum(size for _, size, *_ in members):,}",
                f"{rate:g}",
                _strengths([beta for *_, beta, _ in counted], [beta for *_, beta, _ in others]),
                _strengths([alpha for *_, alpha in counted], [alpha for *_, alpha in others]),
            ]
        )
    return markdown(cells)


def _is_kernel(name):
    return name.endswith("kernel")


def _range(depths, layers):
    """Names the layers: the first part of the first one to that of the last, and how many."""
    if not depths:
        return "head"
    first, last = layers[depths[0]][0], layers[depths[-1]][0]
    return first if len(depths) == 1 else f"{first} ... {last} ({len(depths)})"


def _strengths(kernels, others):
    kernels, others = (sorted(set(values), reverse=True) for values in (kernels, others))
    text = ", ".join(f"{value:g}" for value in kernels)
    return text if others in ([], kernels) else f"{text} ({others[0]:g})"


def skip_patterns(dials: Dials, params: PyTree, layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Returns patterns of the names, in a torch state dict, of what starts anew."""
    if not dials.new_layers:
        return []
    tops = ["^head", *(["^pool\\."] if "pool" in params else [])]
    parts = [part.replace("/", ".") for part in new_parts(dials, layers)]
    return tops + [rf"^{re.escape(part)}(\.|$)" for part in parts]
