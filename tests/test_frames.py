"""Class-vector constructions against their defining properties and the specification's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from fixed_head_jax.heads import frames

RNG = jax.random.key(3)
H8 = "++++++++ +-+-+-+- ++--++-- +--++--+ ++++---- +-+--+-+ ++----++ +--+-++-"


def hadamard(dim, num_classes):
    return np.asarray(frames.hadamard(None, dim, num_classes))


def cosines(frame):
    unit = np.asarray(frame, np.float64)
    unit = unit / np.linalg.norm(unit, axis=0)
    return (unit.T @ unit)[~np.eye(unit.shape[1], dtype=bool)]


def test_hadamard_8_rows():
    expected = [[1 if sign == "+" else -1 for sign in row] for row in H8.split()]
    np.testing.assert_array_equal(hadamard(8, 8).T, expected)


@pytest.mark.parametrize("dim, num_classes", [(3, 2), (4, 4), (6, 9), (64, 100), (100, 37)])
def test_hadamard_is_the_truncated_recursion(dim, num_classes):
    order = 1 << (max(dim, num_classes) - 1).bit_length()
    expected = scipy.linalg.hadamard(order)[:num_classes, :dim].T
    np.testing.assert_array_equal(hadamard(dim, num_classes), expected)


@pytest.mark.parametrize(
    "dim, num_classes, distinct",
    [(3, 8, 4), (5, 16, 8), (6, 8, 8), (64, 100, 64), (342, 600, 512), (512, 1000, 512)],
)
def test_hadamard_distinct_columns(dim, num_classes, distinct):
    kernel = hadamard(dim, num_classes)
    capacity = frames.hadamard_capacity(dim)
    assert len(np.unique(kernel, axis=1).T) == distinct == min(capacity, num_classes)
    repeated = np.arange(num_classes) % capacity
    np.testing.assert_array_equal(kernel, kernel[:, repeated])


@pytest.mark.parametrize("dim, capacity", [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_hadamard_capacity(dim, capacity):
    assert frames.hadamard_capacity(dim) == capacity


def test_hadamard_is_orthogonal_only_with_every_column():
    np.testing.assert_array_equal(hadamard(64, 20).T @ hadamard(64, 20), 64 * np.eye(20))
    assert np.abs(cosines(hadamard(342, 100))).max() == pytest.approx(42 / 342, abs=1e-12)
    assert cosines(hadamard(3, 2)) == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("dim, num_classes", [(64, 10), (10, 64), (32, 32), (5, 1)])
def test_orthogonal(dim, num_classes):
    kernel = np.asarray(frames.orthogonal(RNG, dim, num_classes), np.float64)
    assert kernel.shape == (dim, num_classes)
    gram = kernel.T @ kernel if num_classes <= dim else kernel @ kernel.T
    np.testing.assert_allclose(gram, np.eye(min(dim, num_classes)), atol=1e-5)
    assert (kernel**2).sum() / num_classes == pytest.approx(min(1, dim / num_classes), abs=1e-5)


def test_orthogonal_sign_convention():
    """kernel = Q with a positive diagonal in R, so R = kernel.T @ normals recovers it."""
    kernel = frames.orthogonal(RNG, 12, 5)
    r = kernel.T @ jax.random.normal(RNG, (12, 5))
    assert (jnp.diagonal(r) > 0).all()
    np.testing.assert_allclose(np.tril(r, -1), 0, atol=1e-5)


def test_orthogonal_columns_stay_distinct_beyond_the_dimension():
    kernel = np.asarray(frames.orthogonal(RNG, 8, 40))
    distances = np.linalg.norm(kernel[:, :, None] - kernel[:, None, :], axis=0)
    assert distances[~np.eye(40, dtype=bool)].min() > 0.05


def test_random_integers():
    kernel = np.asarray(frames.random_integers(RNG, 4608, 100), np.float64)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6)
    off_diagonal = cosines(kernel)
    assert abs(off_diagonal.mean()) < 1e-3
    assert off_diagonal.std() == pytest.approx(4608**-0.5, rel=0.03)
    # The largest cosine that a non-negative feature vector can reach.
    positive_part = np.linalg.norm(np.maximum(kernel, 0), axis=0)
    assert positive_part.mean() == pytest.approx(0.701784, abs=0.003)
    assert positive_part.std() == pytest.approx(0.007, abs=0.002)


def test_random_integers_are_integers_below_100():
    """Entries are -100..99, their mean -0.5, before each column is divided by its norm."""
    kernel = np.asarray(frames.random_integers(RNG, 4608, 20), np.float64)
    smallest = np.array([np.unique(np.abs(column))[1] for column in kernel.T])
    integers = kernel / smallest
    np.testing.assert_allclose(integers, np.round(integers), atol=2e-3)
    assert integers.min() == pytest.approx(-100) and integers.max() == pytest.approx(99)
    assert integers.mean() == pytest.approx(-0.5, abs=4 * 57.7 / 4608**0.5 / 20**0.5)


def test_random_integers_survive_a_zero_column():
    assert np.isfinite(frames.random_integers(RNG, 1, 4000)).all()


def test_identity():
    np.testing.assert_array_equal(frames.identity(None, 5, 3), np.eye(5)[:, :3])
    with pytest.raises(ValueError, match="got 6 classes for 5 features.*out_channels=6"):
        frames.identity(None, 5, 6)


@pytest.mark.parametrize("frame", [frames.random_integers, frames.orthogonal])
def test_draws_depend_on_the_key_only(frame):
    first, again = frame(RNG, 6, 4), frame(RNG, 6, 4)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, frame(jax.random.key(4), 6, 4))
