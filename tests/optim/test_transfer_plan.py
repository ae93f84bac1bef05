"""The plan of transfer: worked numbers of the specification, strengths, checks of the dials."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax import optim
from fixed_head_jax.optim import Rule, transfer
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.settings import paths

LAYERS = tuple((f"features.{index}",) for index in range(22))
# Specification of non-binary transfer, 12.1: w and where it started.
TOY = {
    "backbone/features.0/conv/kernel": ([1.0, 2.0], [0.5, 2.5]),
    "backbone/features.0/bn/scale": ([1.5], [1.0]),
    "backbone/features.3/conv/conv/kernel": ([1.0, -1.0], [0.0, -1.0]),
    "backbone/features.9/branch0/conv/kernel": ([2.0], [1.0]),
    "backbone/features.21/branch0/conv/kernel": ([3.0], [3.0]),
    "head/kernel": ([0.1, -0.2], [0.0, 0.0]),
    "head/bias": ([0.3], [0.0]),
}


def toy(column):
    tree = {}
    for path, values in TOY.items():
        *modules, leaf = path.split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[leaf] = jnp.asarray(values[column], jnp.float32)
    return tree


def penalty(plan, params, start):
    terms = zip(*map(jax.tree.leaves, (plan.alpha, plan.beta, params, start)), strict=True)
    return sum(
        alpha / 2 * jnp.sum((w - w0) ** 2) + beta / 2 * jnp.sum(w**2)
        for alpha, beta, w, w0 in terms
    )


def pull(plan, at=None):
    """Returns the gradient that the optimizer adds at the toy's w, or elsewhere, by path."""
    params, start = at or toy(0), toy(1)
    tx = optim.make_optimizer(
        params, lambda step: 1.0, Rule(momentum=0.0), weight_decay=plan.beta, l2_sp=plan.alpha
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(start), params)
    names, _ = paths.flatten(updates)
    return dict(zip(names, map(lambda u: -u, jax.tree.leaves(updates)), strict=True))


@pytest.mark.parametrize(
    ("dials", "total", "gradients"),
    [
        (
            Dials(new_layers=1, num_low_lr_layers=8, l2_sp=True, as_published=True),
            0.023285,
            [[0.02, -0.02], [0], [0.02, 0], [0.001], [0.0015], [5e-5, -1e-4], [1.5e-4]],
        ),
        (
            Dials(new_layers=1, num_low_lr_layers=22, l2_sp=True, as_published=True),
            0.032285,
            [[0.02, -0.02], [0], [0.02, 0], [0.02], [0.0015], [5e-5, -1e-4], [1.5e-4]],
        ),
        (
            Dials(
                new_layers=1, num_low_lr_layers=8, l2_sp=True, alpha_lower=0.1, alpha_upper=0.001,
                beta_head=0.01,
            ),
            0.0762,
            [[0.05, -0.05], [0], [0.1, 0], [0.001], [0], [0.001, -0.002], [0.003]],
        ),
    ],
    ids=["release", "release_all", "paper"],
)  # fmt: skip
def test_l2_sp_worked_numbers(dials, total, gradients):
    params, start = toy(0), toy(1)
    plan = transfer.make_plan(params, LAYERS, dials, lr=0.1, weight_decay=0.0)
    assert float(penalty(plan, params, start)) == pytest.approx(total, rel=1e-6)
    for (path, pulled), expected in zip(pull(plan).items(), sorted_like(gradients), strict=True):
        np.testing.assert_allclose(pulled, expected, rtol=1e-5, atol=1e-10, err_msg=path)


def sorted_like(gradients):
    """Orders values given in the order of TOY as the tree orders its leaves."""
    by_path = dict(zip(TOY, gradients, strict=True))
    return [by_path[name] for name in paths.flatten(toy(0))[0]]


def test_at_the_start_with_a_zero_head_nothing_pulls():
    start = toy(1)
    dials = Dials(new_layers=1, num_low_lr_layers=8, l2_sp=True)
    plan = transfer.make_plan(start, LAYERS, dials, lr=0.1, weight_decay=0.0)
    assert float(penalty(plan, start, start)) == 0
    assert all(not np.any(pulled) for pulled in pull(plan, at=start).values())


