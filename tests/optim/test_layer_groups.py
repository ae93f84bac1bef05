"""Groups of parameters by layer: rates, new layers, anchors, what is frozen and left out."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from fixed_head_jax.model import get_model
from fixed_head_jax.optim import transfer
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.pretrained.torch_names import name_of
from fixed_head_jax.settings import paths


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
    dials = Dials(num_low_lr_layers=n, lr_head=0.03, lr_upper=0.01, lr_lower=0.001 if n else None)
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
