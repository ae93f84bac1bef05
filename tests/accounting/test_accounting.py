"""Accounting: a network counted by hand, the published tables, programs inside programs."""

import re
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax
from jax.extend.core import primitives

from fixed_head_jax import accounting
from fixed_head_jax.accounting import tables
from fixed_head_jax.accounting.__main__ import main
from fixed_head_jax.accounting.cost import _cost, _operations, trace_module
from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.heads import HEADS
from fixed_head_jax.heads.fixed import Identity
from fixed_head_jax.heads.linear import Linear
from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import Conv, max_pool
from fixed_head_jax.layers.pooling import Mean
from fixed_head_jax.model import Classifier, get_model

TOTALS = ("params", "fixed", "multiply_adds", "checkpoint_bytes")


@cache
def count(name, classes=1000, head="linear", size=224, head_options=(), **backbone_options):
    options = dict(head_options=dict(head_options), backbone_options=backbone_options)
    return accounting.count(get_model(classes, name, head, **options), size)


# Counted by hand.


class Stem(nn.Module):
    """A first convolution with its normalisation, one level down."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x = Conv(4, strides=2, use_bias=True, dtype=self.dtype)(x)  # 6x6x3 -> 3x3x4
        return nn.relu(BatchNorm(dtype=self.dtype)(x, train))


class Tiny(nn.Module):
    """One of everything that counts: convolutions of each kind, pooling, attention."""

    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images, train):
        stem = nn.remat(Stem, static_argnums=(2,)) if self.remat else Stem
        x = stem(self.dtype)(images, train)
        x = Conv(4, groups=4, dtype=self.dtype)(x)  # 3x3x4
        x = nn.relu6(Conv(6, kernel_size=1, groups=2, dtype=self.dtype)(x))  # 3x3x6
        x = max_pool(x)  # 2x2x6
        q = k = v = x.reshape(-1, 4, 2, 3)  # 4 tokens, 2 heads of 3
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
        return jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v).reshape(x.shape)


def tiny(**options):
    return Classifier(Tiny(**options), Mean(), Linear(num_classes=5))


STEM = 3 * 3 * 4 * 27
ATTENTION = 2 * 4 * 4 * 3 + 4 * 2 * 3 * 4
TINY = STEM + 3 * 3 * 4 * 9 + 3 * 3 * 6 * 2 + ATTENTION


@pytest.mark.parametrize("options", [{}, dict(dtype=jnp.bfloat16), dict(remat=True)])
def test_count_by_hand(options):
    stem = dict(params=27 * 4 + 4, fixed=0, multiply_adds=STEM, checkpoint_bytes=448)
    params = stem["params"] + 8 + 9 * 4 + 2 * 6
    backbone = dict(params=params, fixed=0, multiply_adds=TINY, checkpoint_bytes=4 * (params + 8))
    head = dict(params=6 * 5 + 5, fixed=0, multiply_adds=30, checkpoint_bytes=140)
    pool = dict.fromkeys(TOTALS, 0)
    parts = dict(first_convolution=stem, backbone=backbone, pool=pool, head=head)
    total = {key: backbone[key] + head[key] for key in TOTALS}
    assert accounting.count(tiny(**options), 6) == {**total, "parts": parts}


def test_thesis_operations_by_hand():
    expected = dict(convolution=TINY, batch_norm=2 * 36, relu=36 + 54, pool=54, fully_connected=35)
    expected["total"] = sum(expected.values())
    assert accounting.thesis_operations(tiny(), 6) == expected
    with_pool = accounting.thesis_operations(tiny(), 6, final_pool_is_module=True)
    assert with_pool["pool"] == 54 + 24 and with_pool["total"] == expected["total"] + 24


# Programs inside programs.


class Function(nn.Module):
    """A backbone without variables."""

    function: Callable

    def __call__(self, images, train):
        return self.function(images)


def multiply_adds(function, channels=3):
    model = Classifier(Function(function), Mean(), Identity(num_classes=2))
    cost = accounting.count(model, 4, channels)
    assert cost["params"] == 0
    return cost["multiply_adds"]


def product(x):
    return x @ jnp.ones((3, 3))


PRODUCT = 4 * 4 * 3 * 3


@jax.custom_vjp
def custom_product(x):
    return product(x)


custom_product.defvjp(lambda x: (product(x), None), lambda _, gradient: (gradient,))


@pytest.mark.parametrize(
    "function, expected",
    [
        (product, PRODUCT),
        (lambda x: product(product(x)), 2 * PRODUCT),
        (jax.jit(product), PRODUCT),
        (jax.checkpoint(jax.jit(product)), PRODUCT),
        (custom_product, PRODUCT),
        (lambda x: lax.scan(lambda x, _: (product(x), None), x, None, 7)[0], 7 * PRODUCT),
        (lambda x: lax.fori_loop(0, 7, lambda _, x: product(x), x), 7 * PRODUCT),
        (lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), 0),
        (lambda x: lax.cond(x.sum() < 9, lambda x: x + 1, lambda x: x, x), 0),
        (lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x)[:, None], 3 * 3 * 4 * 4),
    ],
)
def test_programs_inside(function, expected):
    assert multiply_adds(function) == expected


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="calls have another form before 0.11")
def test_programs_called_by_their_own_primitive():
    def call(x):
        return primitives.closed_call_p.bind(x, call_jaxpr=jax.make_jaxpr(product)(x))[0]

    assert multiply_adds(call) == PRODUCT


@pytest.mark.parametrize(
    "primitive, function",
    [
        ("while", lambda x: lax.while_loop(lambda x: x.sum() < 9, product, x)),
        ("while", lambda x: lax.while_loop(lambda x: product(x).sum() < 9, lambda x: x + 1, x)),
        ("cond", lambda x: lax.cond(x.sum() < 9, jax.jit(product), lambda x: x, x)),
    ],
)
def test_refuses_to_guess(primitive, function):
    with pytest.raises(ValueError, match=f"matmul inside '{primitive}'.*lax.scan"):
        multiply_adds(function)


def test_bare_convolution():
    def channels_first(x):
        x = jnp.moveaxis(x, -1, 1)
        kernel = jnp.ones((10, 2, 3, 1))  # 10 outputs from 2 of 4 channels each
        x = lax.conv_general_dilated(
            x, kernel, (2, 1), "VALID", (1, 1), feature_group_count=2
        )  # [1, 10, 1, 4]
        return jnp.moveaxis(x, 1, -1)

    assert multiply_adds(channels_first, channels=4) == 10 * 1 * 4 * 2 * 3


# Every backbone, every head.


def slow_unless(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


ONE_OF_EACH = (
    *("resnet18", "resnet20", "densenet_bc_100_12", "mobilenet_v2", "shufflenet_v2_x0_5"),
    *("inception_v4", "vit_tiny"),
)


@pytest.mark.parametrize("name", slow_unless(ONE_OF_EACH, BACKBONES))
def test_parts_add_up_to_the_model(name):
    images = jax.ShapeDtypeStruct((1, 80, 80, 3), jnp.float32)
    whole = trace_module(get_model(10, name, "orthogonal"), images, False)
    cost = count(name, 10, "orthogonal", 80)
    assert {key: cost[key] for key in TOTALS} == _cost(whole.variables, _operations(whole))
    first = cost["parts"]["first_convolution"]
    assert 0 < first["params"] < cost["params"] and 0 < first["multiply_adds"]


@pytest.mark.parametrize("head", HEADS)
def test_heads(head):
    part = count("resnet10", 100, head, 32)["parts"]["head"]
    stored = 512 * 100 if head in ("random", "orthogonal", "simplex_etf") else 0
    assert part["fixed"] == stored
    assert part["checkpoint_bytes"] == 4 * (stored + part["params"])
    if head in ("linear", "random", "orthogonal", "cosine", "arcface"):
        assert part["multiply_adds"] >= 512 * 100


@pytest.mark.parametrize(
    "name, classes, head, params",
    [
        ("resnet18", 1000, "orthogonal", 11_177_512),
        ("resnet18", 512, "hadamard", 11_177_025),
        ("resnet18", 512, "linear", 11_439_168),
        ("resnet18", 512, "identity", 11_176_512),
        ("resnet32", 100, "linear", 470_004),
        ("resnet32", 100, "orthogonal", 463_604),
        ("densenet_bc_100_12", 100, "linear", 800_032),
        ("mobilenet_v2", 100, "linear", 2_351_972),
        ("shufflenet_v2_x0_5", 196, "linear", 542_692),
    ],
)
def test_parameters(name, classes, head, params):
    assert count(name, classes, head, 80)["params"] == params


def test_repeated_hadamard_class_vectors():
    cost = count("resnet32", 100, "hadamard", 32, head_options=(("allow_repeated", True),))
    assert cost["params"] == 463_605 and cost["fixed"] == 0


def test_inception_v4_at_its_own_size():
    cost = count("inception_v4", size=299)
    assert cost["params"] == 42_679_816 and round(cost["multiply_adds"] / 1e9, 3) == 12.254


def test_stl_resnet18_at_its_own_size():
    assert round(count("stl_resnet18", 10, size=96)["multiply_adds"] / 1e9, 2) == 5.00


def test_vision_transformer_by_hand():
    tokens, width = 1 + 14**2, 384
    projections = tokens * width * (3 * width + width + 2 * 4 * width)
    attention = 2 * tokens**2 * width
    expected = 14**2 * 16**2 * 3 * width + 12 * (projections + attention) + width * 1000
    assert count("deit_small")["multiply_adds"] == expected


def test_nothing_is_run():
    convolutions = count("resnet18")["parts"]["backbone"]["multiply_adds"]
    huge = count("resnet18", size=224 * 1000)["parts"]["backbone"]  # terabytes of activations
    assert huge["multiply_adds"] == 1000**2 * convolutions


# Qian 2020: networks at 1000 classes and 224 pixels.

PARAMS = dict(
    resnet18=11_689_512, resnet50=25_557_032, mobilenet_v2=3_504_872, shufflenet_v2_x0_5=1_366_792
)
# Convolutions, batch norm, ReLU, pooling, fully connected, total; multiply-adds alone; the first
# convolution.
OPERATIONS = {
    "resnet50": (
        (4_087_136_256, 22_227_968, 9_608_704, 903_168, 2_049_000, 4_121_925_096),
        4_089_184_256,
        118_013_952,
    ),
    "resnet18": (
        (1_813_561_344, 4_967_424, 2_308_096, 827_904, 513_000, 1_822_177_768),
        1_814_073_344,
        118_013_952,
    ),
    "mobilenet_v2": (
        (299_494_272, 13_356_224, 6_105_792, 0, 1_281_000, 320_237_288),
        300_774_272,
        10_838_016,
    ),
    "shufflenet_v2_x0_5": (
        (39_452_448, 2_047_808, 821_632, 301_056, 1_025_000, 43_647_944),
        40_476_448,
        8_128_512,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_table_6_1(name):
    final_pool_is_module, (total, first, fully_connected, share) = tables.TABLE_6_1[name]
    operations, multiply_adds, first_convolution = OPERATIONS[name]
    cost = count(name)
    assert cost["params"] == PARAMS[name] and cost["multiply_adds"] == multiply_adds
    assert cost["parts"]["first_convolution"]["multiply_adds"] == first_convolution
    ours = accounting.thesis_operations(get_model(1000, name), 224, final_pool_is_module)
    assert tuple(ours.values()) == operations
    head = cost["parts"]["head"]["multiply_adds"]
    assert printed(ours["total"], total) and printed(first_convolution, first)
    assert f"{100 * head / ours['total']:.2f}" == share
    assert printed(head, fully_connected)


def printed(value, text):
    """Tells whether `text` ("4.12G") is the value to its own precision."""
    digits = len(text.partition(".")[2].rstrip("KMG"))
    return f"{value / {'K': 1e3, 'M': 1e6, 'G': 1e9}[text[-1]]:.{digits}f}" == text[:-1]


@pytest.mark.parametrize("name", tables.TABLE_5_5)
def test_table_5_5(name):
    surgery, published = tables.TABLE_5_5[name]
    for classes, text in published.items():
        assert f"{accounting.saving(name, classes, surgery):.2f}" == text


@pytest.mark.parametrize(
    "name, options, params, old_tail, new_tail",
    [
        ("resnet18", {}, 13_425_192, 49 * 9 * 512**2, 49 * 9 * 512_000),
        (
            "resnet18",
            dict(out_shortcut="projection"),
            13_938_192,
            49 * 9 * 512**2,
            49 * 10 * 512_000,
        ),
        ("resnet50", {}, 22_968_360, 49 * 512 * 2048, 49 * 512_000),
        ("mobilenet_v2", {}, 2_132_712, 49 * 320 * 1280, 49 * 320_000),
        ("shufflenet_v2_x0_5", {}, 336_136, 49 * 192 * 1024, 49 * 192_000),
    ],
)
def test_surgery(name, options, params, old_tail, new_tail):
    learned, identity = count(name), count(name, 1000, "identity", out_channels=1000, **options)
    assert identity["params"] == params and identity["parts"]["head"]["multiply_adds"] == 0
    backbone = learned["parts"]["backbone"]["multiply_adds"]
    assert identity["multiply_adds"] == backbone - old_tail + new_tail


# The command.


def test_command(monkeypatch, capsys):
    monkeypatch.setattr(tables, "BACKBONES", ["resnet20"])
    for table in ("TABLE_5_5", "TABLE_6_1"):
        monkeypatch.setattr(tables, table, {"resnet18": getattr(tables, table)["resnet18"]})
    main(["--table", "--classes", "100", "--image_size", "32"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = {tuple(row[:2]): row[2:] for row in rows}
    assert table["resnet20", "hadamard"] == ["-"] * 5  # 100 classes, 64 class vectors
    cost = count("resnet20", 100, "orthogonal", 32)
    numbers = [f"{cost[key]:,}" for key in ("fixed", "multiply_adds", "checkpoint_bytes")]
    assert table["resnet20", "orthogonal"] == ["269,172", "0.04", *numbers]
    assert table["resnet20", "surgery"][:3] == ["289,880", "0.00", "0"]  # 484,312 less 194,432
    assert table["resnet18", "102"] == ["16.8335", "16.83"]
    assert table["resnet18", "1,814,073,344"] == (
        "1,822,177,768 1.82G 118,013,952 118M 512,000 512K 0.0281 0.03".split()
    )


def test_table_marks_sizes_that_a_backbone_does_not_take(monkeypatch):
    monkeypatch.setattr(tables, "BACKBONES", ["vit_tiny", "resnet20"])
    lines = tables.cost_table(10, 40).splitlines()
    assert all(("vit_tiny" in line) == (line.count(" - ") == 5) for line in lines[2:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "accounting: the following arguments are required: --table"),
        (["--table", "--classes", "1"], "accounting: --classes must be at least 2 .*, got 1 and"),
        (["--table", "--image_size", "0"], "--image_size at least 1, got 1000 and 0"),
    ],
)
def test_command_refuses(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert re.search(message, capsys.readouterr().err)


def test_refuses_an_image_of_no_size():
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        accounting.count(tiny(), 0)
