"""Cosine heads against the specification's worked numbers, and the contract of every kind."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.heads.cosine import TVMF, ArcFace, CosFace, Cosine
from tests.heads.cosine_examples import (
    BIAS,
    COSINES,
    RNG,
    H,
    assert_finite,
    build,
    cross_entropy,
    given,
    loss_and_grads,
)

SHALEV = dict(kernel_init="random_integers", scale_form="constant", bias_form="outside")
# Every head and option that changes what is computed, learned and fixed.
KINDS = [
    (Cosine, {}),
    (Cosine, SHALEV | dict(init_scale=10.0)),
    (Cosine, dict(scale_form="learned", init_scale=16.0, bias_form="inside")),
    (TVMF, {}),
    (TVMF, dict(kappa=-0.3, bias_form="outside")),
    (CosFace, {}),
    (ArcFace, {}),
    (ArcFace, dict(easy_margin=True)),
]
LEARNED = [(kind, options | {"fixed": False}) for kind, options in KINDS]
FIXED = [(kind, options | {"fixed": True}) for kind, options in KINDS]
VARIANTS = LEARNED + FIXED


@pytest.mark.parametrize(
    "scale, losses",
    [
        (1.0, [1.14959362, 1.06765782]),
        (10.0, [0.40698985, 5.83748392]),
        (20.0, [0.16780271, 12.16667299]),
    ],
)
def test_shalev_learned(scale, losses):
    logits = given(Cosine(3, init_scale=scale, **SHALEV), bias=BIAS)
    np.testing.assert_allclose(logits, scale * COSINES + BIAS[None], atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits), losses, atol=2e-5)


def test_shalev_fixed():
    logits = given(Cosine(3, fixed=True, init_scale=10.0, **SHALEV))
    np.testing.assert_allclose(logits, 10 * COSINES + 0.01, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits).mean(), 3.32590261, atol=1e-5)


@pytest.mark.parametrize("raw, scale", [(-2.0, 1.12692801), (0.0, 1.69314718), (3.0, 4.04858735)])
def test_softplus_scale(raw, scale):
    np.testing.assert_allclose(given(Cosine(3), raw_scale=raw), scale * COSINES, atol=1e-5)


@pytest.mark.parametrize("form", ["learned", "constant"])
def test_normface(form):
    head = Cosine(3, scale_form=form, init_scale=16.0)
    scale = head.init(RNG, H)["params"].get("scale", 16.0)
    logits = given(head, **({"scale": scale} if form == "learned" else {}))
    np.testing.assert_allclose(cross_entropy(logits).mean(), 5.15869177, atol=2e-5)


# Features, class vectors and initial values.


@pytest.mark.parametrize("kind, options", LEARNED)
def test_lengths_of_features_and_class_vectors_do_not_matter(kind, options):
    head, features, params, rest = build(kind, options)
    logits = head.apply({"params": params}, features)
    lengths = jnp.array([0.01, 1, 3, 50, 1000])
    scaled = {**params, "kernel": params["kernel"] * lengths[None]}
    again = head.apply({"params": scaled}, features * jnp.array([[7.0], [0.02], [300]]))
    np.testing.assert_allclose(again, logits, atol=1e-4 * max(1, jnp.abs(logits).max()))
    grads = loss_and_grads(params, head, rest, features)[1][0]["kernel"]
    along = (grads * params["kernel"]).sum(0)  # the normalisation is differentiated, too
    np.testing.assert_allclose(along, 0, atol=2e-6 * max(1, jnp.abs(grads).max()))


def test_fixed_class_vectors_are_normalised_too():
    options = dict(scale_form="constant", fixed=True)
    np.testing.assert_allclose(given(Cosine(3, **options)), COSINES, atol=1e-6)


def test_initial_values():
    _, _, params, rest = build(Cosine, {}, num_classes=300, dim=400)
    assert set(params) == {"kernel", "raw_scale"} and params["raw_scale"] == 0 and not rest
    assert 0.045 < jnp.abs(params["kernel"]).max() <= 0.05
    _, _, params, _ = build(Cosine, dict(bias_form="inside"), num_classes=300, dim=400)
    assert 0.045 < jnp.abs(params["bias"]).max() <= 0.05
    _, _, params, _ = build(Cosine, SHALEV, num_classes=300, dim=400)
    assert set(params) == {"kernel", "bias"} and (params["bias"] == 0.01).all()
    np.testing.assert_allclose(jnp.linalg.norm(params["kernel"], axis=0), 1, atol=1e-6)
    _, _, params, rest = build(Cosine, SHALEV | {"fixed": True})
    assert not params and set(rest["fixed"]) == {"kernel"}


@pytest.mark.parametrize("fixed", [False, True])
def test_random_integers_are_those_of_the_frame(fixed, monkeypatch):
    options = dict(kernel_init="random_integers", fixed=fixed)
    draw = partial(jax.random.randint, minval=1, maxval=2)
    monkeypatch.setattr(jax.random, "randint", lambda rng, shape, *_: draw(rng, shape))
    _, _, params, rest = build(CosFace, options)
    kernel = rest["fixed"]["kernel"] if fixed else params["kernel"]
    np.testing.assert_allclose(kernel, 8**-0.5, atol=1e-6)


@pytest.mark.parametrize("form", ["softplus", "learned", "constant"])
@pytest.mark.parametrize("scale", [1.0001, 1.5, 20.0, 2000.0])
def test_init_scale(form, scale):
    head, features, params, _ = build(Cosine, dict(scale_form=form, init_scale=scale))
    unit = Cosine(5, scale_form="constant").apply({"params": params}, features)
    np.testing.assert_allclose(head.apply({"params": params}, features), scale * unit, rtol=1e-5)
    assert set(params) - {"kernel"} == {"softplus": {"raw_scale"}, "learned": {"scale"}}.get(
        form, set()
    )


def test_cosines_take_all_bits_of_float32_on_any_device():
    head, features, params, _ = build(Cosine, {})
    program = jax.make_jaxpr(head.apply)({"params": params}, features)
    products = [each for each in program.jaxpr.eqns if each.primitive.name == "dot_general"]
    assert {each.params["precision"] for each in products} == {(jax.lax.Precision.HIGHEST,) * 2}


# The contract.


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_contract(kind, options):
    head, features, params, rest = build(kind, options)
    variables = {"params": params, **rest}
    logits = head.apply(variables, features)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    tolerance = 2e-6 * max(1, jnp.abs(logits).max())
    np.testing.assert_allclose(jax.jit(head.apply)(variables, features), logits, atol=tolerance)
    if hasattr(head, "training_logits"):
        labels = jnp.array([4, 0, 2])
        in_training = head.training_logits(logits, labels)
        has_margin = logits[jnp.arange(3), labels] > 0 if "easy_margin" in options else True
        assert (in_training <= logits).all()
        assert ((in_training < logits).sum(1) == has_margin).all()
        jitted = jax.jit(head.training_logits)(logits, labels)
        np.testing.assert_allclose(jitted, in_training, atol=tolerance)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert ("kernel" in params) != options["fixed"]
    assert ("kernel" in rest.get("fixed", {})) == options["fixed"]
    head.check_capacity(1)


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_class_vectors(kind, options):
    """Without a bias the logits are in the order of the cosines with the class vectors."""
    head, features, params, rest = build(kind, options)
    variables = {"params": params, **rest}
    vectors = head.class_vectors(variables, 8)
    stored = rest["fixed"] if options["fixed"] else params
    np.testing.assert_array_equal(vectors, stored["kernel"])
    jitted = jax.jit(head.class_vectors, static_argnums=1)(variables, 8)
    np.testing.assert_array_equal(jitted, vectors)
    if options.get("bias_form"):
        head = head.clone(bias_form="none")
    logits = head.apply(variables, features)
    x, y = np.asarray(features, np.float64), np.asarray(vectors, np.float64)
    cosines = x @ y / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=0)[None]
    np.testing.assert_array_equal(np.argsort(logits, axis=None), np.argsort(cosines, axis=None))


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_zero_features_and_class_vectors_give_finite_logits_and_gradients(kind, options):
    head, features, params, rest = build(kind, options)
    assert_finite(loss_and_grads(params, head, rest, jnp.zeros_like(features)))
    zeros = jax.tree.map(jnp.zeros_like, (params, rest))
    assert_finite(loss_and_grads(zeros[0], head, zeros[1], features))


@pytest.mark.parametrize("kind", [TVMF, ArcFace])
def test_one_class(kind):
    head, features, params, rest = build(kind, {}, num_classes=1)
    assert head.apply({"params": params}, features).shape == (3, 1)
    value, grads = loss_and_grads(params, head, rest, features)
    for leaf in jax.tree.leaves((value, grads)):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


@pytest.mark.parametrize("kind, options", FIXED)
def test_fixed_class_vectors_survive_adamw_with_decay(kind, options):
    head, features, params, rest = build(kind, options)
    before, start = np.array(rest["fixed"]["kernel"]), params
    tx = optax.adamw(0.1, weight_decay=0.5)
    state = tx.init(params)
    for _ in range(2):
        _, (grads, _) = loss_and_grads(params, head, rest, features)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert "kernel" not in grads and set(grads) == set(start)
    _, updated = head.apply({"params": params, **rest}, features, mutable=["fixed"])
    np.testing.assert_array_equal(updated["fixed"]["kernel"], before)
    other = head.init(jax.random.key(9), features)["fixed"]["kernel"]
    assert not np.array_equal(other, before)
    assert all((params[key] != start[key]).any() for key in start)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (Cosine, dict(kernel_init="x"), "unknown kernel_init 'x'; known: uniform, random_integers"),
        (
            Cosine,
            dict(scale_form="x"),
            "unknown scale_form 'x'; known: softplus, learned, constant",
        ),
        (TVMF, dict(bias_form="x"), "unknown bias_form 'x'; known: none, inside, outside"),
        (Cosine, dict(init_scale=1.0), "init_scale must be finite and > 1 .*'softplus', got 1.0"),
        (
            Cosine,
            dict(scale_form="learned", init_scale=0.0),
            "init_scale must be .* > 0 .* got 0.0",
        ),
        (
            TVMF,
            dict(scale_form="constant", init_scale=-1.0),
            "init_scale must be .* > 0 .* got -1.0",
        ),
        (Cosine, dict(scale_form="constant", init_scale=math.nan), "init_scale must be .* got nan"),
        (TVMF, dict(kappa=-0.5), "kappa must be finite and > -0.5, got -0.5"),
        (Cosine, dict(kappa=-3.0), "kappa must be finite and > -0.5, got -3.0"),
        (TVMF, dict(kappa=math.inf), "kappa must be finite and > -0.5, got inf"),
        (CosFace, dict(kernel_init="x"), "unknown kernel_init 'x'"),
        (CosFace, dict(scale=0.0), "CosFace needs a finite scale > 0, got 0.0"),
        (ArcFace, dict(scale=-64.0), "ArcFace needs a finite scale > 0, got -64.0"),
        (ArcFace, dict(scale=math.inf), "ArcFace needs a finite scale > 0, got inf"),
        (CosFace, dict(margin=-0.1), r"CosFace needs a margin in \[0, 2\], got -0.1"),
        (CosFace, dict(margin=2.1), r"CosFace needs a margin in \[0, 2\], got 2.1"),
        (ArcFace, dict(margin=28.6), r"ArcFace needs a margin in \[0, 1.571\], got 28.6"),
        (ArcFace, dict(margin=math.nan), r"ArcFace needs a margin in \[0, 1.571\], got nan"),
    ],
)
def test_bad_options_raise_at_construction(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(3, **options)
