"""What the policies draw, and that they do what they drew."""

import hashlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fixed_head_jax.augment import autoaugment, operations, policies
from fixed_head_jax.augment.autoaugment import AUTOAUGMENT
from fixed_head_jax.augment.operations import OPERATIONS

HEIGHT, WIDTH = 6, 5
FILL = (124, 116, 104)
SLOW = pytest.mark.slow
FACTORS = ("brightness", "contrast", "color", "sharpness")


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_images(count, channels=3):
    shape = (count, HEIGHT, WIDTH, channels)
    return jnp.asarray(np.random.default_rng(1).integers(0, 256, shape), jnp.uint8)


@cache
def drawn(name):
    """Returns what a policy draws for 20000 images, as numpy arrays [20000, turns]."""
    draw, _ = policies.parse_policy(name, as_published=False)

    def draw_one(rng):
        # 11 is the policies' own constant, see `color`.
        return draw(jax.random.fold_in(rng, 11), HEIGHT, WIDTH)

    return jax.device_get(jax.jit(jax.vmap(draw_one))(make_rngs(20000)))


def randaugment_strengths(magnitude, sign=1.0, is_increasing=True, as_published=True):
    """Returns the strengths by operation, for images of 100 x 200 pixels."""
    arrays = jnp.full(1, magnitude), jnp.full(1, sign)
    table = policies.randaugment_strengths(*arrays, 100, 200, is_increasing, as_published)
    return dict(zip(OPERATIONS, np.asarray(table)[:, 0], strict=True))


def is_even(indices, kinds):
    counts = np.bincount(np.asarray(indices).ravel(), minlength=kinds)
    return len(counts) == kinds and stats.chisquare(counts).pvalue > 0.001


# RandAugment


@pytest.mark.parametrize(
    "magnitude, degrees, bits, threshold, added, factors, shear, translate",
    [
        (0.0, 0, 4, 256, 0, (1, 1), 0, 0),
        (5.0, 15, 2, 128, 55, (1.45, 0.55), 0.15, 0.225),
        (8.0, 24, 1, 52, 88, (1.72, 0.28), 0.24, 0.36),
        (9.0, 27, 1, 26, 99, (1.81, 0.19), 0.27, 0.405),
        (9.5, 28.5, 1, 13, 104, (1.855, 0.145), 0.285, 0.4275),
        (10.0, 30, 0, 0, 110, (1.9, 0.1), 0.3, 0.45),
    ],
)
def test_randaugment_levels_of_the_specification(
    magnitude, degrees, bits, threshold, added, factors, shear, translate
):
    for sign, factor in zip((1.0, -1.0), factors, strict=True):
        expected = {
            **dict.fromkeys(("identity", "auto_contrast", "equalize", "invert"), 0.0),
            **dict.fromkeys(FACTORS, factor),
            **dict.fromkeys(("shear_x", "shear_y"), sign * shear),
            "rotate": sign * degrees,
            "translate_x": sign * translate * 200,
            "translate_y": sign * translate * 100,
            "posterize": bits,
            "solarize": threshold,
            "solarize_add": added,
        }
        assert randaugment_strengths(magnitude, sign) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "magnitude, bits, threshold, factor",
    [(0.0, 0, 0, 0.1), (5.0, 2, 128, 1.0), (9.0, 3, 230, 1.72)],
)
def test_plain_randaugment_levels(magnitude, bits, threshold, factor):
    expected = {
        **randaugment_strengths(magnitude, -1.0),
        **dict.fromkeys(FACTORS, factor),
        "posterize": bits,
        "solarize": threshold,
    }
    strengths = randaugment_strengths(magnitude, -1.0, is_increasing=False)
    assert strengths == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("is_increasing, magnitude", [(True, 10.0), (False, 2.0)])
def test_posterize_keeps_a_bit_but_as_published(is_increasing, magnitude):
    for as_published, bits in ((True, 0), (False, 1)):
        strengths = randaugment_strengths(magnitude, 1.0, is_increasing, as_published)
        assert strengths["posterize"] == bits


def test_randaugment_draws_evenly_and_independently():
    operation, strength, method = drawn("rand-m9-mstd0.5-inc1")
    assert operation.shape == (20000, 2)
    applied = operation > 0
    assert abs(applied.mean() - 0.5) < 0.01  # 4 standard deviations of 40000
    assert is_even(operation[applied] - 1, 15)
    assert abs(method.mean() - 0.5) < 0.01
    rotations = strength[operation == OPERATIONS.index("rotate")]
    assert abs((rotations > 0).mean() - 0.5) < 0.055  # 4 standard deviations of 1330
    columns = [leaf[:, turn] for leaf in (applied, method) for turn in range(2)]
    correlations = np.corrcoef(np.asarray(columns, float)) - np.eye(4)
    assert np.abs(correlations).max() < 0.028  # 4 standard deviations
    pairs = operation[applied.all(1)] - 1
    assert is_even(pairs @ [15, 1], 225)


