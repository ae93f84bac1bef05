"""Polytopes without a matrix, projected, stored and scaled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.heads import fixed, frames
from fixed_head_jax.heads.polytope import Cube, Orthoplex, Simplex, SimplexETF
from tests.heads.examples import CODES, build

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
