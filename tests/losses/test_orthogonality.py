"""Orthogonality penalties against the formulas as printed; orthogonal initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.backbones.cifar_resnet import CifarResNet
from fixed_head_jax.heads import get_head
from fixed_head_jax.layers import initializers
from fixed_head_jax.layers.pooling import get_pool
from fixed_head_jax.losses import orthogonality
from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.tasks import get_task

soft_orthogonality = jax.jit(orthogonality.soft_orthogonality)
double_soft_orthogonality = jax.jit(orthogonality.double_soft_orthogonality)
sum_over_kernels = jax.jit(orthogonality.sum_over_kernels, static_argnums=(1, 2))
redraw_orthogonal = jax.jit(initializers.redraw_orthogonal, static_argnums=2)

SHAPES = [(7, 4), (4, 7), (3, 3, 2, 6), (3, 3, 1, 12)]
WORKED = jnp.asarray([[1, 0], [0, 2], [0.5, -1]], jnp.float32)  # specification 7.6


def kernel(shape, seed=0):
    return jnp.asarray(0.7 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def reference(weights):
    """Returns both terms of the penalties, and the gradient of the first, in float64."""
    matrix = np.asarray(weights, np.float64).reshape(-1, weights.shape[-1])
    filters = matrix.T @ matrix - np.eye(matrix.shape[1])
    others = matrix @ matrix.T - np.eye(matrix.shape[0])
    gradient = 4 * matrix @ filters
    return (filters**2).sum(), (others**2).sum(), gradient.reshape(weights.shape)


def test_worked_numbers():
    assert soft_orthogonality(WORKED) == 16.5625
    assert double_soft_orthogonality(WORKED) == 34.125
    assert 0.025 * soft_orthogonality(WORKED) == pytest.approx(0.4140625)
    assert 0.025 * double_soft_orthogonality(WORKED) == pytest.approx(0.853125)
    semi_orthogonal = np.linalg.qr(np.asarray(kernel((5, 3))))[0]
    assert double_soft_orthogonality(jnp.asarray(semi_orthogonal)) == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_penalties_and_their_gradients(shape):
    weights = kernel(shape)
    filters, others, gradient = reference(weights)
    soft, soft_gradient = jax.jit(jax.value_and_grad(soft_orthogonality))(weights)
    double, double_gradient = jax.jit(jax.value_and_grad(double_soft_orthogonality))(weights)
    assert soft == pytest.approx(filters, rel=1e-5)
    assert double == pytest.approx(filters + others, rel=1e-5)
    np.testing.assert_allclose(soft_gradient, gradient, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(double_gradient, 2 * gradient, rtol=1e-4, atol=1e-4)


def test_penalties_are_float32_and_finite_at_zero():
    weights = jax.ShapeDtypeStruct((8, 4), jnp.bfloat16)
    assert jax.eval_shape(soft_orthogonality, weights).dtype == jnp.float32
    zeros = jnp.zeros((3, 3, 2, 4))
    assert soft_orthogonality(zeros) == 4 and double_soft_orthogonality(zeros) == 4 + 18
    assert not jax.grad(double_soft_orthogonality)(zeros).any()


PARAMS = {
    "backbone": {
        "conv1": {"kernel": kernel((3, 3, 2, 6))},
        "bn1": {"scale": jnp.ones(6), "bias": jnp.zeros(6)},
        "layer1.0": {"conv1": {"kernel": kernel((1, 1, 6, 8), seed=1)}},
    },
    "head": {"kernel": kernel((8, 5), seed=2), "bias": jnp.zeros(5)},
}
CONVOLUTIONS = ("^backbone/.*kernel$",)


def test_sum_over_the_kernels_that_match():
    conv1 = PARAMS["backbone"]["conv1"]["kernel"]
    conv2 = PARAMS["backbone"]["layer1.0"]["conv1"]["kernel"]
    head = PARAMS["head"]["kernel"]
    for patterns, chosen in (
        (CONVOLUTIONS, (conv1, conv2)),
        (("kernel$",), (conv1, conv2, head)),
        (("^head/kernel", "^head/k", "conv1/kernel$"), (conv1, conv2, head)),
        ((), ()),
    ):
        soft = sum(reference(weights)[0] for weights in chosen)
        double = sum(sum(reference(weights)[:2]) for weights in chosen)
        assert sum_over_kernels(PARAMS, patterns) == pytest.approx(soft, rel=1e-5)
        result = sum_over_kernels(PARAMS, patterns, orthogonality.double_soft_orthogonality)
        assert result == pytest.approx(double, rel=1e-5)


def test_only_the_kernels_that_match_get_a_gradient():
    grads = jax.jit(jax.grad(sum_over_kernels), static_argnums=1)(PARAMS, CONVOLUTIONS)
    conv1 = reference(PARAMS["backbone"]["conv1"]["kernel"])[2]
    np.testing.assert_allclose(grads["backbone"]["conv1"]["kernel"], conv1, rtol=1e-4, atol=1e-4)
    assert not grads["head"]["kernel"].any() and not grads["backbone"]["bn1"]["scale"].any()


@pytest.mark.parametrize(
    "select", [orthogonality.sum_over_kernels, None], ids=["penalty", "initialisation"]
)
def test_patterns_that_cannot_be_meant(select):
    def redraw(params, patterns):
        return initializers.redraw_orthogonal(jax.random.key(0), params, patterns)

    select = select or redraw
    with pytest.raises(ValueError, match="pattern 'conv7' matches no parameter; .*backbone/bn1"):
        select(PARAMS, ("kernel$", "conv7"))
    with pytest.raises(
        ValueError, match=r"match 'backbone/bn1/bias' of shape \(6,\), .* no kernel"
    ):
        select(PARAMS, ("^backbone/",))
    with pytest.raises(ValueError, match=r"is a string; pass a sequence: \('kernel\$',\)"):
        select(PARAMS, "kernel$")


# Initialisation


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_kernels(shape):
    init = jax.jit(initializers.orthogonal, static_argnums=1)
    weights = np.asarray(init(jax.random.key(0), shape))
    matrix = weights.reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-6)
    assert weights.dtype == np.float32


def test_redrawn_kernels_depend_on_nothing_but_key_and_path():
    rng = jax.random.key(3)
    everything = redraw_orthogonal(rng, PARAMS, ("kernel$",))
    one = redraw_orthogonal(rng, PARAMS, ("^backbone/conv1/kernel$",))
    assert jax.tree.structure(one) == jax.tree.structure(PARAMS)
    np.testing.assert_array_equal(
        one["backbone"]["conv1"]["kernel"], everything["backbone"]["conv1"]["kernel"]
    )
    for before, after in ((PARAMS["head"], one["head"]),
                          (PARAMS["backbone"]["bn1"], one["backbone"]["bn1"])):  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, before, after)
    assert sum_over_kernels(everything, ("kernel$",)) == pytest.approx(8 - 6, abs=1e-4)
    other = redraw_orthogonal(jax.random.key(4), PARAMS, ("kernel$",))
    assert not np.array_equal(other["head"]["kernel"], everything["head"]["kernel"])
    twins = {"a": {"kernel": jnp.zeros((4, 4))}, "b": {"kernel": jnp.zeros((4, 4))}}
    twins = redraw_orthogonal(rng, twins, ("kernel$",))
    assert not np.array_equal(twins["a"]["kernel"], twins["b"]["kernel"])


def test_one_or_all_convolutions_of_a_network(monkeypatch):
    drawn = []
    monkeypatch.setattr(initializers, "orthogonal", lambda rng, shape, dtype: drawn.append(shape))
    model, images = get_model(10, "resnet20"), jnp.zeros((1, 8, 8, 3))
    params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), images)["params"]
    rng = jax.random.key(0)
    initializers.redraw_orthogonal(rng, params, (r"^backbone/layer3\.2/conv2/kernel$",))
    assert drawn == [(3, 3, 64, 64)]
    drawn.clear()
    initializers.redraw_orthogonal(rng, params, CONVOLUTIONS)
    assert len(drawn) == 19 and (3, 3, 3, 16) in drawn


@pytest.mark.slow
def test_penalty_is_added_to_the_supervised_loss():
    model = Classifier(CifarResNet(1), get_pool("mean"), get_head("linear", num_classes=3))
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    batch = {"image": images, "label": jnp.array([0, 1, 2, 1])}
    losses, metrics = {}, {}
    for name in (None, "soft", "double_soft"):
        init, loss, *_ = get_task("supervised", model, orthogonality=name, orthogonality_weight=0.5)
        params, model_state, task_state = jax.jit(init)(jax.random.key(1), images)
        losses[name], (_, _, metrics[name]) = jax.jit(loss)(
            params, model_state, task_state, batch, None
        )
    patterns = ("^backbone/.*kernel$",)
    for name, penalty in (("soft", soft_orthogonality), ("double_soft", double_soft_orthogonality)):
        added = 0.5 * sum_over_kernels(params, patterns, penalty)
        assert float(losses[name] - losses[None]) == pytest.approx(float(added), rel=1e-5)
        assert float(metrics[name]["loss"]) == pytest.approx(float(losses[None]), rel=1e-6)
    with pytest.raises(ValueError, match="unknown orthogonality 'hard'; known: soft, double_soft"):
        get_task("supervised", model, orthogonality="hard")
    with pytest.raises(ValueError, match="orthogonality_weight must be at least 0, got -1"):
        get_task("supervised", model, orthogonality="soft", orthogonality_weight=-1.0)
