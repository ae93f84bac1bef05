"""The contract over every head and option that matters, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.heads import HEADS, get_head
from fixed_head_jax.heads.fixed import Hadamard, Identity, Orthogonal, Random
from fixed_head_jax.heads.linear import Linear
from fixed_head_jax.heads.polytope import Cube, Orthoplex, Simplex, SimplexETF
from tests.heads.examples import CODES, EQUATION_3_6, HOFFER, RAW, RNG, H, build, loss

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
# Those of `heads.cosine` compare directions alone; test_cosine.py has theirs.
DIRECTIONS = [HEADS[name] for name in ("cosine", "tvmf", "cosface", "arcface")]


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
