"""Clustering scores against the specification, scikit-learn and a search over all assignments."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as oracle

from fixed_head_jax.evaluators import clustering
from fixed_head_jax.evaluators.clustering import (
    agreement_metrics,
    assign_clusters,
    clustering_scores,
    contingency_matrix,
    contingency_sums,
    expand_contingency,
    usage_metrics,
    usage_sums,
)

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
E1 = np.array([1, 1, 0, 0, 0, 0, 2, 2, 2, 1])
E2 = np.array([4, 4, 0, 0, 0, 3, 2, 2, 1, 1])


@pytest.fixture
def warned(monkeypatch):
    """Lines that are logged as warnings."""
    lines = []
    monkeypatch.setattr(
        clustering.logging, "warning", lambda line, *values: lines.append(line % values)
    )
    return lines


@pytest.mark.parametrize(
    "predictions, expected, assignment",
    [
        (E1, (0.61806565, 0.47728999, 0.43181818, 0.8), [1, 0, 2]),
        (E2, (0.67871602, 0.44224087, 0.32432432, 0.9), [1, 2, 2, 1, 0]),
    ],
)
def test_worked_numbers(predictions, expected, assignment):
    scores = clustering_scores(predictions, LABELS)
    assert list(scores) == ["nmi", "ami", "ari", "acc"]
    np.testing.assert_allclose(list(scores.values()), expected, rtol=0, atol=5e-9)
    assert assign_clusters(contingency_matrix(predictions, LABELS)).tolist() == assignment


def test_equals_sklearn_on_uneven_data():
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 400, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    predictions = np.where(rng.random(400) < 0.6, (labels * 3 + 2) % 7, rng.integers(0, 11, 400))
    scores = clustering_scores(predictions, labels)
    for name, score in (
        ("nmi", oracle.normalized_mutual_info_score),
        ("ami", oracle.adjusted_mutual_info_score),
        ("ari", oracle.adjusted_rand_score),
    ):
        assert scores[name] == pytest.approx(score(labels, predictions), rel=0, abs=1e-12)
    assert 0.3 < scores["nmi"] < 0.8


@pytest.mark.parametrize("seed", range(8))
def test_accuracy_is_the_best_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    # No more clusters than labels, so that the assignment is one to one.
    labels = np.concatenate([np.arange(6), rng.choice(6, 40, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])])
    predictions = rng.choice(5, 46, p=[0.1, 0.5, 0.2, 0.1, 0.1])
    best = max(
        np.mean(np.array(order)[predictions] == labels)
        for order in itertools.permutations(range(6))
    )
    assert clustering_scores(predictions, labels)["acc"] == pytest.approx(best, abs=1e-12)


def test_clusters_left_over_take_their_majority():
    # Label 1 does not occur. Cluster 4 has no members and keeps what the Hungarian step gave it.
    contingency = np.zeros((5, 3))
    contingency[[0, 1, 2, 2, 3], [0, 0, 2, 0, 2]] = [5, 3, 4, 1, 2]
    assigned = assign_clusters(contingency)
    assert assigned[:4].tolist() == [0, 0, 2, 2]
    assert assigned[4] in (1, 3, 4)
    predictions, labels = expand_contingency(contingency)
    assert clustering_scores(predictions, labels)["acc"] == pytest.approx(14 / 15)


def test_as_many_clusters_as_labels_stay_one_to_one():
    # Two clusters, two labels: the smaller cluster may not share label 0, though it would gain.
    contingency = np.array([[6, 1], [4, 0]])
    assert assign_clusters(contingency).tolist() in ([0, 1], [1, 0])
    assert clustering_scores(*expand_contingency(contingency))["acc"] == pytest.approx(6 / 11)


def test_fewer_clusters_than_labels():
    contingency = np.array([[1, 0, 7, 0], [2, 5, 6, 0]])
    assert assign_clusters(contingency).tolist() == [2, 1]


def test_takes_lists_and_jax_arrays():
    scores = clustering_scores(E2, LABELS)
    assert clustering_scores(E2.tolist(), LABELS.tolist()) == scores
    assert clustering_scores(jnp.asarray(E2), jnp.asarray(LABELS)) == scores


def test_more_clusters_than_half_of_the_examples_is_no_warning():
    scores = clustering_scores(np.arange(40), np.arange(40) % 3)
    assert scores["acc"] == 1 and scores["ari"] == 0


@pytest.mark.parametrize(
    "predictions, labels, message",
    [
        ([], [], "predictions is empty"),
        ([0, 1], [], "labels is empty"),
        ([0, 1], [0, 1, 2], "2 predictions and 3 labels"),
        ([0, 1], [0, -1], "labels contains -1"),
        ([-2, 1], [0, 1], "predictions contains -2"),
        (np.array([0.5, 1.0]), [0, 1], "predictions has dtype float64"),
    ],
)
def test_scores_refuse(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        clustering_scores(predictions, labels)


def test_assignment_refuses_a_matrix_without_labels():
    with pytest.raises(ValueError, match=r"shape \(3, 0\)"):
        assign_clusters(np.zeros((3, 0)))


def test_sums_count_each_example_once_and_no_padding():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, 6)).astype(np.float32)
    labels, mask = rng.integers(0, 4, 50).astype(np.int32), np.ones(50, np.float32)
    logits[5, 2] = logits[5, 4] = 9  # a tie
    mask[[3, 20, 49]] = 0
    logits[3], logits[49] = np.nan, np.inf
    labels[3], labels[20] = -1, 1000
    kept = mask > 0
    expected = np.zeros((6, 4))
    np.add.at(expected, (logits[kept].argmax(1), labels[kept]), 1)
    total = 0
    for part in (slice(0, 20), slice(20, 50)):
        batch = (jnp.asarray(array[part]) for array in (logits, labels, mask))
        sums = jax.jit(contingency_sums, static_argnums=3)(*batch, 4)
        assert list(sums) == ["contingency"] and sums["contingency"].dtype == jnp.float32
        total += np.asarray(sums["contingency"], np.float64)
    np.testing.assert_array_equal(total, expected)
    whole = contingency_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask), 4)
    np.testing.assert_array_equal(whole["contingency"], expected)


def test_expanding_a_matrix_gives_it_back():
    rng = np.random.default_rng(2)
    contingency = rng.integers(0, 4, (5, 5))
    contingency[4, 4] = 1
    again = contingency_matrix(*expand_contingency(contingency.astype(np.float64)))
    np.testing.assert_array_equal(again, contingency)


def used(members):
    """Returns the sums of examples that are surely of a class each."""
    members = np.array(members, np.float64)
    return {"members": members, "probability": members, "entropy": np.zeros(())}


def test_usage_is_summed_over_what_is_no_padding():
    rng = np.random.default_rng(4)
    logits, mask = rng.normal(size=(30, 5)).astype(np.float32), np.ones(30, np.float32)
    mask[[2, 29]], logits[2], logits[29] = 0, np.nan, np.inf
    kept = special.softmax(logits[mask > 0].astype(np.float64) / 0.1, axis=1)
    sums = jax.jit(usage_sums, static_argnums=2)(logits, mask, 0.1)
    np.testing.assert_array_equal(sums["members"], np.bincount(kept.argmax(1), minlength=5))
    np.testing.assert_allclose(sums["probability"], kept.sum(0), rtol=1e-5)
    np.testing.assert_allclose(sums["entropy"], stats.entropy(kept, axis=1).sum(), rtol=1e-5)
    # What the class says of the image is what the image says of the class.
    told = stats.entropy(kept, kept.mean(0)[None], axis=1).mean() / np.log(5)
    assert usage_metrics(sums)["information"] == pytest.approx(100 * told, rel=1e-5)


def test_images_that_look_alike_tell_nothing():
    sums = usage_sums(jnp.tile(jnp.array([1.0, 2.0, 0.5]), (9, 1)), jnp.ones(9), 0.1)
    assert usage_metrics(sums)["information"] == pytest.approx(0, abs=1e-4)


def test_metrics_are_percent_with_diagnostics(warned):
    contingency = np.zeros((5, 3))
    np.add.at(contingency, (E2, LABELS), 1)
    scores = agreement_metrics({"contingency": contingency})
    for name, score in clustering_scores(E2, LABELS).items():
        assert scores[name] == pytest.approx(100 * score, rel=1e-12)
    metrics = usage_metrics(used(contingency.sum(1)))
    shares = np.array([3, 2, 2, 1, 2]) / 10
    entropy = -(shares * np.log(shares)).sum() / np.log(5)
    diagnostics = {"used_classes": 5, "class_entropy": entropy, "largest_class": 30, "examples": 10}
    assert {name: metrics[name] for name in diagnostics} == pytest.approx(diagnostics, rel=1e-12)
    assert all(type(value) is float for value in {**scores, **metrics}.values())
    assert not warned


def test_even_use_has_entropy_one(warned):
    metrics = usage_metrics(used([6] * 8))
    assert metrics["information"] == pytest.approx(100)  # each image is surely of its class
    assert metrics["class_entropy"] == pytest.approx(1)
    assert metrics["largest_class"] == pytest.approx(12.5)
    assert not warned


@pytest.mark.parametrize(
    "sizes, text",
    [
        ([0, 60, 0, 0], "1 of 4 used, the largest has 100.0% of 60 examples, class entropy 0.000"),
        ([970, 0, 0, 30] + [0] * 6, "2 of 10 used, the largest has 97.0% of 1000 examples"),
        ([30, 30] + [0] * 998, "2 of 1000 used, the largest has 50.0% of 60"),
    ],
)
def test_collapse_is_reported(warned, sizes, text):
    usage_metrics(used(sizes))
    assert len(warned) == 1
    assert warned[0].startswith("The classes have collapsed: ") and text in warned[0]


@pytest.mark.parametrize("sizes", [[1, 0], [500], [10] * 10 + [0] * 990, [600, 200, 200]])
def test_what_is_no_collapse(warned, sizes):
    usage_metrics(used(sizes))
    assert not warned


def test_metrics_need_an_example():
    with pytest.raises(ValueError, match="empty"):
        agreement_metrics({"contingency": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="empty"):
        usage_metrics(used([0, 0]))


@pytest.mark.slow
def test_imagenet_takes_seconds():
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(1000), 50)
    predictions = np.where(rng.random(50_000) < 0.4, labels, rng.integers(0, 1000, 50_000))
    contingency = contingency_matrix(predictions, labels).astype(np.float64)
    start = time.monotonic()
    scores = agreement_metrics({"contingency": contingency})
    assert time.monotonic() - start < 30
    assert 40 <= scores["acc"] < 42
