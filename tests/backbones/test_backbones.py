"""Backbones: exact parameter counts, map sizes, initial distributions, surgery."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fixed_head_jax.backbones import BACKBONES, get_backbone
from fixed_head_jax.backbones.cifar_resnet import FRAMES, CifarResNet, FixedProjection
from fixed_head_jax.backbones.densenet import DenseNet
from fixed_head_jax.backbones.inception_v4 import InceptionV4
from fixed_head_jax.backbones.mobilenet_v2 import MobileNetV2, round_channels
from fixed_head_jax.backbones.resnet import BasicBlock, Bottleneck, ResNet
from fixed_head_jax.backbones.shufflenet_v2 import ShuffleNetV2
from fixed_head_jax.backbones.vit import ViT

RNG = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
# Parameters of the features, sections 3.1-3.3.
COUNTS = {
    "resnet10": 4_905_792,
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "stl_resnet18": 11_168_832,
    "resnet20": 269_072,
    "resnet32": 463_504,
    "resnet44": 657_936,
    "resnet56": 852_368,
    "densenet_bc_100_12": 765_732,
    "mobilenet_v2": 2_223_872,
    "shufflenet_v2_x0_5": 341_792,
    "shufflenet_v2_x1_0": 1_253_604,
    "inception_v4": 41_142_816,
    "vit_tiny": 5_524_416,
    "vit_small": 21_665_664,
    "vit_base": 85_798_656,
    "deit_tiny": 5_524_416,
    "deit_small": 21_665_664,
}
# Least networks of every kind, for what has to be computed.
SMALL = {
    "basic": ResNet(BasicBlock, (1, 1)),
    "bottleneck": ResNet(Bottleneck, (1, 1)),
    "stl": ResNet(BasicBlock, (1, 1), "stl"),
    "cifar": CifarResNet(1),
    "densenet": DenseNet(16, 4),
    "mobilenet_v2": MobileNetV2(0.1),
    "shufflenet_v2": ShuffleNetV2((8, 16, 32)),
    "inception_v4": InceptionV4(),
    "vit": ViT(16, 2, 2, patch_size=8, image_size=32),
}
COUNT_OF_FEATURES = {
    "resnet50": 2048,
    **dict.fromkeys(("resnet10", "resnet18", "resnet34", "stl_resnet18"), 512),
    **dict.fromkeys(("resnet20", "resnet32", "resnet44", "resnet56"), 64),
    "densenet_bc_100_12": 342,
    "mobilenet_v2": 1280,
    **dict.fromkeys(("shufflenet_v2_x0_5", "shufflenet_v2_x1_0"), 1024),
    "inception_v4": 1536,
    **dict.fromkeys(("vit_tiny", "deit_tiny"), 192),
    **dict.fromkeys(("vit_small", "deit_small"), 384),
    "vit_base": 768,
}


def map_side(name, size):
    """Returns the side of the feature map of square images."""
    if name in ("inception_v4", "vit_tiny", "vit_small", "vit_base", "deit_tiny", "deit_small"):
        return 2 if (name, size) == ("inception_v4", 128) else 1
    cifar = ("resnet20", "resnet32", "resnet44", "resnet56", "densenet_bc_100_12")
    return size // (4 if name in cifar else 8 if name == "stl_resnet18" else 32)


@cache
def shapes(name, size=32, channels=3, **options):
    """Returns the shapes of the output and of the variables, without computing anything."""
    backbone = get_backbone(name, **options)
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    return jax.eval_shape(lambda x: backbone.init_with_output(RNG, x, False), images)


def count(name, **options):
    _, variables = shapes(name, **options)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", BACKBONES)
def test_contract(name):
    for size in (96, 128):
        feature_map, variables = shapes(name, size)
        assert feature_map.shape[1:3] == (map_side(name, size),) * 2
        assert feature_map.shape[0] == 2 and feature_map.shape[-1] == COUNT_OF_FEATURES[name]
        assert feature_map.shape[-1] == get_backbone(name).num_features
        assert feature_map.dtype == jnp.float32
    assert set(variables) - {"batch_stats"} == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == COUNTS[name]
    halves, variables = shapes(name, 96, dtype=jnp.bfloat16)
    assert halves.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("out_channels", [None, 10])
def test_layers_hold_every_parameter_once(name, out_channels):
    backbone = get_backbone(name)
    options = {} if out_channels is None else {"out_channels": out_channels}
    if not hasattr(backbone, "out_channels") and options:
        with pytest.raises(ValueError, match="no option 'out_channels'"):
            get_backbone(name, **options)
        return
    backbone = get_backbone(name, **options)
    paths = traverse_util.flatten_dict(shapes(name, 96, **options)[1]["params"], sep="/")
    parts = [part for layer in backbone.layers for part in layer]
    for path in paths:
        assert sum(path == part or path.startswith(part + "/") for part in parts) == 1, path
    for part in parts:
        assert any(path == part or path.startswith(part + "/") for path in paths), part


@pytest.mark.parametrize(
    "backbone, size",
    [
        pytest.param(backbone, 75 if name == "inception_v4" else 32, id=name, marks=marks)
        for name, backbone in SMALL.items()
        for marks in [() if name == "cifar" else pytest.mark.slow]
    ],
)
def test_computed_contract(backbone, size):
    """Remat, jit and the rest of the batch change nothing; gradients reach every parameter."""
    images = jax.random.normal(jax.random.key(1), (4, size, size, 3))
    # Its maps end in one pixel: statistics of four values, layer after layer, make 0.3 of 1e-7.
    train = not isinstance(backbone, InceptionV4)
    variables = jax.jit(lambda: backbone.init(RNG, images, False))()
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_of(backbone):
        def loss(params):
            y, updated = backbone.apply(
                {"params": params, **rest}, images, train, mutable=["batch_stats"]
            )
            weights = jax.random.normal(jax.random.key(2), y.shape)
            return jnp.sum(y * weights), updated

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    plain = loss_of(backbone)(params)
    again = loss_of(backbone.clone(remat=True))(params)
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    # A bias that batch norm removes has a gradient of rounding errors: the largest is the scale.
    for ours, theirs in zip(plain, again, strict=True):
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(ours))
        close = partial(np.testing.assert_allclose, rtol=1e-5, atol=5e-6 * largest)
        jax.tree.map(close, ours, theirs)
    for path, gradient in traverse_util.flatten_dict(plain[1], sep="/").items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path

    def evaluate(images):
        return backbone.apply(variables, images, False)

    whole = jax.jit(evaluate)(images)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(evaluate(images), whole, atol=1e-5 * scale)
    changed = images.at[1:].set(0.0)
    np.testing.assert_array_equal(jax.jit(evaluate)(changed)[0], whole[0])


def test_mobilenet_width_rounds_channels_to_eights():
    assert [round_channels(c) for c in (3.2, 16 * 0.75, 24 * 0.35, 32 * 0.5)] == [8, 16, 8, 16]
    # Features and classifier of the public model at widths 0.5 and 1.4.
    assert count("mobilenet_v2", width=0.5) == 687_680
    assert get_backbone("mobilenet_v2", width=1.4).num_features == 1792


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(shortcut="projection"), 466_906 - 650),
        (dict(out_channels=100), 484_312),
        (dict(out_channels=100, out_shortcut="projection"), 490_912),
    ],
)
def test_resnet32_counts(options, expected):
    assert count("resnet32", **options) == expected


@pytest.mark.parametrize(
    "name, classes, shortcut, expected",
    [
        ("resnet18", 196, "projection", 9_820_104),
        ("resnet18", 102, "projection", 9_338_636),
        ("resnet18", 100, "pad", 9_277_092),
        ("resnet18", 100, "projection", 9_328_392),
        ("resnet18", 512, "pad", 11_176_000),
        ("resnet18", 512, "projection", 11_438_656),
        ("resnet18", 1000, "pad", 13_425_192),
        ("resnet18", 1000, "none", 13_425_192),
        ("resnet18", 1000, "projection", 13_938_192),
        ("resnet50", 196, "pad", 22_555_908),
        ("resnet50", 102, "pad", 22_507_686),
        ("resnet50", 100, "pad", 22_506_660),
        ("resnet50", 512, "pad", 22_718_016),
        ("resnet50", 1000, "pad", 22_968_360),
        ("mobilenet_v2", 196, None, 1_874_628),
        ("mobilenet_v2", 102, None, 1_844_454),
        ("mobilenet_v2", 1000, None, 2_132_712),
        ("shufflenet_v2_x0_5", 196, None, 180_964),
        ("shufflenet_v2_x0_5", 102, None, 162_822),
        ("shufflenet_v2_x0_5", 1000, None, 336_136),
    ],
)
def test_surgery_counts(name, classes, shortcut, expected):
    options = {"out_channels": classes} | ({"out_shortcut": shortcut} if shortcut else {})
    assert count(name, **options) == expected
    feature_map, _ = shapes(name, **options)
    assert feature_map.shape[-1] == classes


@pytest.mark.parametrize(
    "name, size, expected",
    [
        ("resnet18", 224, 7),
        ("resnet18", 320, 10),
        ("resnet10", 500, 16),
        ("resnet50", 256, 8),
        ("stl_resnet18", 96, 12),
        ("resnet32", 32, 8),
        ("mobilenet_v2", 500, 16),
        ("shufflenet_v2_x0_5", 320, 10),
        ("inception_v4", 299, 8),
        ("inception_v4", 75, 1),
        ("densenet_bc_100_12", 32, 8),
        ("vit_tiny", 96, 1),
    ],
)
def test_feature_map_sizes(name, size, expected):
    assert shapes(name, size=size)[0].shape[1:3] == (expected, expected)


@pytest.mark.parametrize(
    "shortcut, features, stored",
    [
        ("pad", 484_312, 0),
        ("projection", 490_912, 0),
        ("hadamard", 484_513, 0),
        ("orthoplex", 484_512, 0),
        ("orthoplex_shuffled", 484_512, 0),
        ("cube", 484_512, 0),
        ("cube_random", 484_512, 6_400),
    ],
)
def test_thesis_shortcuts_of_100_channels(shortcut, features, stored):
    """Options A to G: section 2.1's counts; of the fixed weights only drawn ones are stored."""
    _, variables = shapes("resnet32", out_channels=100, out_shortcut=shortcut)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == features
    assert sum(leaf.size for leaf in jax.tree.leaves(variables.get("fixed", {}))) == stored


