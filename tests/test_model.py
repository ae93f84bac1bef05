"""The model as a whole: trainable counts, capacity errors, outputs, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fixed_head_jax.backbones.cifar_resnet import CifarResNet
from fixed_head_jax.heads import HEADS, get_head
from fixed_head_jax.layers.pooling import get_pool
from fixed_head_jax.model import Classifier, get_model

RNG = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


def trainable(size=32, **options):
    """Counts the parameters without computing anything."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: get_model(**options).init(RNG, x, False), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    "num_classes, backbone, head, expected",
    [
        (1000, "resnet18", "linear", 11_689_512),
        (512, "resnet18", "linear", 11_439_168),
        (10, "resnet10", "linear", 4_910_922),
        (1000, "resnet50", "linear", 25_557_032),
        (10, "resnet32", "linear", 464_154),
        (64, "resnet32", "linear", 467_664),
        (100, "resnet32", "linear", 470_004),
        (1000, "resnet18", "orthogonal", 11_177_512),
        (512, "resnet18", "hadamard", 11_177_025),
        (512, "resnet18", "identity", 11_176_512),
        (1000, "resnet18", "random", 11_176_512),
        (100, "resnet32", "orthogonal", 463_604),
    ],
)
def test_trainable_counts(num_classes, backbone, head, expected):
    assert trainable(num_classes=num_classes, backbone=backbone, head=head) == expected


def test_trainable_counts_with_options():
    hadamard = dict(backbone="resnet32", head="hadamard", head_options={"allow_repeated": True})
    assert trainable(num_classes=100, **hadamard) == 463_605
    projection = {"shortcut": "projection"}
    for num_classes, expected in ((10, 466_906), (100, 472_756)):
        options = dict(num_classes=num_classes, backbone="resnet32")
        assert trainable(**options, backbone_options=projection) == expected
    assert trainable(num_classes=10, backbone="resnet56", backbone_options=projection) == 855_770


def test_stl_flattens_to_4608_features():
    options = dict(backbone="stl_resnet18", pool="flatten", pool_options={"window": 4})
    assert trainable(96, num_classes=10, **options) == 11_214_922
    images = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    model = get_model(num_classes=10, head="random", **options)
    out, variables = jax.eval_shape(lambda x: model.init_with_output(RNG, x, False), images)
    assert out["feature_map"].shape == (1, 12, 12, 512) and out["features"].shape == (1, 4608)
    assert variables["fixed"]["head"]["kernel"].shape == (4608, 10)


@pytest.mark.parametrize("head", HEADS)
def test_contract(head):
    model = get_model(num_classes=10, backbone="resnet20", head=head)
    out, variables = jax.eval_shape(lambda x: model.init_with_output(RNG, x, False), IMAGES)
    assert set(out) == {"feature_map", "features", "logits"}
    assert out["feature_map"].shape == (2, 4, 4, 64) and out["features"].shape == (2, 64)
    assert out["logits"].shape == (2, 10) and out["logits"].dtype == jnp.float32
    assert set(variables) - {"fixed"} == {"params", "batch_stats"}
    assert ("fixed" in variables) == (head in ("random", "orthogonal", "simplex_etf"))


