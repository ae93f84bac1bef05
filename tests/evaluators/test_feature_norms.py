"""Norms and largest cosines of right and wrong predictions against the specification and numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.evaluators.feature_norms import feature_norm_metrics, feature_norm_sums


def metrics(*batches):
    """Adds the sums of the batches up and finishes them."""
    step = jax.jit(feature_norm_sums)
    all_sums = [step(*(jnp.asarray(array) for array in batch)) for batch in batches]
    return feature_norm_metrics({key: sum(float(s[key]) for s in all_sums) for key in all_sums[0]})


def test_worked_numbers():
    features = np.array([[3, 4, 0, 0], [1, 2, 2, 4], [0, 0, 5, 12]], np.float32)
    kernel = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [2, -1, 2, 0]], np.float32).T
    logits = features @ kernel + np.array([0.1, -0.2, 0.3], np.float32)
    labels, mask = np.array([1, 2, 1], np.int32), np.ones(3, np.float32)
    result = metrics((features, kernel, logits, labels, mask))
    assert result == pytest.approx(
        {
            "feature_norm_correct": 9.0,
            "feature_norm_wrong": 5.0,
            "largest_cosine_correct": 0.67692308,
            "largest_cosine_wrong": 0.9,
        },
        rel=1e-6,
    )


def test_batches_add_up_and_padding_does_not_count():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 6)).astype(np.float32) * rng.uniform(0.1, 9, (50, 1))
    features = features.astype(np.float32)
    features[7] = 0
    kernel = rng.normal(size=(6, 4)).astype(np.float32)
    logits = rng.normal(size=(50, 4)).astype(np.float32)
    labels, mask = rng.integers(0, 4, 50).astype(np.int32), np.ones(50, np.float32)
    mask[[3, 49]] = 0
    features[3], logits[49], labels[3] = np.nan, np.inf, -1
    kept = mask > 0
    exact = features[kept].astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    cosines = exact @ kernel / np.linalg.norm(kernel, axis=0) / np.maximum(norms, 1e-12)[:, None]
    right = logits[kept].argmax(1) == labels[kept]
    assert 5 < right.sum() < 40
    result = metrics(
        (features[:20], kernel, logits[:20], labels[:20], mask[:20]),
        (features[20:], kernel, logits[20:], labels[20:], mask[20:]),
    )
    for name, group in (("correct", right), ("wrong", ~right)):
        assert result[f"feature_norm_{name}"] == pytest.approx(norms[group].mean(), rel=1e-6)
        largest = cosines.max(1)[group].mean()
        assert result[f"largest_cosine_{name}"] == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("label, empty, full", [(0, "wrong", "correct"), (1, "correct", "wrong")])
def test_an_empty_group_is_nan(label, empty, full):
    batch = np.ones((1, 2)), np.eye(2), np.array([[2.0, 1]]), np.array([label]), np.ones(1)
    result = metrics(tuple(array.astype(np.float32) for array in batch[:3])
                     + (batch[3].astype(np.int32), batch[4].astype(np.float32)))  # fmt: skip
    assert math.isnan(result[f"feature_norm_{empty}"])
    assert math.isnan(result[f"largest_cosine_{empty}"])
    assert result[f"feature_norm_{full}"] == pytest.approx(2**0.5)
    assert result[f"largest_cosine_{full}"] == pytest.approx(0.5**0.5)