@pytest.mark.parametrize("frame", FRAMES)
def test_fixed_projections(frame):
    x = jax.random.normal(RNG, (2, 3, 3, 8))
    projection = FixedProjection(12, frame)
    y, variables = projection.init_with_output(RNG, x)
    if frame == "cube_random":
        kernel = variables["fixed"]["kernel"]
        assert len(np.unique(kernel, axis=1).T) == 12
        np.testing.assert_allclose(np.abs(kernel), 8**-0.5, rtol=1e-6)
    else:
        kernel = FRAMES[frame](None, 8, 12) * (-(12**-0.5) if frame == "hadamard" else 1)
    np.testing.assert_allclose(y, x @ kernel, atol=2e-6)
    expected = {"hadamard": {"params"}, "cube_random": {"fixed"}}.get(frame, set())
    assert set(variables) == expected


def test_images_of_one_channel():
    assert count("resnet20", channels=1) == COUNTS["resnet20"] - 2 * 9 * 16


# Initial values.


def kernels(backbone):
    params = backbone.init(RNG, IMAGES[:, :8, :8], False)["params"]
    flat = traverse_util.flatten_dict(params, sep="/")
    return {key: np.asarray(value) for key, value in flat.items() if value.ndim == 4}, flat


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone, fan",
    [(ResNet(BasicBlock, (1,)), 3), (CifarResNet(1), 2)],
)
def test_convolutions_start_he_normal(backbone, fan):
    """By fan-out in the ImageNet networks, by fan-in in the CIFAR ones."""
    for key, kernel in kernels(backbone)[0].items():
        expected = np.sqrt(2 / (kernel.shape[0] ** 2 * kernel.shape[fan]))
        assert kernel.std() == pytest.approx(expected, rel=4 / kernel.size**0.5), key
        assert np.abs(kernel).max() > 2.4 * expected, key  # normal, not truncated


