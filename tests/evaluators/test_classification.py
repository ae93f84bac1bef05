"""Sums and metrics of the classification evaluator against scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from fixed_head_jax.evaluators import classification_metrics, classification_sums


def test_metrics_match_scikit_learn_and_padding_does_not_count():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(41, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 41).astype(np.int32)
    mask = np.ones(41, np.float32)
    mask[[3, 40]] = 0
    logits[40] = np.nan
    sums = classification_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask))
    metrics = classification_metrics({key: float(value) for key, value in sums.items()})
    kept, classes = mask > 0, range(7)
    probabilities = np.exp(logits[kept].astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    top = {k: 100 * top_k_accuracy_score(labels[kept], logits[kept], k=k, labels=classes)
           for k in (1, 5)}  # fmt: skip
    assert metrics["accuracy"] == pytest.approx(top[1])
    assert metrics["top5_accuracy"] == pytest.approx(top[5])
    loss = log_loss(labels[kept], probabilities, labels=classes)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["examples"] == 39


def test_ties_are_broken_as_argmax_breaks_them():
    logits, mask = jnp.zeros((2, 3)), jnp.ones(2)
    sums = classification_sums(logits, jnp.asarray([0, 1], jnp.int32), mask)
    assert sums["correct"] == 1


def test_a_model_that_diverged_is_never_right():
    logits = jnp.array([[jnp.nan] * 6, [0, 1, 2, 3, 4, jnp.nan], [5, 0, 0, 0, 0, jnp.nan]])
    sums = classification_sums(logits, jnp.asarray([0, 5, 0], jnp.int32), jnp.ones(3))
    assert sums["correct"] == 0 and sums["correct_top5"] == 1