def test_optimizer_decay_and_l2_sp_together():
    """As published both act (specification, 4.3); by default decay is for what has no pull."""
    columns = {}
    for as_published in (True, False):
        dials = Dials(new_layers=1, num_low_lr_layers=8, l2_sp=True, as_published=as_published)
        plan = transfer.make_plan(toy(0), LAYERS, dials, lr=0.1, weight_decay=5e-4)
        names, _ = paths.flatten(plan.beta)
        pairs = zip(jax.tree.leaves(plan.alpha), jax.tree.leaves(plan.beta), strict=True)
        columns[as_published] = dict(zip(names, pairs, strict=True))
    scale, first, lower, upper, head = (
        "backbone/features.0/bn/scale", "backbone/features.0/conv/kernel",
        "backbone/features.3/conv/conv/kernel", "backbone/features.9/branch0/conv/kernel",
        "head/bias",
    )  # fmt: skip
    published = {
        first: (0.04, 5e-4), lower: (0.02, 5e-4), upper: (0, 1e-3), head: (0, 1e-3),
        scale: (0, 5e-4),
    }  # fmt: skip
    assert {key: columns[True][key] for key in published} == published
    ours = {first: (0.01, 0), lower: (0.01, 0), upper: (0.01, 0), head: (0, 5e-4), scale: (0, 5e-4)}
    assert {key: columns[False][key] for key in ours} == ours


def test_the_plan_that_is_carried_out_knows_frozen_parameters_and_those_without_decay():
    params = toy(0)
    plan = transfer.make_plan(params, LAYERS, Dials(l2_sp=True), lr=0.1, weight_decay=5e-4)
    is_trained = paths.match(params, "trained", ["features.0", "head"])
    multipliers = paths.multipliers(params, "lr_multipliers", [("bias$", 2.0), ("head", 3.0)])
    no_decay = paths.match(params, "no_decay", ["bias$", "features.0"])
    plan = transfer.restrict(plan, is_trained, no_decay, multipliers)
    names, _ = paths.flatten(params)
    columns = zip(*map(jax.tree.leaves, (plan.lr, plan.beta, plan.alpha)), strict=True)
    values = dict(zip(names, columns, strict=True))
    assert values["backbone/features.9/branch0/conv/kernel"] == (0, 0, 0)
    assert values["backbone/features.0/conv/kernel"] == (0.1, 0, 0.01)
    assert values["head/kernel"] == pytest.approx((0.3, 5e-4, 0))
    assert values["head/bias"] == (0.2, 0, 0)
    rates, logged = transfer.make_rates(plan, is_trained, lambda rate: lambda step: rate)
    assert {name: rate(0) for name, rate in logged.items()} == pytest.approx(
        {"lr_head": 0.3, "lr_upper": 0.1}  # the largest of a group
    )
    assert rates["head"]["bias"](0) == 0.2
    only_head = jax.tree.map(lambda _: False, params) | {"head": {"kernel": True, "bias": False}}
    _, logged = transfer.make_rates(plan, only_head, lambda rate: lambda step: rate)
    assert {name: rate(0) for name, rate in logged.items()} == pytest.approx({"lr": 0.3})


BAD = [
    ({"new_layers": 24}, "new_layers=24 must be 0 ... 23: the backbone has 22 layers, and"),
    ({"new_layers": -1}, "transfer.new_layers=-1 must be a whole number"),
    ({"num_low_lr_layers": 23}, r"num_low_lr_layers=23 must be 0 \.\.\. 22"),
    ({"lr_upper": 0.1, "lr_lower": 0.1}, "lr_lower=0.1 needs a group of lower layers"),
    ({"lr_upper": -0.1}, r"transfer.lr_upper=-0.1 must be a number in \[0, inf\)"),
    ({"lr_upper": math.nan}, r"transfer.lr_upper=nan must be a number in \[0, inf\)"),
    ({"num_low_lr_layers": 0, "lr_lower": 0.1}, "lr_lower=0.1 needs a group of lower layers"),
    ({"beta_new": 0.1, "new_layers": 1}, "beta_new=0.1 is of layers drawn anew .* at least 2"),
    (
        {"l2_sp": True, "as_published": True, "num_low_lr_layers": 1, "beta_head": 0.1},
        "beta_head=0.1, but transfer.as_published=True has the release's own constants",
    ),
    ({"alpha_lower": 0.1, "num_low_lr_layers": 3}, "alpha_lower=0.1 is of L2-SP; set transfer.l2"),
    ({"l2_sp": True, "alpha_lower": 0.1}, "alpha_lower=0.1 needs a group of lower layers"),
    ({"l2_sp": True, "as_published": True}, "anchors the lower layers alone"),
    ({"l2_sp": True, "as_published": True, "num_low_lr_layers": 0}, "anchors the lower layers"),
    (
        {"l2_sp": True, "as_published": True, "num_low_lr_layers": 1, "alpha_upper": 0.1},
        "as_published=True has the release's own constants; leave it None",
    ),
    ({"new_layers": 1, "lr_head": 0.0}, "transfer.lr_head=0 never trains"),
    ({"new_layers": 2, "lr_upper": 0.0}, "transfer.lr_upper=0 never trains"),
    ({"new_layers": 4, "num_low_lr_layers": 20, "lr_lower": 0.0}, "lr_lower=0 never trains"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), BAD)