def test_randaugment_magnitudes_are_clipped_normal():
    operation, strength, _ = drawn("rand-m9-mstd0.5-inc1")
    magnitudes = np.abs(strength[operation == OPERATIONS.index("shear_x")]) / 0.03
    assert magnitudes.max() == pytest.approx(10, rel=1e-6)
    is_clipped = magnitudes > 10 - 1e-4
    assert abs(is_clipped.mean() - 0.0228) < 0.016  # 4 standard deviations of 1330
    below = stats.truncnorm(-18, 2, 9, 0.5)
    assert stats.kstest(magnitudes[~is_clipped], below.cdf).pvalue > 0.001


@SLOW
def test_weighted_randaugment_draws_without_replacement():
    operation, strength, _ = drawn("rand-m7-w0")
    both = (operation > 0).all(1)
    assert (operation[both, 0] != operation[both, 1]).all()
    rotations = strength[operation == OPERATIONS.index("rotate")]
    np.testing.assert_allclose(np.abs(rotations), 21.0, rtol=1e-6)  # without deviation
    weights = np.asarray([policies.WEIGHTS.get(name, 0.0) for name in OPERATIONS[1:]])
    assert weights.sum() == pytest.approx(1)
    # The second is one of the others, by the weights that are left.
    odds = weights / (1 - weights)
    for turn, shares in enumerate((weights, weights * (odds.sum() - odds))):
        counts = np.bincount(operation[:, turn], minlength=16)[1:]
        assert not counts[shares == 0].any()
        counts, shares = counts[shares > 0], shares[shares > 0]
        assert stats.chisquare(counts, counts.sum() * shares).pvalue > 0.001


# AutoAugment and TrivialAugment


def test_autoaugment_tables():
    for subpolicies in AUTOAUGMENT.values():
        turns = [turn for subpolicy in subpolicies for turn in subpolicy]
        assert len(subpolicies) == 25 and len(turns) == 50
        assert all(name in OPERATIONS and 0 <= p <= 1 and m in range(10) for name, p, m in turns)
    # Of tables that were compared, entry by entry, with those of the paper and of torchvision.
    digests = {
        dataset: hashlib.sha256(repr(subpolicies).encode()).hexdigest()[:16]
        for dataset, subpolicies in AUTOAUGMENT.items()
    }
    assert digests == {
        "imagenet": "3e1eb359bddebdd1",
        "cifar10": "6688a1aba6973fef",
        "svhn": "e5c4e652866cdacc",
    }
    first = {dataset: subpolicies[0] for dataset, subpolicies in AUTOAUGMENT.items()}
    assert first == {
        "imagenet": (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        "cifar10": (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        "svhn": (("shear_x", 0.9, 4), ("invert", 0.2, 0)),
    }


@pytest.mark.parametrize(
    "dataset", ["imagenet", *(pytest.param(name, marks=SLOW) for name in ("cifar10", "svhn"))]
)
def test_autoaugment_draws_its_subpolicies_evenly(dataset):
    expected = np.zeros((16, 16))
    for subpolicy in AUTOAUGMENT[dataset]:
        either = np.zeros((2, 16))
        for turn, (name, probability, _) in enumerate(subpolicy):
            either[turn, OPERATIONS.index(name)] += probability
            either[turn, 0] += 1 - probability
        expected += np.outer(*either) / 25
    draws = drawn(f"autoaugment-{dataset}")
    assert draws.operation.shape == (20000, 2) and not draws.method.any()
    counts = np.bincount(draws.operation @ [16, 1], minlength=256)
    expected = expected.ravel()
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], 20000 * expected[expected > 0]
    assert stats.chisquare(counts, expected).pvalue > 0.001


def distinct(draws, name):
    """Returns the distinct strengths drawn for an operation, as distances from leaving as is."""
    strengths = draws.strength[draws.operation == OPERATIONS.index(name)]
    signs = np.sign(strengths - (name in FACTORS))
    assert abs(signs.mean()) < 0.3 or name in ("posterize", "solarize")
    return np.unique(np.round(np.abs(strengths - (name in FACTORS)), 4))


def test_autoaugment_magnitudes():
    height, width = 331, 662
    names = (*FACTORS, "shear_x", "shear_y", "rotate", "translate_x", "translate_y", "posterize",
             "solarize")  # fmt: skip
    subpolicies = [((name, 1.0, m), (name, 1.0, m)) for name in names for m in range(10)]

    def draw(rng):
        return autoaugment.draw_autoaugment(rng, height, width, subpolicies)

    draws = jax.device_get(jax.jit(jax.vmap(draw))(make_rngs(3000)))
    bins = np.arange(10)
    expected = {
        **dict.fromkeys(FACTORS, 0.1 * bins),
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 / 9 * bins),
        "rotate": 30 / 9 * bins,
        "translate_x": 300 * bins // 9,
        "translate_y": 150 * bins // 9,
        "posterize": [4, 5, 6, 7, 8],
        "solarize": 255 - 255 / 9 * bins[::-1],
    }
    for name, strengths in expected.items():
        np.testing.assert_allclose(distinct(draws, name), strengths, atol=1e-4)