@pytest.mark.slow
def test_stl_convolutions_start_uniform():
    kernel_init = get_backbone("stl_resnet18").kernel_init
    for key, kernel in kernels(ResNet(BasicBlock, (1,), "stl", kernel_init))[0].items():
        bound = np.prod(kernel.shape[:3]) ** -0.5
        assert 0.98 * bound < np.abs(kernel).max() <= bound, key
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.05), key


def test_surgery_starts_uniform():
    backbone = ResNet(BasicBlock, (1, 1), out_channels=100, out_shortcut="projection")
    _, params = kernels(backbone)
    for layer, fan_in in (("conv2", 9 * 128), ("downsample.0", 64)):
        for part in ("kernel", "bias"):
            largest = np.abs(params[f"layer2.0/{layer}/{part}"]).max()
            assert 0.9 * fan_in**-0.5 < largest <= fan_in**-0.5, (layer, part)


# Surgery and dtype.


@pytest.mark.parametrize(
    "backbone, signed",
    [
        (ResNet(BasicBlock, (1, 1), out_channels=100), False),
        (CifarResNet(1, out_channels=100), True),
    ],
)
def test_only_the_imagenet_surgery_keeps_the_closing_relu(backbone, signed):
    feature_map, _ = backbone.init_with_output(RNG, IMAGES[:, :8, :8], False)
    assert (feature_map.min() < 0) == signed and feature_map.max() > 0


@pytest.mark.parametrize("shortcut", ["pad", "projection", "none"])
def test_surgery_of_a_last_block_with_stride(shortcut):
    feature_map, _ = shapes("resnet10", size=64, out_channels=7, out_shortcut=shortcut)
    assert feature_map.shape == (2, 2, 2, 7)


def test_errors():
    with pytest.raises(ValueError, match="unknown backbone 'resnet19' .did you mean 'resnet1"):
        get_backbone("resnet19")
    with pytest.raises(ValueError, match="no option 'out_chanels' .did you mean 'out_channels'"):
        get_backbone("resnet18", out_chanels=10)
    with pytest.raises(ValueError, match="unknown out_shortcut 'zero'; known: pad, projection"):
        get_backbone("resnet18", out_shortcut="zero")
    with pytest.raises(ValueError, match="unknown shortcut 'none'; known: pad, projection"):
        get_backbone("resnet32", shortcut="none")
    with pytest.raises(ValueError, match="out_shortcut='cube' needs out_channels"):
        get_backbone("resnet32", out_shortcut="cube")
    for name in ("resnet18", "resnet32"):
        with pytest.raises(ValueError, match="out_channels must be at least 1, got 0"):
            get_backbone(name, out_channels=0)