def test_bfloat16_gives_float32_outputs():
    options = dict(backbone="resnet20", backbone_options={"dtype": jnp.bfloat16})
    model = get_model(num_classes=4, **options)
    shapes = jax.eval_shape(lambda x: model.init_with_output(RNG, x, False)[0], IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def small_model(num_classes, head, **options):
    """Returns a model of eight layers, its variables, and what it says about `IMAGES`."""
    model = Classifier(
        CifarResNet(1, **options), get_pool("mean"), get_head(head, num_classes=num_classes)
    )
    out, variables = model.init_with_output(RNG, IMAGES, False)
    return model, variables, out


@pytest.mark.slow
def test_identity_logits_are_the_means_of_the_class_channels():
    model, variables, out = small_model(100, "identity", out_channels=100)
    assert out["feature_map"].shape[-1] == 100
    np.testing.assert_allclose(out["logits"], out["feature_map"].mean((1, 2)), rtol=1e-5, atol=1e-5)
    assert (out["logits"] < 0).any() and (out["logits"] > 0).any()
    jitted = jax.jit(model.apply, static_argnums=2)(variables, IMAGES, False)
    np.testing.assert_allclose(jitted["logits"], out["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_truncated_identity_trains_the_first_channels_only():
    model, variables, _ = small_model(10, "identity")

    def loss(params):
        logits = model.apply({**variables, "params": params}, IMAGES, False)["logits"]
        return jax.nn.logsumexp(logits, axis=1).sum() - logits[:, 3].sum()

    last = jax.jit(jax.grad(loss))(variables["params"])["backbone"]["layer3.0"]["bn2"]["bias"]
    assert (last[:10] != 0).any() and not last[10:].any()


@pytest.mark.parametrize(
    "head, backbone, num_classes",
    [("hadamard", "resnet32", 65), ("hadamard", "resnet18", 513), ("identity", "resnet32", 65)],
)
def test_too_many_classes_raise_before_anything_is_initialised(head, backbone, num_classes):
    with pytest.raises(ValueError, match="orthogonal"):
        get_model(num_classes=num_classes, backbone=backbone, head=head)
    get_model(num_classes=num_classes - 1, backbone=backbone, head=head)
    wide = {"out_channels": 2 * num_classes}
    get_model(num_classes, backbone, head, backbone_options=wide)


def test_too_many_classes_for_flattened_features_raise_at_init():
    model = get_model(257, "resnet20", head="identity", pool="flatten", pool_options={"window": 2})
    with pytest.raises(ValueError, match="got 257 classes for 256 features"):
        jax.eval_shape(lambda x: model.init(RNG, x, False), IMAGES)


def test_errors():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        get_model(num_classes=1)
    with pytest.raises(ValueError, match="unknown head 'idenity' .did you mean 'identity'"):
        get_model(num_classes=10, head="idenity")
    with pytest.raises(ValueError, match="head 'linear' has no option 'scale'"):
        get_model(num_classes=10, head_options={"scale": 2})
    with pytest.raises(ValueError, match="unknown pool 'avg'"):
        get_model(num_classes=10, pool="avg")


@pytest.mark.slow
def test_identity_head_of_a_densenet_trains_its_last_block():
    """The last 4 of 16 channels: the first ones would leave the last block without gradient."""
    model = get_model(4, "densenet_bc_100_12", "identity")
    assert model.head.take == "last"
    assert (
        get_model(4, "densenet_bc_100_12", "identity", head_options={"take": "first"}).head.take
        == "first"
    )
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(1), images, train=False))()

    def loss(params):
        variables_here = {**variables, "params": params}
        out, _ = model.apply(variables_here, images, train=True, mutable=["batch_stats"])
        return (out["logits"] ** 3).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])["backbone"]
    last = grads["features.denseblock3"]["denselayer16"]["conv2"]["kernel"]
    assert np.abs(last).max() > 0


def test_mobilenet_starts_its_classifier_as_the_public_model_does():
    assert get_model(4, "mobilenet_v2").head.kernel_init == "normal"
    assert get_model(4, "resnet18").head.kernel_init == "uniform"
    head = get_head("linear", num_classes=200, kernel_init="normal")
    params = head.init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    assert params["kernel"].std() == pytest.approx(0.01, rel=0.02) and not params["bias"].any()


class Positive(nn.Module):
    """A backbone without parameters: the images themselves."""

    num_features = 3

    def __call__(self, images, train):
        return images


def made_up(**options):
    return Classifier(Positive(), get_pool("mean"), get_head("linear", num_classes=4), **options)


def test_dropout_drops_by_example_in_training_alone():
    model = made_up(dropout=0.25)
    images = 1 + jax.random.uniform(RNG, (4000, 1, 1, 3))
    variables = model.init(RNG, images[:1], train=False)
    rngs = jax.random.split(RNG, len(images))
    whole = images[:, 0, 0]
    dropped = model.apply(variables, images, train=True, example_rngs=rngs)["features"]
    kept = dropped != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)  # 5 standard deviations
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-6)
    part = model.apply(variables, images[7:9], train=True, example_rngs=rngs[7:9])["features"]
    np.testing.assert_array_equal(part, dropped[7:9])
    for untouched in (dict(train=True), dict(train=False, example_rngs=rngs)):
        np.testing.assert_array_equal(
            model.apply(variables, images, **untouched)["features"], whole
        )


def test_relu_before_pool_gives_what_enters_the_pooling():
    images = jax.random.normal(RNG, (2, 4, 4, 3))
    model = made_up(relu_before_pool=True)
    out = model.apply(model.init(RNG, images, train=False), images, train=False)
    np.testing.assert_array_equal(out["feature_map"], jnp.maximum(images, 0))
    np.testing.assert_allclose(out["features"], jnp.maximum(images, 0).mean((1, 2)), atol=1e-6)


def test_a_frozen_backbone_gets_no_gradient_in_evaluation_mode():
    model = get_model(10, "resnet20", frozen_backbone=True)
    variables = model.init(RNG, IMAGES, train=False)

    def total(params):
        everything = {**variables, "params": params}
        out, updates = model.apply(everything, IMAGES, train=True, mutable=["batch_stats"])
        return (out["logits"] ** 2).sum(), (out["logits"], updates)

    grads, (logits, updates) = jax.grad(total, has_aux=True)(variables["params"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads["backbone"]))
    assert grads["head"]["kernel"].any()
    np.testing.assert_array_equal(logits, model.apply(variables, IMAGES, train=False)["logits"])
    before, after = (jax.tree.leaves(tree["batch_stats"]) for tree in (variables, updates))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_dropout_out_of_range(rate):
    with pytest.raises(ValueError, match=f"dropout must be in \\[0, 1\\), got {rate}"):
        get_model(10, dropout=rate)
