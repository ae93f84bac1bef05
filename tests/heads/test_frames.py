"""Class-vector constructions against their defining properties and the specification's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from fixed_head_jax.heads import frames
from fixed_head_jax.heads.frames.bits import repeats_earlier

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


# Polytopes.


def gram(frame):
    frame = np.asarray(frame, np.float64)
    return frame.T @ frame


def num_distinct(frame):
    return len(np.unique(np.asarray(frame).T, axis=0))


def signs(rows):
    return np.array([[1 if sign == "+" else -1 for sign in row] for row in rows.split()])


PERNICI_4 = [
    [0.96225045, -0.19245009, -0.19245009],
    [-0.19245009, 0.96225045, -0.19245009],
    [-0.19245009, -0.19245009, 0.96225045],
    [-0.57735027, -0.57735027, -0.57735027],
]
KASARLA_4 = [
    [1, 0, 0],
    [-0.33333333, 0.94280904, 0],
    [-0.33333333, -0.47140452, 0.81649658],
    [-0.33333333, -0.47140452, -0.81649658],
]
ETF_4 = np.eye(4) * (0.86602540 + 0.28867513) - 0.28867513


@pytest.mark.parametrize(
    "frame, expected, logits",
    [
        (frames.simplex, PERNICI_4, [0, 1.15470054, 2.30940108, -3.46410162]),
        (frames.max_separation, KASARLA_4, [1, 1.55228475, 1.17334737, -3.72563212]),
        (frames.max_separation, [[1, 0], [-0.5, 0.86602540], [-0.5, -0.86602540]], None),
        (frames.simplex_etf, ETF_4, [-1.73205081, -0.57735027, 0.57735027, 1.73205081]),
        (
            frames.orthoplex_shuffled,
            [*np.eye(4), [-1, 0, 0, 0], [0, -1, 0, 0]],
            [1, 2, 3, 4, -1, -2],
        ),
        (frames.orthoplex_shuffled, [*np.eye(3), *-np.eye(3)], None),
        (frames.orthoplex, np.kron(np.eye(4)[:3], [[1], [-1]]), [1, -1, 2, -2, 3, -3]),
        (frames.cube, signs("++++ +++- ++-+ ++-- +-++ +-+-") / 2, [5, 1, 2, -2, 3, -1]),
        (frames.cube, signs("+++ ++- +-+ +-- -++ -+- --+ ---") / 3**0.5, None),
    ],
)
def test_worked_numbers(frame, expected, logits):
    num_classes, dim = np.shape(expected)
    kernel = np.asarray(frame(None, dim, num_classes))
    np.testing.assert_allclose(kernel.T, expected, atol=1e-7)
    if logits is not None:
        np.testing.assert_allclose(np.arange(1, dim + 1) @ kernel, logits, atol=1e-6)


SIMPLICES = (frames.simplex, frames.max_separation, frames.simplex_etf)


@pytest.mark.parametrize("frame", SIMPLICES)
@pytest.mark.parametrize("num_classes", [2, 4, 100])
def test_simplex(frame, num_classes):
    kernel = frame(None, num_classes - 1, num_classes)
    others = -1 / (num_classes - 1)
    expected = np.eye(num_classes) * (1 - others) + others
    np.testing.assert_allclose(gram(kernel), expected, atol=1e-6)
    np.testing.assert_allclose(np.sum(kernel, axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("dim, num_classes", [(7, 4), (4, 4), (3, 4), (1, 2)])
def test_simplex_etf_draws_its_orientation(dim, num_classes):
    kernel = np.asarray(frames.simplex_etf(RNG, dim, num_classes))
    upright = frames.simplex_etf(None, dim, num_classes)
    np.testing.assert_allclose(gram(kernel), gram(upright), atol=1e-6)
    assert kernel.shape == upright.shape == (dim, num_classes)
    assert dim == 1 or np.abs(kernel - upright).max() > 0.1


def test_angles():
    def angle(frame, dim, num_classes):
        return np.degrees(np.arccos(cosines(frame(None, dim, num_classes)).max()))

    assert angle(frames.simplex, 9, 10) == pytest.approx(96.379370, abs=1e-4)
    assert angle(frames.max_separation, 999, 1000) == pytest.approx(90.057353, abs=1e-4)
    assert angle(frames.cube, 7, 128) == pytest.approx(44.415309, abs=1e-4)


@pytest.mark.parametrize("frame", [frames.orthoplex, frames.orthoplex_shuffled])
def test_orthoplex_at_its_capacity(frame):
    kernel = frame(None, 5, 10)
    assert num_distinct(kernel) == 10
    assert set(np.unique(gram(kernel))) == {-1, 0, 1}


def test_orthoplex_as_published_repeats_the_negative_vertices():
    kernel = np.asarray(frames.orthoplex_shuffled(None, 4, 13, as_published=True))
    np.testing.assert_array_equal(kernel[:, :8], frames.orthoplex_shuffled(None, 4, 8))
    np.testing.assert_array_equal(kernel[:, 4:8], kernel[:, 8:12])
    np.testing.assert_array_equal(kernel[:, 4], kernel[:, 12])


def test_cube_orders():
    expected = signs("+++ -++ +-+ --+ ++- -+- +-- ---") / 3**0.5
    kernel = frames.cube(None, 3, 8, least_significant_first=True)
    np.testing.assert_allclose(np.transpose(kernel), expected, atol=1e-7)
    wide = np.asarray(frames.cube(None, 64, 100))
    np.testing.assert_array_equal(frames.cube(None, 64, 100, True), wide[::-1])


def test_cube_in_more_dimensions_than_an_integer_has_bits():
    """The worked case of the specification: only the last 7 of 64 features vary."""
    kernel = np.asarray(frames.cube(None, 64, 100))
    assert (kernel[:-7] > 0).all() and num_distinct(kernel) == 100
    off_diagonal = cosines(kernel)
    assert off_diagonal.min() == pytest.approx(0.78125)
    assert off_diagonal.max() == pytest.approx(0.96875)
    assert off_diagonal.mean() == pytest.approx(0.89207, abs=1e-5)
    assert num_distinct(frames.cube(None, 200, 3)) == 3
    np.testing.assert_allclose(frames.cube(None, 4, 1), 0.5)


# Drawn from a permutation of all codes; with some repeats to draw again; with none.
@pytest.mark.parametrize("dim, num_classes", [(7, 100), (10, 700), (10, 256), (64, 100), (200, 50)])
def test_cube_random(dim, num_classes):
    draw = jax.jit(frames.cube_random, static_argnums=(1, 2))
    kernel = np.asarray(draw(RNG, dim, num_classes))
    assert kernel.shape == (dim, num_classes) and num_distinct(kernel) == num_classes
    np.testing.assert_allclose(np.abs(kernel), dim**-0.5, rtol=1e-6)
    assert abs((kernel > 0).mean() - 0.5) < 4 * (dim * num_classes) ** -0.5
    if dim == 64:
        again = frames.cube_random(RNG, dim, num_classes)
        np.testing.assert_array_equal(np.sign(again), np.sign(kernel))


def test_repeated_codes_are_found():
    codes = np.random.default_rng(0).random((6, 70)) < 0.5
    codes[2], codes[5], codes[4] = codes[0], codes[0], codes[1]
    codes[4, 63] ^= True
    expected = [False, False, True, False, False, True]
    np.testing.assert_array_equal(repeats_earlier(jnp.array(codes)), expected)


@pytest.mark.parametrize("dim, num_classes", [(1, 2), (3, 8), (5, 32), (8, 256), (64, 300)])
def test_hadamard_distinct(dim, num_classes):
    kernel = np.asarray(frames.hadamard_distinct(None, dim, num_classes))
    assert num_distinct(kernel) == num_classes
    assert set(np.unique(kernel)) <= {-1, 1}
    capacity = frames.hadamard_capacity(dim)
    expected = scipy.linalg.hadamard(capacity)[:dim]
    np.testing.assert_array_equal(kernel[:, :capacity], expected)


def test_hadamard_distinct_is_a_rotated_orthoplex_first():
    kernel = np.asarray(frames.hadamard_distinct(None, 64, 100))
    np.testing.assert_array_equal(kernel[:, 64:], -kernel[:, :36])
    assert set(np.unique(cosines(kernel))) == {-1, 0}


@pytest.mark.parametrize(
    "frame, dim, num_classes, message",
    [
        (frames.orthoplex, 4, 9, "num_classes <= 8.*num_classes=9 for dim=4; give it dim=5"),
        (frames.orthoplex_shuffled, 4, 9, "orthoplex needs.*give it dim=5"),
        (frames.cube, 3, 9, "num_classes <= 8.*num_classes=9 for dim=3; give it dim=4"),
        (frames.cube_random, 3, 9, "cube needs.*give it dim=4"),
        (frames.hadamard_distinct, 3, 9, "cube needs.*give it dim=4"),
        (frames.simplex, 3, 5, "dim = num_classes - 1.*give it dim=4 .*project=True"),
        (frames.simplex, 5, 5, "dim = num_classes - 1.*give it dim=4 "),
        (frames.max_separation, 4, 4, "dim = num_classes - 1.*give it dim=3 "),
        (frames.simplex_etf, 3, 5, "dim >= num_classes - 1.*give it dim=4 .*orthogonal"),
        (frames.simplex, 0, 1, "num_classes >= 2, got num_classes=1"),
        (frames.simplex_etf, 4, 1, "num_classes >= 2, got num_classes=1"),
    ],
)
def test_capacity(frame, dim, num_classes, message):
    with pytest.raises(ValueError, match=message):
        frame(RNG, dim, num_classes)


DRAWN = (frames.random_integers, frames.orthogonal, frames.simplex_etf, frames.cube_random)


@pytest.mark.parametrize("frame", DRAWN)
def test_draws_depend_on_the_key_only(frame):
    first, again = frame(RNG, 6, 4), frame(RNG, 6, 4)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, frame(jax.random.key(4), 6, 4))