def test_dials_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(ValueError, match=message) as error:
        transfer.check(Dials(**values), 22, "weights.pth", lr=0.1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "start", "message"),
    [
        ({"new_layers": 1}, "", "transfer.new_layers=1 needs weights to start from"),
        ({"l2_sp": True}, "", "l2_sp=True needs .* init_from=none trains from scratch"),
        ({"lr_upper": 0.0}, "", "transfer.lr_upper=0.0 needs weights to start from"),
        (
            {"l2_sp": True},
            "none",
            "l2_sp=True pulls to .* start, and init_from=none has none",
        ),
        (
            {"lr_upper": 0.0},
            "none",
            "lr_upper=0 keeps .* start, and init_from=none has none",
        ),
        (
            {"num_low_lr_layers": 2, "lr_lower": 0.0},
            "none",
            "lr_lower=0 keeps .* start, and init_from=none has none",
        ),
    ],
)
def test_dials_need_a_start(values, start, message):
    with pytest.raises(ValueError, match=message):
        transfer.check(Dials(**values), 22, start, lr=0.1)
    transfer.check(Dials(**values), 22, None, lr=0.1)  # where nothing is read


def test_dials_that_can_be_meant():
    for dials in (
        Dials(new_layers=3, num_low_lr_layers=20, lr_lower=0.0),
        Dials(new_layers=2, num_low_lr_layers=22, lr_upper=0.0),  # new, but of the lower group
        Dials(new_layers=2, lr_upper=0.0, as_published=True),
    ):
        transfer.check(dials, 22, "x.pth", lr=0.1)
    transfer.check(Dials(new_layers=1), 22, "none", lr=0.1)
    transfer.check(Dials(), 22, "", lr=0.0)
    for as_published in (False, True):
        dials = Dials(new_layers=2, as_published=as_published)
        with pytest.raises(ValueError, match="model.frozen_backbone=True never trains"):
            transfer.check(dials, 22, "x.pth", 0.1, frozen_backbone=True)
    with pytest.raises(ValueError, match="new_layers=2 .* transfer.lr_upper=0 never trains"):
        transfer.check(Dials(new_layers=2, lr_head=0.1), 22, "x.pth", lr=0.0)  # by optim.lr


def test_strengths_by_group():
    dials = Dials(
        new_layers=2, num_low_lr_layers=8, l2_sp=True, alpha_upper=1.0, alpha_lower=2.0,
        beta_head=3.0, beta_new=4.0, beta_upper=5.0, beta_lower=6.0,
    )  # fmt: skip
    params = {**toy(0), "pool": {"attention": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}}
    plan = transfer.make_plan(params, LAYERS, dials, lr=0.1, weight_decay=7.0)
    names, _ = paths.flatten(params)
    columns = zip(*map(jax.tree.leaves, (plan.group, plan.alpha, plan.beta)), strict=True)
    assert dict(zip(names, columns, strict=True)) == {
        "backbone/features.0/conv/kernel": ("lower", 2, 6),
        "backbone/features.0/bn/scale": ("lower", 0, 7),
        "backbone/features.3/conv/conv/kernel": ("lower", 2, 6),
        "backbone/features.9/branch0/conv/kernel": ("upper", 1, 5),
        "backbone/features.21/branch0/conv/kernel": ("new", 0, 4),
        "head/kernel": ("head", 0, 3),
        "head/bias": ("head", 0, 3),
        "pool/attention/kernel": ("head", 0, 3),
        "pool/attention/bias": ("head", 0, 3),
    }
