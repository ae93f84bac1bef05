"""Heads against the specification's worked numbers, and the contract over every entry."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.heads import HEADS, fixed, frames, get_head
from fixed_head_jax.heads.fixed import Hadamard, Identity, Orthogonal, Random
from fixed_head_jax.heads.linear import Linear
from fixed_head_jax.heads.polytope import Cube, Orthoplex, Simplex, SimplexETF

RNG = jax.random.key(0)
H = jnp.array([[3.0, 4, 0, 0], [1, 2, 2, 4]])
ALPHA = 6**-0.5
HOFFER = dict(normalize_features=True, init_scale=10.0, bias_init="zeros")
EQUATION_3_6 = dict(negate_scale=False, normalize_features=False)
RAW = dict(project=False)
CODES = dict(random_codes=True)
# Heads that draw their class vectors, and those that compute them in the call, by the options that
# matter; "dim" is the number of features, 8 by default.
DRAWN = [
    (Random, {}),
    (Orthogonal, {}),
    (Orthogonal, HOFFER),
    (SimplexETF, {}),
    (Cube, RAW | CODES),
]
FIXED = DRAWN + [
    *((head, {}) for head in (Hadamard, Identity, Simplex, Orthoplex, Cube)),
    (SimplexETF, dict(project=True)),
    (Hadamard, EQUATION_3_6),
    (Hadamard, dict(learn_scale=False, use_bias=False)),
    (Hadamard, dict(distinct=True, dim=3)),
    (Identity, dict(use_bias=True)),
    (Identity, dict(take="last")),
    (Simplex, dict(**RAW, dim=4, max_separation=True, init_scale=0.1, learn_scale=True)),
    (Orthoplex, dict(**RAW, dim=3)),
]
VARIANTS = FIXED + [
    *((head, {}) for head in HEADS.values() if (head, {}) not in FIXED),
    (Linear, dict(kernel_init="he_normal", use_bias=False)),
    (Linear, dict(class_scales=True)),
    (Random, dict(learned=True)),
    (Hadamard, dict(learned=True, distinct=True, dim=3)),
    (Hadamard, dict(allow_repeated=True, dim=3)),
    (Simplex, dict(max_separation=True)),
    (Cube, CODES),
]
# Those of `heads.cosine` compare directions alone; tests/test_cosine.py has theirs.
DIRECTIONS = [HEADS[name] for name in ("cosine", "tvmf", "cosface", "arcface")]


def build(head, num_classes=5, dim=8, **options):
    """Returns the head, asymmetric features [3, dim] of both signs, and the variables."""
    head = head(num_classes=num_classes, **options)
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


# Logits without a matrix.


def assert_multiplies(logits, matrix):
    """Checks that a function is features @ matrix, in values and gradients."""
    matrix = np.asarray(matrix, np.float64)
    rng = np.random.default_rng(0)
    features, cotangent = (rng.normal(size=(3, size)).astype(np.float32) for size in matrix.shape)

    @jax.jit
    def values_and_gradient(features):
        values, pull = jax.vjp(logits, features)
        return values, pull(jnp.asarray(cotangent))[0]

    values, gradient = values_and_gradient(features)
    np.testing.assert_allclose(values, features @ matrix, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, cotangent @ matrix.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "dim, num_classes", [(64, 10), (6, 9), (100, 37), (128, 128), (1, 1), (64, 300)]
)
def test_walsh_hadamard(dim, num_classes):
    for distinct, frame in ((False, frames.hadamard), (True, frames.hadamard_distinct)):
        product = partial(fixed._walsh_hadamard, num_classes=num_classes, distinct=distinct)
        assert_multiplies(product, frame(None, dim, num_classes))


PERNICI_CUBE = partial(frames.cube, least_significant_first=True)


@pytest.mark.parametrize(
    "kind, frame, options, dim, num_classes",
    [
        *((Simplex, frames.simplex, {}, k - 1, k) for k in (2, 100)),
        *((Simplex, frames.max_separation, dict(max_separation=True), k - 1, k) for k in (2, 302)),
        *((Orthoplex, frames.orthoplex_shuffled, {}, 5, k) for k in (4, 7, 10)),
        *((Cube, PERNICI_CUBE, {}, d, k) for d, k in ((1, 2), (4, 11), (70, 11))),
    ],
)
def test_polytopes_without_a_matrix(kind, frame, options, dim, num_classes):
    head = kind(num_classes=num_classes, project=False, init_scale=2.0, **options)
    assert_multiplies(partial(head.apply, {}), 2 * np.asarray(frame(None, dim, num_classes)))


@pytest.mark.parametrize(
    "kind, options, size, frame",
    [
        (Simplex, {}, 9, frames.simplex),
        (Simplex, dict(max_separation=True), 9, frames.max_separation),
        (SimplexETF, dict(project=True), 10, frames.simplex_etf),
        (Orthoplex, {}, 5, frames.orthoplex_shuffled),
        (Cube, {}, 4, PERNICI_CUBE),
    ],
)
def test_polytopes_project_to_their_dimension(kind, options, size, frame):
    head, features, variables = build(kind, num_classes=10, dim=400, **options)
    (kernel,) = map(np.asarray, jax.tree.leaves(variables))
    np.testing.assert_array_equal(variables["params"]["projection"]["kernel"], kernel)
    assert kernel.shape == (400, size) and 0.045 < np.abs(kernel).max() <= 0.05
    expected = np.asarray(features) @ kernel @ np.asarray(frame(None, size, 10))
    np.testing.assert_allclose(head.apply(variables, features), expected, atol=1e-5)


def test_drawn_polytopes_are_stored():
    for kind, options, dim in ((SimplexETF, {}, 8), (SimplexETF, {}, 4), (Cube, CODES, 8)):
        head, features, variables = build(kind, dim=dim, project=False, **options)
        kernel = np.asarray(variables["fixed"]["kernel"])
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6)
        expected = np.asarray(features) @ kernel
        np.testing.assert_allclose(head.apply(variables, features), expected, atol=1e-6)
    assert len(np.unique(kernel, axis=1).T) == 5


def test_polytope_scale():
    head, features, variables = build(Orthoplex, dim=3, project=False, init_scale=0.1)
    np.testing.assert_allclose(head.apply({}, features)[:, :3], 0.1 * features, atol=1e-6)
    options = dict(project=False, init_scale=0.1, learn_scale=True)
    head, _, variables = build(Orthoplex, dim=3, **options)
    assert variables["params"] == {"scale": pytest.approx(0.1)}


# The contract.


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_contract(kind, options):
    """Shapes, dtypes, the same under jit, and nothing infinite at zero features."""
    head, features, variables = build(kind, **options)
    rest = {key: value for key, value in variables.items() if key != "params"}
    params = variables.get("params", {})

    @jax.jit
    def differentiate(features):
        logits = head.apply(variables, features)
        return logits, jax.value_and_grad(loss, argnums=(0, 3))(params, head, rest, features)

    logits = head.apply(variables, features)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    # Margin heads multiply by 64: what rounds is the largest logit.
    atol = 1e-6 * max(1.0, float(jnp.abs(logits).max()))
    np.testing.assert_allclose(differentiate(features)[0], logits, atol=atol)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} <= {jnp.dtype("float32")}
    at_zero = jax.tree.leaves(differentiate(jnp.zeros_like(features)))
    assert all(np.isfinite(leaf).all() for leaf in at_zero)


@pytest.mark.parametrize("kind, options", [each for each in VARIANTS if each[0] not in DIRECTIONS])
def test_class_vectors(kind, options):
    """Logits less those of zero features, where only a bias is left, are the product with them."""
    head, features, variables = build(kind, **options)
    # Away from the initial values, which hide what is not read: scales 1, biases 0.
    params = jax.tree.map(lambda leaf: 1.5 * leaf + 0.25, variables.get("params", {}))
    variables = {**variables, "params": params} if params else variables
    dim = features.shape[1]
    vectors = head.class_vectors(variables, dim)
    assert vectors.shape == (dim, 5) and vectors.dtype == jnp.float32
    jitted = jax.jit(head.class_vectors, static_argnums=1)(variables, dim)
    np.testing.assert_allclose(jitted, vectors, atol=1e-6)
    logits, bias = (head.apply(variables, x) for x in (features, jnp.zeros_like(features)))
    if getattr(head, "normalize_features", False):
        features = features / jnp.linalg.norm(features, axis=1, keepdims=True)
    product = np.asarray(features, np.float64) @ np.asarray(vectors, np.float64)
    np.testing.assert_allclose(logits - bias, product, atol=1e-5 * max(1, np.abs(product).max()))


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_fixed_heads_survive_adamw_with_decay(kind, options):
    head, features, variables = build(kind, **options)
    params = dict(variables.get("params", {}))
    rest = {key: value for key, value in variables.items() if key != "params"}
    before, start = jax.tree.map(np.array, rest), params
    tx = optax.adamw(0.1, weight_decay=0.5)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params, head, rest, features)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, grads

    for _ in range(3):
        params, state, grads = step(params, state)
    after = {**head.init(RNG, features), "params": params}
    for key in before:
        jax.tree.map(np.testing.assert_array_equal, before[key], after[key])
    assert not set(rest.get("fixed", {})) & set(params)
    for tree in (grads, state[0].mu):
        assert jax.tree.structure(tree) == jax.tree.structure(start)
    for leaf, first in zip(jax.tree.leaves(params), jax.tree.leaves(start), strict=True):
        assert (np.asarray(leaf) != np.asarray(first)).any()


@pytest.mark.parametrize("kind, options", FIXED)
def test_fixed_class_vectors_are_no_parameters(kind, options):
    head, features, _ = build(kind, **options)
    variables = jax.eval_shape(head.init, RNG, features)
    assert set(variables) <= {"params", "fixed"}
    assert set(variables.get("params", {})) <= {"projection", "scale", "bias"}
    assert ("fixed" in variables) == ((kind, options) in DRAWN)


@pytest.mark.parametrize("kind, options", DRAWN)
def test_another_key_draws_another_head(kind, options):
    head, features, variables = build(kind, **options)
    other = head.init(jax.random.key(9), features)
    assert not np.array_equal(variables["fixed"]["kernel"], other["fixed"]["kernel"])


# Errors.


def test_hadamard_capacity():
    head = get_head("hadamard", num_classes=100)
    head.check_capacity(65)
    message = "64 distinct class vectors for 64 features.*num_classes=100: 36 of them.*orthogonal"
    with pytest.raises(ValueError, match=message) as error:
        head.check_capacity(64)
    hints = ("more than 64 features", "out_channels=100", "distinct=True", "allow_repeated=True")
    for hint in hints:
        assert hint in str(error.value)
    assert "\n" not in str(error.value)
    get_head("hadamard", num_classes=100, allow_repeated=True).check_capacity(64)
    get_head("hadamard", num_classes=100, distinct=True).check_capacity(64)
    with pytest.raises(ValueError, match="cube needs num_classes <= 64.*give it dim=7"):
        get_head("hadamard", num_classes=100, distinct=True).check_capacity(6)


@pytest.mark.parametrize("name", ["hadamard", "identity"])
def test_capacity_is_checked_again_in_the_call(name):
    with pytest.raises(ValueError, match=f"{name} .*for 4 features|{name} .*out_channels=6"):
        get_head(name, num_classes=6).init(RNG, H)


@pytest.mark.parametrize(
    "kind, num_classes, dim, fitting",
    [(Simplex, 6, 4, 5), (Simplex, 6, 6, 5), (SimplexETF, 6, 4, 5), (Orthoplex, 9, 4, 5)]
    + [(Cube, 17, 4, 5)],
)
def test_polytope_capacity(kind, num_classes, dim, fitting):
    kind(num_classes=num_classes, project=True).check_capacity(dim)
    head = kind(num_classes=num_classes, project=False)
    head.check_capacity(fitting)
    message = f"num_classes={num_classes} for dim={dim}; give it dim={fitting} .*project=True"
    with pytest.raises(ValueError, match=message):
        head.check_capacity(dim)
    with pytest.raises(ValueError, match=message):
        head.init(RNG, jnp.zeros((1, dim)))


@pytest.mark.parametrize("kind", [Simplex, SimplexETF, Orthoplex, Cube, Random, Hadamard])
def test_one_class(kind):
    if kind in (Simplex, SimplexETF):
        with pytest.raises(ValueError, match="simplex needs num_classes >= 2, got num_classes=1"):
            build(kind, num_classes=1)
    else:
        head, features, variables = build(kind, num_classes=1)
        assert jnp.isfinite(head.apply(variables, features)).all()


@pytest.mark.parametrize(
    "kind", [Orthogonal, Hadamard, Simplex, SimplexETF, Orthoplex, Cube], ids=lambda k: k.__name__
)
@pytest.mark.parametrize("init_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_must_be_positive(kind, init_scale):
    with pytest.raises(ValueError, match=f"init_scale must be finite and > 0, got {init_scale}"):
        kind(num_classes=3, init_scale=init_scale)


def test_repeated_and_distinct_exclude_each_other():
    with pytest.raises(ValueError, match="allow_repeated=True and distinct=True exclude each"):
        get_head("hadamard", num_classes=3, allow_repeated=True, distinct=True)


def test_unknown_names_and_values():
    with pytest.raises(ValueError, match="unknown head 'hadamrd' .did you mean 'hadamard'"):
        get_head("hadamrd", num_classes=2)
    with pytest.raises(ValueError, match="no option 'use_bais' .did you mean 'use_bias'"):
        get_head("orthogonal", num_classes=2, use_bais=True)
    with pytest.raises(ValueError, match="unknown bias_init 'ones'; known: uniform, zeros"):
        get_head("orthogonal", num_classes=2, bias_init="ones")
    with pytest.raises(ValueError, match="unknown kernel_init 'x'; known: uniform, he_normal"):
        get_head("linear", num_classes=2, kernel_init="x")
