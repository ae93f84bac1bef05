"""Neural collapse in two streaming passes against the formulas on all features at once."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.evaluators import neural_collapse
from fixed_head_jax.evaluators.neural_collapse import (
    class_geometry,
    collapse_metrics,
    collapse_sums,
)
from fixed_head_jax.evaluators.sums import class_sums

FIRST, SECOND = jax.jit(class_sums, static_argnums=3), jax.jit(collapse_sums)
MEASURES = 9


def measure(features, logits, labels, kernel, batch_size=16, others=None):
    """Runs both passes over padded batches; the second over `others` if given."""
    num_classes = kernel.shape[1]

    def batches(*arrays):
        for start in range(0, len(arrays[0]), batch_size):
            parts = [array[start : start + batch_size] for array in arrays]
            missing = batch_size - len(parts[0])
            mask = np.float32([1] * len(parts[0]) + [0] * missing)
            # Padding may hold anything.
            rest = [np.full((missing, *part.shape[1:]), np.nan) for part in parts[:-1]]
            parts = [*map(np.concatenate, zip(parts[:-1], rest, strict=True)), parts[-1]]
            parts[-1] = np.concatenate([parts[-1], np.zeros(missing)])
            parts = [np.float32(part) for part in parts[:-1]] + [np.int32(parts[-1])]
            yield *map(jnp.asarray, parts), jnp.asarray(mask)

    def add(all_sums):
        return jax.tree.map(lambda *sums: sum(np.asarray(x, np.float64) for x in sums), *all_sums)

    first = add([FIRST(*batch, num_classes) for batch in batches(features, labels)])
    geometry = class_geometry(first)
    others = others or (features, logits, labels)
    second = add([SECOND(*batch, geometry) for batch in batches(*others)])
    return collapse_metrics(geometry, second, np.asarray(kernel))


def reference(features, logits, labels, kernel):
    """Computes the measures from the definitions, with both covariance matrices."""
    features = np.asarray(features, np.float64)
    present = np.unique(labels)
    count = len(present)
    means = np.stack([features[labels == label].mean(0) for label in present])
    residuals = features - means[np.searchsorted(present, labels)]
    deviations = means - means.mean(0)
    within = residuals.T @ residuals / len(features)
    between = deviations.T @ deviations / count
    inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    result = {"nc1_within_over_between": np.trace(within @ inverse) / count}
    vectors = np.asarray(kernel, np.float64).T[present]
    pairs = ~np.eye(count, dtype=bool)
    for name, rows in (("means", deviations), ("kernel", vectors)):
        norms = np.linalg.norm(rows, axis=1)
        cosines = (rows @ rows.T / np.outer(norms, norms))[pairs]
        result[f"nc2_norm_variation_{name}"] = norms.std() / norms.mean()
        result[f"nc2_angle_variation_{name}"] = cosines.std()
        result[f"nc2_simplex_deviation_{name}"] = np.abs(cosines + 1 / (count - 1)).mean()
    difference = vectors / np.linalg.norm(vectors) - deviations / np.linalg.norm(deviations)
    result["nc3_kernel_to_means"] = np.linalg.norm(difference) ** 2
    distances = np.linalg.norm(features[:, None] - means[None], axis=2)
    nearest = present[distances.argmin(1)]
    result["nc4_nearest_mean_mismatch"] = (nearest != logits.argmax(1)).mean()
    return result


def made_up(dim, num_classes, absent=(), seed=0):
    """Draws classes of unequal sizes, means and spreads far from the origin, and a classifier."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 30, num_classes)
    sizes[list(absent)] = 0
    labels = rng.permutation(np.repeat(np.arange(num_classes), sizes))
    means = 3 + rng.normal(size=(num_classes, dim)) * rng.uniform(0.5, 2, (num_classes, 1))
    spread = rng.normal(size=(dim, dim)) * 0.3
    features = np.float32(means[labels] + rng.normal(size=(len(labels), dim)) @ spread)
    kernel = np.float32(means.T + 0.7 * rng.normal(size=(dim, num_classes)))
    logits = (features - 3) @ kernel - 0.4 * np.square(kernel).sum(0)
    return features, logits, labels, kernel


@pytest.mark.parametrize(
    "dim, num_classes, absent", [(12, 5, ()), (4, 9, ()), (6, 7, (2, 6)), (3, 2, ())]
)
def test_measures_match_the_definitions(dim, num_classes, absent):
    features, logits, labels, kernel = made_up(dim, num_classes, absent)
    expected = reference(features, logits, labels, kernel)
    assert len(expected) == MEASURES
    if num_classes > 2:
        assert 0.02 < expected["nc4_nearest_mean_mismatch"] < 0.98
    for batch_size in (16, 1000):
        result = measure(features, logits, labels, kernel, batch_size)
        assert result == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_many_classes_are_compared_in_parts(rows, monkeypatch):
    features, logits, labels, kernel = made_up(4, 9)
    expected = measure(features, logits, labels, kernel)
    monkeypatch.setattr(neural_collapse, "_ROWS", rows)
    assert measure(features, logits, labels, kernel) == pytest.approx(expected, rel=1e-12)


