"""Fixed heads and their learned kin against the specification's worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.heads import frames, get_head
from fixed_head_jax.heads.fixed import Hadamard, Identity, Orthogonal, Random
from fixed_head_jax.heads.linear import Linear
from tests.heads.examples import EQUATION_3_6, HOFFER, RNG, H, build, loss

ALPHA = 6**-0.5


def test_hadamard_of_the_thesis_example():
    features = jnp.array([[1.0, 2, 2]])
    params = {"scale": jnp.float32(2**-0.5), "bias": jnp.array([0.05, -0.05])}
    as_run = get_head("hadamard", num_classes=2).apply({"params": params}, features)
    np.testing.assert_allclose(as_run, [[-1.12851130, -0.28570226]], atol=1e-6)
    written = get_head("hadamard", num_classes=2, **EQUATION_3_6)
    written = written.apply({"params": params}, features)
    np.testing.assert_allclose(written, [[3.58553391, 0.65710678]], atol=1e-6)


AS_RUN = [
    [-0.47154761, -0.01835034, -0.37154761, -0.11835034, -0.27154761, -0.21835034],
    [-0.63484692, 0.14494897, 0.44494897, -0.28164966, -0.43484692, -0.05505103],
]
WRITTEN = [
    [2.95773803, -0.50824829, 3.05773803, -0.60824829, 3.15773803, -0.70824829],
    [3.77423461, -1.32474487, -1.02474487, 0.20824829, 3.97423461, -1.52474487],
]


@pytest.mark.parametrize("options, expected", [({}, AS_RUN), (EQUATION_3_6, WRITTEN)])
def test_hadamard_with_repeated_classes(options, expected):
    bias = jnp.array([0.1, -0.1, 0.2, -0.2, 0.3, -0.3])
    head = get_head("hadamard", num_classes=6, allow_repeated=True, **options)
    logits = head.apply({"params": {"scale": jnp.float32(ALPHA), "bias": bias}}, H)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(logits[:, 4] - logits[:, 0], 0.2, atol=1e-6)


def test_hadamard_initial_scale_and_bias_follow_the_number_of_classes():
    _, _, variables = build(Hadamard, num_classes=400, dim=512)
    params = variables["params"]
    assert params["scale"] == pytest.approx(0.05)
    assert 0.045 < jnp.abs(params["bias"]).max() <= 0.05
    assert set(variables) == {"params"}  # the class vectors are computed, not stored


def test_hadamard_scale_can_be_frozen():
    head, features, variables = build(Hadamard, learn_scale=False, init_scale=3.0)
    assert set(variables["params"]) == {"bias"}
    unit = features / jnp.linalg.norm(features, axis=1, keepdims=True)
    expected = -3 * unit @ frames.hadamard(None, 8, 5) + variables["params"]["bias"][None]
    np.testing.assert_allclose(head.apply(variables, features), expected, atol=1e-5)


def test_hadamard_class_0_is_extreme_for_every_non_negative_feature():
    features = jax.random.exponential(RNG, (50, 8))
    options = dict(use_bias=False, learn_scale=False, num_classes=8)
    plus = get_head("hadamard", negate_scale=False, **options).apply({}, features)
    minus = get_head("hadamard", **options).apply({}, features)
    assert (plus.argmax(1) == 0).all() and (minus.argmin(1) == 0).all()


def test_orthogonal_forms():
    features = jnp.array([[1.0, 2, 2]])
    rest = {"fixed": {"kernel": jnp.array([[0.6, 0.8, 0], [0, 0, 1]]).T}}
    hoffer = get_head("orthogonal", num_classes=2, **HOFFER)
    variables = hoffer.init(RNG, features)
    assert variables["params"]["scale"] == 10 and not variables["params"]["bias"].any()
    logits = hoffer.apply({"params": variables["params"], **rest}, features)
    np.testing.assert_allclose(logits, [[7.33333333, 6.66666667]], atol=1e-5)
    thesis = get_head("orthogonal", num_classes=2)
    logits = thesis.apply({"params": {"bias": jnp.array([0.1, -0.1])}, **rest}, features)
    np.testing.assert_allclose(logits, [[2.3, 1.9]], atol=1e-6)


def test_orthogonal_bias_follows_the_number_of_features():
    _, _, variables = build(Orthogonal, num_classes=100, dim=400)
    assert 0.045 < jnp.abs(variables["params"]["bias"]).max() <= 0.05


def test_dot_products():
    kernel = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [2, -1, 2, 0]]).T
    bias = jnp.array([0.1, -0.2, 0.3])
    linear = get_head("linear", num_classes=3)
    logits = linear.apply({"params": {"kernel": kernel, "bias": bias}}, H)
    np.testing.assert_allclose(logits, [[3.1, 6.8, 2.3], [1.1, 8.8, 4.3]], atol=1e-6)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([1, 2]))
    np.testing.assert_allclose(losses, [0.03520547, 4.51149550], atol=1e-6)
    random = get_head("random", num_classes=3).apply({"fixed": {"kernel": kernel}}, H)
    np.testing.assert_allclose(random, [[3.01, 7.01, 2.01], [1.01, 9.01, 4.01]], atol=1e-6)


def test_linear_initial_values():
    _, _, variables = build(Linear, num_classes=300, dim=400)
    for name in ("kernel", "bias"):
        assert 0.045 < jnp.abs(variables["params"][name]).max() <= 0.05, name
    _, _, variables = build(Linear, num_classes=300, dim=400, kernel_init="he_normal")
    assert variables["params"]["kernel"].std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)


def test_linear_class_scales():
    kernel = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [2, -1, 2, 0]]).T
    params = {"kernel": kernel, "bias": jnp.array([0.1, -0.2, 0.3])}
    head = get_head("linear", num_classes=3, class_scales=True)
    initial = head.init(RNG, H)["params"]
    assert set(initial) == {"kernel", "bias", "class_scales"}
    ones = initial["class_scales"]
    np.testing.assert_array_equal(ones, np.ones(3))
    without = get_head("linear", num_classes=3).apply({"params": params}, H)
    start = head.apply({"params": {**params, "class_scales": ones}}, H)
    np.testing.assert_array_equal(start, without)
    learned = {"params": {**params, "class_scales": jnp.array([2.0, 0.5, -1])}}
    logits = head.apply(learned, H)  # of [[3.1, 6.8, 2.3], [1.1, 8.8, 4.3]]
    np.testing.assert_allclose(logits, [[6.2, 3.4, -2.3], [2.2, 4.4, -4.3]], atol=1e-6)
    expected = jnp.array([[2.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [-2, 1, -2, 0]]).T
    np.testing.assert_array_equal(head.class_vectors(learned, 4), expected)


def test_random_has_nothing_to_learn_and_its_bias_does_not_matter():
    head, features, variables = build(Random)
    assert set(variables) == {"fixed"}
    probabilities = jax.nn.softmax(head.apply(variables, features))
    without = get_head("random", num_classes=5, bias=0.0).apply(variables, features)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(without), atol=1e-6)


def test_identity_reads_the_first_features_only():
    head, features, variables = build(Identity)
    np.testing.assert_array_equal(head.apply(variables, features), features[:, :5])
    gradient = jax.grad(loss, argnums=3)({}, head, {}, features)
    assert (gradient[:, :5] != 0).all() and not gradient[:, 5:].any()


# Learned class vectors.


def test_learned_random_starts_as_the_fixed_one():
    head, features, variables = build(Random, learned=True)
    params = variables["params"]
    assert set(variables) == {"params"} and set(params) == {"kernel", "bias"}
    np.testing.assert_allclose(np.linalg.norm(params["kernel"], axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(params["bias"], 0.01)
    fixed_head = get_head("random", num_classes=5)
    expected = fixed_head.apply({"fixed": {"kernel": params["kernel"]}}, features)
    np.testing.assert_allclose(head.apply(variables, features), expected, atol=1e-6)


def test_learned_hadamard_starts_as_the_fixed_one():
    head, features, variables = build(Hadamard, learned=True)
    rest = dict(variables["params"])
    np.testing.assert_array_equal(rest.pop("kernel"), frames.hadamard(None, 8, 5))
    expected = get_head("hadamard", num_classes=5).apply({"params": rest}, features)
    np.testing.assert_allclose(head.apply(variables, features), expected, atol=1e-6)
    Hadamard(num_classes=100, learned=True).check_capacity(64)  # repeated only at the start
