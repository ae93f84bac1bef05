"""Heads against the specification's worked numbers, and the contract over every entry."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.heads import HEADS, frames, get_head

RNG = jax.random.key(0)
H = jnp.array([[3.0, 4, 0, 0], [1, 2, 2, 4]])
ALPHA = 6**-0.5
HOFFER = dict(normalize_features=True, init_scale=10.0, bias_init="zeros")
EQUATION_3_6 = dict(negate_scale=False, normalize_features=False)
# Every entry at its defaults, then the options that change what it computes.
VARIANTS = [(name, {}) for name in HEADS] + [
    ("linear", dict(kernel_init="he_normal", use_bias=False)),
    ("orthogonal", HOFFER),
    ("hadamard", EQUATION_3_6),
    ("hadamard", dict(learn_scale=False, use_bias=False)),
    ("identity", dict(use_bias=True)),
]
FIXED = [variant for variant in VARIANTS if variant[0] != "linear"]


def build(name, num_classes=5, dim=8, **options):
    """Returns the head, asymmetric features [3, dim] of both signs, and the variables."""
    head = get_head(name, num_classes=num_classes, **options)
    features = jax.random.normal(jax.random.key(1), (3, dim)) + 0.3
    return head, features, head.init(RNG, features)


def loss(params, head, rest, features):
    logits = head.apply({"params": params, **rest}, features)
    labels = jnp.arange(len(features)) % head.num_classes
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# Worked numbers.


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
    _, _, variables = build("hadamard", num_classes=400, dim=512)
    params = variables["params"]
    assert params["scale"] == pytest.approx(0.05)
    assert 0.045 < jnp.abs(params["bias"]).max() <= 0.05
    assert set(variables) == {"params"}  # the class vectors are computed, not stored


def test_hadamard_scale_can_be_frozen():
    head, features, variables = build("hadamard", learn_scale=False, init_scale=3.0)
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
    _, _, variables = build("orthogonal", num_classes=100, dim=400)
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
    _, _, variables = build("linear", num_classes=300, dim=400)
    for name in ("kernel", "bias"):
        assert 0.045 < jnp.abs(variables["params"][name]).max() <= 0.05, name
    _, _, variables = build("linear", num_classes=300, dim=400, kernel_init="he_normal")
    assert variables["params"]["kernel"].std() == pytest.approx((2 / 400) ** 0.5, rel=0.02)


def test_random_has_nothing_to_learn_and_its_bias_does_not_matter():
    head, features, variables = build("random")
    assert set(variables) == {"fixed"}
    probabilities = jax.nn.softmax(head.apply(variables, features))
    without = get_head("random", num_classes=5, bias=0.0).apply(variables, features)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(without), atol=1e-6)


def test_identity_reads_the_first_features_only():
    head, features, variables = build("identity")
    np.testing.assert_array_equal(head.apply(variables, features), features[:, :5])
    gradient = jax.grad(loss, argnums=3)({}, head, {}, features)
    assert (gradient[:, :5] != 0).all() and not gradient[:, 5:].any()


# The contract.


@pytest.mark.parametrize("name, options", VARIANTS)
def test_contract(name, options):
    head, features, variables = build(name, **options)
    logits = head.apply(variables, features)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(head.apply)(variables, features), logits, atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} <= {jnp.dtype("float32")}


@pytest.mark.parametrize("name, options", VARIANTS)
def test_zero_features_give_finite_logits_and_gradients(name, options):
    head, features, variables = build(name, **options)
    rest = {key: value for key, value in variables.items() if key != "params"}
    params, zeros = variables.get("params", {}), jnp.zeros_like(features)
    value, grads = jax.value_and_grad(loss, argnums=(0, 3))(params, head, rest, zeros)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


@pytest.mark.parametrize("name, options", FIXED)
def test_fixed_heads_survive_adamw_with_decay(name, options):
    head, features, variables = build(name, **options)
    params = dict(variables.get("params", {}))
    rest = {key: value for key, value in variables.items() if key != "params"}
    before, start = jax.tree.map(np.array, rest), params
    tx = optax.adamw(0.1, weight_decay=0.5)
    state = tx.init(params)
    for _ in range(3):
        grads = jax.grad(loss)(params, head, rest, features)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    after = {**head.init(RNG, features), "params": params}
    for key in before:
        jax.tree.map(np.testing.assert_array_equal, before[key], after[key])
    for tree in (grads, state[0].mu):
        assert "kernel" not in tree and set(tree) == set(start)
    assert all((params[key] != start[key]).any() for key in start)


@pytest.mark.parametrize("name, options", VARIANTS)
def test_another_key_draws_another_head(name, options):
    head, features, variables = build(name, **options)
    other = head.init(jax.random.key(9), features)
    for key in set(variables.get("fixed", {})):
        assert not np.array_equal(variables["fixed"][key], other["fixed"][key])


# Errors.


def test_hadamard_capacity():
    head = get_head("hadamard", num_classes=100)
    head.check_capacity(65)
    message = "64 distinct class vectors for 64 features.*num_classes=100: 36 of them.*orthogonal"
    with pytest.raises(ValueError, match=message) as error:
        head.check_capacity(64)
    for hint in ("more than 64 features", "out_channels=100", "head_options.allow_repeated=True"):
        assert hint in str(error.value)
    assert "\n" not in str(error.value)
    get_head("hadamard", num_classes=100, allow_repeated=True).check_capacity(64)


@pytest.mark.parametrize("name", ["hadamard", "identity"])
def test_capacity_is_checked_again_in_the_call(name):
    with pytest.raises(ValueError, match=f"{name} .*for 4 features|{name} .*out_channels=6"):
        get_head(name, num_classes=6).init(RNG, H)


def test_unknown_names_and_values():
    with pytest.raises(ValueError, match="unknown head 'hadamrd' .did you mean 'hadamard'"):
        get_head("hadamrd", num_classes=2)
    with pytest.raises(ValueError, match="no option 'use_bais' .did you mean 'use_bias'"):
        get_head("orthogonal", num_classes=2, use_bais=True)
    with pytest.raises(ValueError, match="unknown bias_init 'ones'; known: uniform, zeros"):
        get_head("orthogonal", num_classes=2, bias_init="ones")
    with pytest.raises(ValueError, match="unknown kernel_init 'x'; known: uniform, he_normal"):
        get_head("linear", num_classes=2, kernel_init="x")