def simplex(num_classes, dim, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dim, num_classes)))[0]
    return basis - basis.mean(1, keepdims=True)  # columns of equal norm, cosines -1 / (K - 1)


def test_a_simplex_has_collapsed():
    kernel = simplex(6, 11)
    labels = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 40])
    features = 7 * kernel.T[labels] + np.linspace(0, 2, 11)
    result = measure(features, features @ kernel, labels, kernel)
    assert len(result) == MEASURES
    assert all(0 <= value < 1e-6 for value in result.values()), result
    assert result["nc1_within_over_between"] < 1e-12 and result["nc3_kernel_to_means"] < 1e-12


def test_small_spread_is_measured_where_moments_would_cancel():
    kernel = simplex(6, 11)
    labels = np.tile(np.arange(6), 50)
    noise = 1e-3 * np.random.default_rng(1).normal(size=(300, 11))
    features = np.float32(kernel.T[labels] + noise + 30)
    expected = reference(features, features @ kernel, labels, kernel)
    result = measure(features, features @ kernel, labels, kernel)
    assert expected["nc1_within_over_between"] < 1e-4
    measured = result["nc1_within_over_between"]
    assert measured == pytest.approx(expected["nc1_within_over_between"], rel=1e-3)


def test_measures_are_apart():
    kernel = simplex(5, 8)
    labels = np.repeat(np.arange(5), 4)
    features, kernels = kernel.T[labels], {"turned": -kernel, "longer": kernel * np.arange(1, 6)}
    turned = measure(features, features @ -kernel, labels, kernels["turned"])
    assert turned["nc3_kernel_to_means"] == pytest.approx(4)
    assert turned["nc4_nearest_mean_mismatch"] == 1
    assert turned["nc2_simplex_deviation_kernel"] < 1e-6
    longer = measure(features, features @ kernel, labels, kernels["longer"])
    assert longer["nc2_norm_variation_kernel"] == pytest.approx(2**0.5 / 3)
    assert longer["nc2_norm_variation_means"] < 1e-6
    assert longer["nc2_angle_variation_kernel"] < 1e-6
    orthonormal = measure(features, features @ kernel, labels, np.eye(8, 5))
    assert orthonormal["nc2_simplex_deviation_kernel"] == pytest.approx(0.25)
    assert orthonormal["nc2_angle_variation_kernel"] == 0


def test_the_second_pass_may_read_another_split():
    features, logits, labels, kernel = made_up(6, 5, absent=(3,))
    others = made_up(6, 5, seed=7)[:3]
    result = measure(features, logits, labels, kernel, others=others)
    means = np.stack([features[labels == label].mean(0, np.float64) for label in (0, 1, 2, 4)])
    distances = np.linalg.norm(others[0][:, None] - means[None], axis=2)
    nearest = np.array([0, 1, 2, 4])[distances.argmin(1)]
    mismatch = (nearest != others[1].argmax(1)).mean()
    assert result["nc4_nearest_mean_mismatch"] == pytest.approx(mismatch)
    deviations = means - means.mean(0)
    known = others[2] != 3
    residuals = others[0][known] - means[np.searchsorted([0, 1, 2, 4], others[2][known])]
    spread = np.square(residuals @ np.linalg.pinv(deviations)).sum(1).mean()
    assert result["nc1_within_over_between"] == pytest.approx(spread, rel=1e-4)


def test_sums_add_up_over_devices():
    features, logits, labels, kernel = made_up(12, 5)
    labels, mask = np.int32(labels[:32]), np.ones(32, np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    split, whole = jax.P("data"), jax.P()

    def step(features, labels, mask):
        return jax.lax.psum(class_sums(features, labels, mask, 5), "data")

    step = jax.shard_map(step, mesh=mesh, in_specs=(split, split, split), out_specs=whole)
    arrays = [jnp.asarray(array) for array in (features[:32], labels, mask)]
    expected = FIRST(*arrays, 5)
    for key, value in jax.jit(step)(*arrays).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-5)


@pytest.mark.parametrize("case", ["one class", "means coincide", "nothing learned"])
def test_what_is_not_defined_is_nan(case):
    kernel = np.eye(3, 4)
    sizes = [0, 4, 0, 0] if case == "one class" else [1, 3, 7, 11]  # means differ by rounding
    labels = np.repeat(np.arange(4), sizes)
    features = np.tile(np.float32([[0.1, 0.2, 0.7]]), (len(labels), 1))
    if case == "nothing learned":
        features *= 0
    result = measure(features, features @ kernel, labels, kernel)
    defined = {key for key, value in result.items() if not math.isnan(value)}
    of_kernel = {f"nc2_{name}_kernel" for name in
                 ("norm_variation", "angle_variation", "simplex_deviation")}  # fmt: skip
    expected = {"nc4_nearest_mean_mismatch"} | (set() if case == "one class" else of_kernel)
    assert defined == expected


def test_no_examples():
    sums = {"examples": np.zeros(3), "features": np.zeros((3, 2))}
    with pytest.raises(ValueError, match="at least one example; the split holds none"):
        class_geometry(sums)
