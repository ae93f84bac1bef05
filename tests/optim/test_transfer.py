"""The dials of transfer: worked numbers of the specification, groups by name, checks, runs."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from fixed_head_jax import optim, pretrained
from fixed_head_jax.data.sampling import epoch_start
from fixed_head_jax.model import get_model
from fixed_head_jax.optim import Rule, transfer
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.optim.transforms import L2SPState
from fixed_head_jax.pretrained.torch_names import name_of
from fixed_head_jax.settings import paths
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.experiment.updates import make_training
from tests.loops import final_state, same_bits, stop_after

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


@pytest.fixture(scope="module")
def inception():
    model = get_model(100, backbone="inception_v4")
    images = jnp.zeros((1, 299, 299, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return model.backbone.layers, variables


def block_of(name):
    found = re.search(r"features\.(\d+)", name)
    return None if found is None else int(found.group(1))


def assigned(inception, dials, lr=0.03):
    layers, variables = inception
    plan = transfer.make_plan(variables["params"], layers, dials, lr, weight_decay=5e-4)
    names, _ = paths.flatten(variables["params"])
    sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
    columns = [jax.tree.leaves(tree) for tree in plan]
    keys = ("name", "size", *transfer.Plan._fields)
    return [dict(zip(keys, row, strict=True)) for row in zip(names, sizes, *columns, strict=True)]


@pytest.mark.parametrize("n", [None, *range(23)])
def test_rate_groups_of_inception_for_every_n(inception, n):
    dials = Dials(num_low_lr_layers=n, lr_head=0.03, lr_upper=0.01, lr_lower=n and 0.001)
    rows = assigned(inception, dials)
    assert len(rows) == 449
    for row in rows:
        block = block_of(row["name"])
        expected = "head" if block is None else "lower" if block < (n or 0) else "upper"
        assert row["group"] == expected, row["name"]
        assert row["lr"] == {"head": 0.03, "upper": 0.01, "lower": 0.001}[expected]


@pytest.mark.parametrize(
    ("n", "lower", "upper"),
    [
        (3, (9, 28_768), (438, 41_114_048)),
        (6, (33, 605_728), (414, 40_537_088)),
        (8, (75, 1_240_992), (372, 39_901_824)),
        (10, (117, 1_876_256), (330, 39_266_560)),
        (11, (129, 4_182_368), (318, 36_960_448)),
        (18, (339, 24_736_160), (108, 16_406_656)),
        (19, (357, 27_483_552), (90, 13_659_264)),
        (22, (447, 41_142_816), (0, 0)),
    ],
)
def test_sizes_of_the_rate_groups(inception, n, lower, upper):
    rows = assigned(inception, Dials(num_low_lr_layers=n))
    for group, expected in (("lower", lower), ("upper", upper), ("head", (2, 153_700))):
        sizes = [row["size"] for row in rows if row["group"] == group]
        assert (len(sizes), sum(sizes)) == expected


NEW_PARAMS = (
    0, 0, 4_553_088, 9_106_176, 13_659_264, 16_406_656, 19_342_912, 22_279_168, 25_215_424,
    28_151_680, 31_087_936, 34_024_192, 36_960_448,
)  # fmt: skip


@pytest.mark.parametrize("k", range(24))
def test_new_layers_of_inception_for_every_k(inception, k):
    """What is left out of the weights, parameters and statistics, and what the plan calls new."""
    layers, variables = inception
    dials = Dials(new_layers=k, num_low_lr_layers=8, lr_lower=0.001, l2_sp=True)
    patterns = transfer.skip_patterns(dials, variables["params"], layers)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    names = [name_of(tuple(key.key for key in path)) for path, _ in leaves]
    assert len(names) == 747
    for name in names:
        block = block_of(name)
        is_new = k > 0 if block is None else block >= 23 - k
        assert any(re.search(pattern, name) for pattern in patterns) == is_new, name
    rows = assigned(inception, dials)
    new = [row for row in rows if row["group"] == "new"]
    assert {block_of(row["name"]) for row in new} == set(range(max(23 - k, 0), 22))
    if k < len(NEW_PARAMS):
        assert sum(row["size"] for row in new) == NEW_PARAMS[k]
    for row in new:  # no group of their own for the rate, and no start to be pulled to
        assert row["lr"] == (0.001 if block_of(row["name"]) < 8 else 0.03)
        assert row["alpha"] == 0


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize(
    ("k", "n", "release", "ours"),
    [(1, 8, 8, 8), (1, 22, 21, 22), (4, 20, 18, 19), (12, 8, 8, 8), (12, 12, 10, 11),
     (1, 1, 1, 1), (23, 22, 0, 0), (0, 22, 22, 22)],
)  # fmt: skip
def test_anchored_blocks(inception, k, n, release, ours, as_published):
    alphas = {} if as_published else {"alpha_lower": 0.02, "alpha_upper": 0.0}
    dials = Dials(
        new_layers=k, num_low_lr_layers=n, l2_sp=True, as_published=as_published, **alphas
    )
    rows = assigned(inception, dials)
    anchored = [row for row in rows if row["alpha"]]
    blocks = range(release if as_published else ours)
    assert {block_of(row["name"]) for row in anchored} == set(blocks)
    assert all(row["name"].endswith("conv/kernel") for row in anchored)
    first = [row["alpha"] for row in anchored if block_of(row["name"]) == 0]
    if (k, n) == (1, 8):
        assert len(anchored) == 25
    if blocks:
        assert first == [0.04 if as_published else 0.02]
        assert {row["alpha"] for row in anchored[1:]} <= {0.02}


def test_the_first_kernel_of_the_release_is_that_at_the_image():
    layers = (("patch_embed",), ("blocks.0",), ("blocks.1",))
    params = {"backbone": {part: {"kernel": jnp.ones(2)} for (part,) in layers}}
    dials = Dials(new_layers=1, num_low_lr_layers=2, l2_sp=True, as_published=True)
    plan = transfer.make_plan(params, layers, dials, lr=0.1, weight_decay=0.0)
    alphas = {part: leaf["kernel"] for part, leaf in plan.alpha["backbone"].items()}
    assert alphas == {"patch_embed": 0.04, "blocks.0": 0.02, "blocks.1": 0.0}


def test_the_table_of_the_groups(inception):
    layers, variables = inception
    dials = Dials(
        new_layers=4, num_low_lr_layers=8, lr_upper=0.01, lr_lower=0.001, l2_sp=True,
        alpha_upper=0.0,
    )  # fmt: skip
    plan = transfer.make_plan(variables["params"], layers, dials, 0.03, 5e-4)
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in transfer.table(plan, variables["params"], layers).splitlines()
    ]
    assert rows[0][:4] == ["group", "layers", "parameters", "learning rate"]
    assert rows[2:] == [
        ["head", "head", "153,700", "0.03", "0.0005", "0"],
        ["new", "features.19 ... features.21 (3)", "13,659,264", "0.01", "0.0005", "0"],
        ["upper", "features.8 ... features.18 (11)", "26,242,560", "0.01", "0.0005", "0"],
        ["lower", "features.0 ... features.7 (8)", "1,240,992", "0.001", "0 (0.0005)", "0.01 (0)"],
    ]


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


def frozen_names(params, layers, dials, lr=0.1):
    patterns = transfer.frozen_patterns(dials, params, layers, lr)
    names, _ = paths.flatten(params)
    return {name for name in names if any(re.search(pattern, name) for pattern in patterns)}


@pytest.mark.parametrize("n", [1, 2, 10, 22])
def test_frozen_parameters_of_inception_by_name(inception, n):
    layers, variables = inception
    params = {**variables["params"], "pool": {"kernel": jnp.ones(2)}}
    names, _ = paths.flatten(params)
    lower = {name for name in names if (block := block_of(name)) is not None and block < n}
    upper = {name for name in names if (block := block_of(name)) is not None and block >= n}
    head = set(names) - lower - upper
    for rates, expected in (
        ({"lr_lower": 0.0}, lower),
        ({"lr_upper": 0.0}, upper),
        ({"lr_head": 0.0}, head),
        ({"lr_lower": 0.0, "lr_head": 0.0}, lower | head),
        ({"lr_lower": 0.1}, set()),
    ):
        dials = Dials(num_low_lr_layers=n, **rates)
        assert frozen_names(params, layers, dials) == expected
        assert frozen_names(params, layers, replace(dials, as_published=True)) == set()
    everything_else = Dials(num_low_lr_layers=n, lr_head=0.1)
    assert frozen_names(params, layers, everything_else, lr=0.0) == lower | upper
    assert frozen_names(params, layers, Dials(lr_upper=0.0)) == lower | upper
    assert frozen_names(params, layers, Dials(), lr=0.0) == set()  # as without any dial


def test_new_layers_of_densenet_are_left_out_by_their_torch_names():
    model = get_model(10, "densenet_bc_100_12", pool="attention")
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    patterns = transfer.skip_patterns(
        Dials(new_layers=3), variables["params"], model.backbone.layers
    )
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    names = [name_of(tuple(key.key for key in path)) for path, _ in leaves]
    left_out = {name for name in names if any(re.search(pattern, name) for pattern in patterns)}
    expected = re.compile(r"^(head|pool|features\.norm5|features\.denseblock3\.denselayer16)\.")
    assert left_out == {name for name in names if expected.search(name)}
    for part in ("head.", "pool.", "features.norm5.", "features.denseblock3.denselayer16."):
        assert any(name.startswith(part) for name in left_out)


# Whole runs, on a small network and the digits.


@pytest.fixture
def make_config(data_dir):
    def make(**overrides):
        config = digits.get_config("linear,smoke")
        config.data_dir, config.model.backbone = data_dir, "tiny"
        config.data.eval_split = "test[:30]"
        config.total_steps, config.log_every_steps, config.eval_every_epochs = 6, 1, 0.0
        config.update_from_flattened_dict(overrides)
        return config

    return make


@pytest.fixture(scope="module")
def source(data_dir, tmp_path_factory, tiny_backbone):
    """The workdir of a run on the first five digits."""
    config = digits.get_config("linear,smoke")
    config.data_dir, config.model.backbone, config.data.first_classes = data_dir, "tiny", 5
    folder = tmp_path_factory.mktemp("source")
    loop.train(experiment.build(config), folder)
    return str(folder)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_frozen_groups_keep_every_bit_through_warm_up(make_config, source, tmp_path, remat):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 3, "transfer.lr_lower": 0.0,
            "optim.schedule": "step", "optim.warmup_epochs": 4 * 8 / 1442,
            "optim.warmup_from": 1e-2, "optim.weight_decay": 0.1, "optim.clip_norm": 1.0,
            "model.backbone_options.remat": remat,
        },
    )  # fmt: skip
    run = experiment.build(config)
    before = jax.jit(run.create_state)(run.initial)
    result = loop.train(run, tmp_path)
    after = final_state(config, tmp_path)
    trees = (
        (before.params["backbone"], after.params["backbone"]),
        tuple(state.model_state["batch_stats"]["backbone"] for state in (before, after)),
    )
    for old, new in trees:
        for part in ("conv1", "bn1", "layer1.0", "layer2.0"):
            assert same_bits(old.get(part), new.get(part)), part
        assert not same_bits(old["layer3.0"], new["layer3.0"])
    upper = sum(leaf.size for leaf in jax.tree.leaves(after.params["backbone"]["layer3.0"]))
    assert result["params"] == upper + 64 * 10 + 10


def test_as_published_a_group_of_rate_0_trains_while_the_rate_warms_up(
    make_config, source, tmp_path
):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 3, "transfer.lr_lower": 0.0,
            "transfer.as_published": True, "optim.schedule": "step", "optim.lr": 0.1,
            "optim.warmup_epochs": 4 * 8 / 1442, "optim.warmup_from": 1e-2,
        },
    )  # fmt: skip
    run = experiment.build(config)
    before = jax.jit(run.create_state)(run.initial)
    loop.train(run, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    lower = [line["train/lr_lower"] for line in lines if "train/lr_lower" in line]
    np.testing.assert_allclose(lower, [0.0075, 0.005, 0.0025, 0, 0, 0], atol=1e-9)
    after = final_state(config, tmp_path)
    assert not same_bits(before.params["backbone"]["conv1"], after.params["backbone"]["conv1"])


def test_every_group_warms_up_from_its_share_of_the_rate(make_config, source):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 2, "transfer.lr_head": 0.4,
            "transfer.lr_lower": 0.02, "optim.lr": 0.2, "optim.warmup_from": 0.1,
            "optim.warmup_epochs": 4 * 8 / 1442, "optim.schedule": "constant",
        },
    )  # fmt: skip
    rates = training_of(config).rates
    for group, share in (("head", 2.0), ("upper", 1.0), ("lower", 0.1)):
        values = [float(rates[f"lr_{group}"](step)) for step in range(6)]
        expected = [0.125, 0.15, 0.175, 0.2, 0.2, 0.2]
        np.testing.assert_allclose(values, share * np.array(expected), rtol=1e-5)


def test_a_group_of_rate_0_by_the_optimizers_rate_stays_there(make_config, source):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.lr_head": 0.4, "optim.lr": 0.0,
            "optim.warmup_from": 0.1, "optim.warmup_epochs": 4 * 8 / 1442,
        },
    )  # fmt: skip
    training = training_of(config)
    assert not any(jax.tree.leaves(training.is_trained["backbone"]))
    assert all(jax.tree.leaves(training.is_trained["head"]))
    assert float(training.rates["lr"](0)) == pytest.approx(0.1 + 0.3 / 4)


def training_of(config):
    """Returns how a config trains the small network."""
    model = get_model(10, "tiny")
    images = jnp.zeros((1, 8, 8, 1))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    dials = Dials(**config.transfer)
    starts = partial(epoch_start, num_examples=1442, batch_size=config.batch_size)
    return make_training(config, dials, params, model.backbone.layers, 100, starts)


@pytest.mark.parametrize(
    "keys",
    [
        {"transfer.new_layers": 5},
        {"transfer.new_layers": 1, "transfer.alpha_upper": 0.0},
        {"transfer.new_layers": 1, "model.frozen_backbone": True},
    ],
)
def test_l2_sp_that_pulls_nothing_is_refused(make_config, source, keys):
    config = make_config(init_from=source, **{"transfer.l2_sp": True, **keys})
    with pytest.raises(ValueError, match="transfer.l2_sp=True, but no layer is pulled"):
        experiment.build(config)


def test_resuming_does_not_move_the_anchor(make_config, source, tmp_path):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 2, "transfer.num_low_lr_layers": 2, "transfer.lr_lower": 0.01,
            "transfer.l2_sp": True, "transfer.alpha_lower": 1.0, "transfer.alpha_upper": 0.5,
            "optim.weight_decay": 0.01,
        },
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.train(experiment.build(config), whole)
    for dispatches in (1, 3):
        with pytest.raises(loop.Stopped):
            run = experiment.build(config, read_weights=dispatches == 1)
            loop.train(run, parts, stop_after(dispatches))
    loop.train(experiment.build(config, read_weights=False), parts)
    ours, theirs = (final_state(config, folder) for folder in (parts, whole))
    assert same_bits(ours, theirs)
    start = experiment.build(config).initial["params"]["backbone"]

    def is_anchor(node):
        return isinstance(node, L2SPState)

    states = filter(is_anchor, jax.tree.leaves(ours.opt_state, is_leaf=is_anchor))
    kept = [np.asarray(leaf) for state in states for leaf in jax.tree.leaves(state.anchor)]
    expected = [start["conv1"]["kernel"]]
    expected += [start[layer][conv]["kernel"] for layer in ("layer1.0", "layer2.0")
                 for conv in ("conv1", "conv2")]  # fmt: skip
    assert len(kept) == len(expected)
    for kernel in expected:
        assert any(np.array_equal(kernel, anchor) for anchor in kept)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(6))
def test_new_layers_start_as_drawn_and_the_others_as_loaded(make_config, source, k):
    layers = ("conv1", "layer1.0", "layer2.0", "layer3.0")
    if not k:  # the head is loaded, and does not fit
        with pytest.raises(ValueError, match="head.weight .* instead of"):
            experiment.build(make_config(init_from=source))
        return
    run = experiment.build(make_config(init_from=source, **{"transfer.new_layers": k}, seed=5))
    started = jax.jit(run.create_state)(run.initial)
    model = get_model(10, "tiny")
    loaded = pretrained.from_torch(pretrained.load(source, model), model, (8, 8, 1), skip_head=True)
    drawn = jax.jit(run.create_state)()
    for depth, layer in enumerate(layers):
        is_new = depth >= 5 - k
        expected = drawn.params if is_new else loaded["params"]
        assert same_bits(started.params["backbone"][layer], expected["backbone"][layer])
        statistics = started.model_state["batch_stats"]["backbone"]
        name = "bn1" if layer == "conv1" else layer
        means = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(statistics[name])
            if path[-1].key == "mean"
        ]
        assert all(not np.any(mean) for mean in means) == is_new
    assert same_bits(started.params["head"], drawn.params["head"])


@pytest.mark.slow
def test_a_few_images_are_learned_by_heart(make_config, source, tmp_path):
    config = make_config(
        init_from=source, total_steps=60, batch_size=24, log_every_steps=60,
        **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 2, "transfer.lr_lower": 0.02,
            "transfer.l2_sp": True, "optim.lr": 0.05, "optim.nesterov": True,
            "data.train_split": "train[:24]", "data.eval_split": "train[:24]",
            "augment.pad_crop": 0,
        },
    )  # fmt: skip
    assert loop.train(experiment.build(config), tmp_path)["eval/accuracy"] == 100