def test_trivialaugment_draws_evenly_from_its_wide_ranges():
    draws = drawn("trivial-wide")
    assert draws.operation.shape == (20000, 1) and not draws.method.any()
    names = [name for name in OPERATIONS if name not in ("invert", "solarize_add")]
    indices = [OPERATIONS.index(name) for name in names]
    assert np.isin(draws.operation, indices).all()
    assert is_even(np.searchsorted(indices, draws.operation), 14)
    bins = np.arange(31)
    expected = {
        **dict.fromkeys(FACTORS, 0.033 * bins),
        **dict.fromkeys(("shear_x", "shear_y"), 0.033 * bins),
        **dict.fromkeys(("translate_x", "translate_y"), np.unique(32 * bins // 30)),
        "rotate": 4.5 * bins,
        "posterize": [2, 3, 4, 5, 6, 7, 8],
        "solarize": 8.5 * bins,
    }
    for name, strengths in expected.items():
        np.testing.assert_allclose(distinct(draws, name), strengths, atol=1e-4)
    rotations = draws.strength[draws.operation == OPERATIONS.index("rotate")]
    assert is_even(np.round(np.abs(rotations) / 4.5).astype(int), 31)


# The policies


@pytest.mark.parametrize(
    "name, backend, fill",
    [
        ("rand-m9-mstd0.5-inc1", "cpu", FILL),
        pytest.param("autoaugment-svhn", "cpu", (7,), marks=SLOW),
        pytest.param("trivial-wide", "cpu", FILL, marks=SLOW),
        pytest.param("rand-m9-mstd0.5-inc1", "gpu", FILL, marks=SLOW),
        pytest.param("autoaugment-cifar10", "gpu", (7,), marks=SLOW),
    ],
)
def test_policies_do_what_they_drew_in_order(name, backend, fill, monkeypatch):
    rngs, images = make_rngs(20000)[:16], make_images(16, len(fill))
    _, methods = policies.parse_policy(name, as_published=False)
    draws = drawn(name)
    apply = jax.jit(operations.apply, static_argnums=(2, 3))
    expected = list(images)
    for i in range(16):
        for turn in range(draws.operation.shape[1]):
            draw = operations.Draw(*(jnp.asarray(leaf[i, turn]) for leaf in draws))
            expected[i] = apply(expected[i], draw, methods, fill)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)  # one by one, or side by side
    policy = jax.jit(policies.make_policy(name, fill))
    out = policy(rngs, images)
    assert out.dtype == jnp.uint8
    np.testing.assert_array_equal(out, expected)
    # An example's change is its own, wherever it stands.
    np.testing.assert_array_equal(policy(rngs[::-1], images[::-1]), out[::-1])


@pytest.mark.parametrize(
    "name, settings",
    [
        ("rand", (10, 2, 0.0, False, False)),
        ("rand-m9-mstd0.5-inc1", (9, 2, 0.5, True, False)),
        ("rand-inc1-n3-m10-mstd1-w0", (10, 3, 1.0, True, True)),
    ],
)
def test_randaugment_names(name, settings):
    assert policies.parse_randaugment(name) == settings


@pytest.mark.parametrize(
    "name",
    [
        "randaugment", "rand-", "rand-m11", "rand-m9-m8", "rand-n0", "rand-mstd", "rand-mstd0.",
        "rand-inc0", "rand-w1", "rand-p1", "rand m9", "Rand-m9", "autoaugment", "autoaugment-v0",
        "trivial", "trivial-wide-2", "",
    ],
)  # fmt: skip
def test_rejects_unknown_policies(name):
    with pytest.raises(ValueError, match=f"^augment.policy={name!r} is not known; use trivial"):
        policies.make_policy(name, FILL)


@pytest.mark.parametrize("fill", [(), (1, 2), (1, 2, 256), (-1,)])
def test_rejects_fills(fill):
    with pytest.raises(ValueError, match="fill must be one or three levels in 0 ... 255"):
        policies.make_policy("trivial-wide", fill)


@pytest.mark.parametrize("fill, channels", [(FILL, 1), ((0,), 4), (FILL, 4)])
def test_rejects_other_channels(fill, channels):
    policy = policies.make_policy("trivial-wide", fill)
    with pytest.raises(ValueError, match=f"augment.policy='trivial-wide' .* got {channels}"):
        policy(make_rngs(1), make_images(1, channels))
