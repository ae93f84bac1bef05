"""Self-Classifier's model: parameters, embeddings, class vectors, transformers, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax import accounting
from fixed_head_jax.heads import frames, get_head
from fixed_head_jax.heads.projection import FIXED_FRAMES
from fixed_head_jax.model import get_model
from tests.tasks.self_classifier_models import BATCH, HEAD, make_batch, make_model

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.mark.parametrize(
    ("options", "mlp"),
    [
        ({}, 8_925_312),
        (dict(use_batch_norm=False), 8_917_120),
        (dict(use_batch_norm=False, num_layers=3), 25_698_432),
        (dict(use_batch_norm=False, num_layers=3, dim=256), 26_222_848),
        (dict(use_batch_norm=False, hidden_dim=8192, dim=256), 18_882_816),
        (dict(num_layers=0), 0),
    ],
)
def test_published_numbers_of_parameters_of_the_mlp(options, mlp):
    head = get_head("projection", num_classes=1000, **options)
    variables = jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((1, 2048))))
    params = variables["params"]
    assert sum(x.size for x in jax.tree.leaves(params.get("mlp_head", {}))) == mlp


def test_published_numbers_of_parameters_of_the_model():
    head = dict(num_clusters=(1000, 2000, 4000, 8000))
    counted = accounting.count(get_model(1000, "resnet50", "projection", head_options=head))
    assert counted["params"] == 34_368_344
    assert counted["parts"]["backbone"]["params"] == 23_508_032
    assert counted["parts"]["head"]["params"] - 8_925_312 == 129_000 + 258_000 + 516_000 + 1_032_000


def test_the_head_starts_as_published():
    head = get_head("projection", num_classes=50, hidden_dim=400, dim=128)
    params = head.init(jax.random.key(0), jnp.ones((1, 300)))["params"]
    kernel = params["mlp_head"]["mlp.0"]["kernel"]
    assert abs(kernel.std() - 0.02) < 2e-4 and jnp.abs(kernel).max() > 0.06  # not cut at 2 sigma
    assert not params["mlp_head"]["mlp.0"]["bias"].any()
    directions = params["cls_0"]["weight_v"]
    bound = 128**-0.5
    assert 0.99 * bound < jnp.abs(directions).max() <= bound
    np.testing.assert_array_equal(params["cls_0"]["weight_g"], jnp.ones((50, 1)))


def test_of_classifiers_that_are_compared_the_one_of_the_smallest_loss_is_evaluated():
    options = {"num_clusters": (4, 4, 4), "num_layers": 0}
    head = get_head("projection", num_classes=4, evaluated=-1, **options)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5)), jnp.float32)
    variables = head.init(jax.random.key(0), features)
    for best in range(3):
        losses = jnp.full(3, 2.0).at[best].set(1.0)
        chosen = head.apply({**variables, "batch_stats": {"losses": losses}}, features)
        named = get_head("projection", num_classes=4, evaluated=best, **options)
        np.testing.assert_array_equal(
            chosen, named.apply({"params": variables["params"]}, features)
        )


def test_embeddings_and_logits():
    head = get_head("projection", num_classes=7, **HEAD, evaluated=1)
    features = jax.random.normal(jax.random.key(1), (4, 9))
    variables = head.init(jax.random.key(0), features)
    embeddings = head.apply(variables, features, train=False, method="embed")
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), jnp.ones(4), rtol=1e-6)
    classifier = variables["params"]["cls_1"]
    gains = jnp.array([[1.0], [2.0], [-1.0], [0.5], [3.0]])
    classifier["weight_g"] = gains
    logits = head.apply(variables, features)
    vectors = classifier["weight_v"]
    unit = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(logits, embeddings @ (gains * unit).T, atol=1e-6)
    assert [x.shape[1] for x in head.apply(variables, embeddings, method="classify")] == [3, 5]
    zero = head.apply(variables, jnp.zeros((1, 9)), train=False, method="embed")
    assert jnp.isfinite(zero).all()


def test_without_layers_the_embeddings_are_the_features_at_unit_norm():
    head = get_head("projection", num_classes=7, num_layers=0, dim=3)
    features = jnp.array([[3.0, 4, 0, 0, 0]])
    variables = head.init(jax.random.key(0), features)
    embeddings = head.apply(variables, features, train=True, method="embed")
    np.testing.assert_allclose(embeddings, [[0.6, 0.8, 0, 0, 0]], rtol=1e-6)
    assert variables["params"]["cls_0"]["weight_v"].shape == (7, 5)


@pytest.mark.parametrize("frame", FIXED_FRAMES)
def test_fixed_class_vectors_are_stored_apart_and_at_unit_norm(frame):
    dim = 3 if frame in ("simplex", "max_separation") else 6  # these have one size
    head = get_head("projection", num_classes=4, hidden_dim=12, dim=dim, frame=frame)
    head.check_capacity(9)
    features = jax.random.normal(jax.random.key(1), (2, 9))
    variables = head.init(jax.random.key(0), features)
    assert set(variables["params"]) == {"mlp_head"}
    kernel = variables["fixed"]["cls_0"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(kernel, axis=0), jnp.ones(4), rtol=1e-6)
    embeddings = head.apply(variables, features, train=False, method="embed")
    np.testing.assert_allclose(head.apply(variables, features), embeddings @ kernel, atol=1e-6)
    if frame == "hadamard":
        np.testing.assert_allclose(kernel, frames.hadamard(None, 6, 4) / 6**0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_clusters=(10, 1)), r"num_clusters must be at least 2 in every classifier"),
        (dict(evaluated=2), "evaluated=2 must be in -1 ... 1"),
        (dict(evaluated=-1), "evaluated=-1 compares losses"),
        (dict(num_layers=-1), "num_layers must be at least 0, got -1"),
        (dict(dim=0), "dim must be at least 1, got 0"),
        (dict(frame="spiral"), "unknown frame 'spiral'"),
        (dict(frame="identity", num_clusters=(7,)), "7"),
    ],
)
def test_the_model_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        make_model(**options)


@pytest.mark.slow
def test_transformers_embed_views_of_two_sizes():
    model = get_model(
        10, "vit_tiny", "projection", head_options=HEAD,
        backbone_options={"image_size": 32, "patch_size": 8},
    )  # fmt: skip
    large, small = (
        jnp.concatenate([images] * 3, -1)
        for images in (
            make_batch()["global"][0].repeat(4, 1).repeat(4, 2),
            make_batch()["local"][0],
        )
    )
    small = jnp.pad(small, ((0, 0), (0, 11), (0, 11), (0, 0)))  # 16 pixels
    variables = model.init(jax.random.key(0), large, train=False)

    @jax.jit
    def embed(large, small):
        return model.apply(
            variables, [large, small], train=True, mutable=["batch_stats"], method="embed"
        )[0]

    embeddings = embed(large, small)
    assert embeddings.shape == (2 * BATCH, 6)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), jnp.ones(8), rtol=1e-5)


def test_mixed_precision_ends_before_the_head():
    options = {"dtype": jnp.bfloat16}
    model = get_model(10, "tiny", "projection", head_options=HEAD, backbone_options=options)
    images = jnp.zeros((2, 8, 8, 1))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def classify(variables, images):
        embeddings = model.apply(variables, [images], train=False, method="embed")
        return embeddings, model.apply(variables, embeddings, method="classify")

    out = jax.eval_shape(classify, variables, images)
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}
