"""Accuracy by class size and classifiers without training against numpy and worked numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.evaluators import classification_sums
from fixed_head_jax.evaluators.long_tail import (
    ADJUSTMENTS,
    METHODS,
    TAUS,
    adjusted_logits,
    centered_embeddings,
    class_context,
    class_hits,
    decoupling_hits,
    decoupling_metrics,
    embedding_sums,
    feature_mean,
    feature_sums,
    nearest_class_mean_logits,
    shot_metrics,
    tau_normalized_logits,
)

DIM, CLASSES = 6, 5
SIZES = np.array([120, 60, 20, 5, 0])  # one class more than there are training images for
HITS, MEAN = jax.jit(class_hits), jax.jit(feature_sums)
EMBEDDINGS, METHOD_HITS = jax.jit(embedding_sums, static_argnums=4), jax.jit(decoupling_hits)


def f32(*rows):
    return jnp.asarray(rows, jnp.float32)


def split_of(sizes, seed):
    """Draws features and labels of classes of these sizes, away from the origin."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), sizes)).astype(np.int32)
    means = 1 + np.random.default_rng(9).normal(size=(CLASSES, DIM))
    return np.float32(means[labels] + rng.normal(size=(len(labels), DIM))), labels


def model():
    """Returns a kernel and a bias that favour the large classes."""
    rng = np.random.default_rng(9)
    kernel = rng.normal(size=(CLASSES, DIM)).T * np.linspace(3, 0.5, CLASSES)
    return np.float32(kernel), np.float32(np.linspace(2, -4, CLASSES))


def batches(features, labels, size):
    """Cuts a split into batches; the last is padded with NaN and labels of -1."""
    for start in range(0, len(labels), size):
        part = features[start : start + size], labels[start : start + size]
        missing = size - len(part[1])
        yield (
            jnp.concatenate([part[0], np.full((missing, DIM), np.nan, np.float32)]),
            jnp.concatenate([part[1], np.full(missing, -1, np.int32)]),
            jnp.concatenate([np.ones(len(part[1])), np.zeros(missing)]).astype(jnp.float32),
        )


def add(all_sums):
    """Adds what the batches return, as the host does."""
    return jax.tree.map(lambda *sums: sum(np.asarray(x, np.float64) for x in sums), *all_sums)


def run_passes(train, test, kernel, bias, size):
    """Runs the three passes; returns the mean, the context, the last totals and the metrics."""
    first = add([MEAN(features, mask) for features, _, mask in batches(*train, size)])
    mean = feature_mean(first)
    second = add([EMBEDDINGS(*batch, mean, CLASSES) for batch in batches(*train, size)])
    context = class_context(mean, second)
    third = add(
        [METHOD_HITS(batch[0], kernel, batch[0] @ kernel + bias[None, :], *batch[1:], context)
         for batch in batches(*test, size)]
    )  # fmt: skip
    return mean, context, third, decoupling_metrics(third, context.class_counts)


def reference_logits(train, features, kernel, bias):
    """Computes the logits of every method in float64, on all features at once."""
    known, features, kernel = (np.asarray(x, np.float64) for x in (train[0], features, kernel))
    mean = known.mean(0)
    embeddings, others = (
        (x - mean) / np.linalg.norm(x - mean, axis=1, keepdims=True) for x in (known, features)
    )
    distances = np.full((len(features), CLASSES), np.inf)
    for label in np.unique(train[1]):
        center = embeddings[train[1] == label].mean(0)
        distances[:, label] = np.square(others - center).sum(1)
    logits = {"ncm": -distances}
    for step in range(21):
        shorter = kernel / np.linalg.norm(kernel, axis=0) ** (step / 10)
        logits[f"tau_norm_{step // 10}.{step % 10}"] = features @ shorter
    counts = np.maximum(np.bincount(train[1], minlength=CLASSES), 1)
    for tau in (0.5, 1.0, 1.5, 2.0):
        adjusted = features @ kernel + bias - tau * np.log(counts / len(train[1]))
        logits[f"logit_adjustment_{tau}"] = adjusted
    return logits


def reference_metrics(predictions, labels, class_counts):
    """Computes accuracies from predictions, class by class."""
    right = predictions == labels
    groups = {"many": [], "medium": [], "few": []}
    for label in np.unique(labels):
        count = class_counts[label]
        group = "many" if count > 100 else "few" if count < 20 else "medium"
        groups[group].append(100 * right[labels == label].mean())
    metrics = {f"accuracy_{name}": np.mean(values) for name, values in groups.items()}
    balanced = np.mean(sum(groups.values(), []))
    return {"accuracy": 100 * right.mean(), **metrics, "balanced_accuracy": balanced}


def test_hits_match_numpy_and_padding_does_not_count():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 7)).astype(np.float32)
    labels = rng.integers(0, 6, 60).astype(np.int32)  # class 6 has no example
    logits[np.arange(60), labels] += 1
    mask = np.ones(60, np.float32)
    mask[[3, 59]], logits[59], labels[3] = 0, np.nan, -1
    arrays = [jnp.asarray(array) for array in (logits, labels, mask)]
    kept = mask > 0
    right = kept & (logits.argmax(1) == labels)
    assert 10 < right.sum() < 50
    whole = HITS(*arrays)
    np.testing.assert_array_equal(whole["hits"], np.bincount(labels[right], minlength=7))
    np.testing.assert_array_equal(whole["examples"], np.bincount(labels[kept], minlength=7))
    halves = add([HITS(*(x[:30] for x in arrays)), HITS(*(x[30:] for x in arrays))])
    jax.tree.map(np.testing.assert_array_equal, halves, dict(whole))


def test_ties_and_nan_count_as_in_the_accuracy():
    logits = f32([0, 0], [0, 0], [math.nan] * 2, [0, math.nan], [0, math.nan], [1, -math.inf])
    labels, mask = jnp.asarray([0, 1, 0, 0, 1, 0], jnp.int32), jnp.ones(6)
    hits = class_hits(logits, labels, mask)["hits"]
    np.testing.assert_array_equal(hits, [2, 0])
    assert classification_sums(logits, labels, mask)["correct"] == hits.sum()
    assert class_hits(f32([math.nan]), labels[:1], mask[:1])["hits"] == 0


def test_borders_of_the_groups():
    counts = np.array([0, 19, 20, 100, 101, 5000, 7])
    totals = {"hits": np.array([1, 0, 3, 1, 1, 9, 0]), "examples": [2, 1, 4, 2, 4, 10, 0]}
    assert shot_metrics(totals, counts) == pytest.approx(
        {
            "accuracy_few": (50 + 0) / 2,  # the class without evaluation examples is left out
            "accuracy_medium": (75 + 50) / 2,
            "accuracy_many": (25 + 90) / 2,
            "balanced_accuracy": (50 + 0 + 75 + 50 + 25 + 90) / 6,
        }
    )


@pytest.mark.parametrize("examples", [[3, 0], [0, 0]])
def test_an_empty_group_is_nan(examples):
    totals = {"hits": np.minimum(examples, 1), "examples": np.array(examples)}
    metrics = shot_metrics(totals, np.array([50, 300]))
    assert math.isnan(metrics["accuracy_many"]) and math.isnan(metrics["accuracy_few"])
    expected = 100 / 3 if examples[0] else math.nan
    assert metrics["accuracy_medium"] == pytest.approx(expected, nan_ok=True)
    assert metrics["balanced_accuracy"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "tau, expected",
    [(0.0, [11, 4]), (0.5, [4.91934955, 2.82842712]), (1.0, [2.2, 2]), (2.0, [0.44, 1])],
)
def test_tau_normalization_worked_numbers(tau, expected):
    kernel, features = f32([3, 4], [0, 2]).T, f32([1, 2])
    logits = jax.jit(tau_normalized_logits)(features @ kernel, kernel, tau)
    np.testing.assert_allclose(logits, [expected], rtol=1e-6)


def test_tau_normalization_of_a_zero_vector():
    logits = tau_normalized_logits(f32([3, 0]), f32([3, 0], [4, 0]), 2.0)
    np.testing.assert_allclose(logits, [[3 / 25, 0]], rtol=1e-6)


def test_adjustment_worked_numbers():
    # Frequencies 1/2, 1/4, 1/4; the last class has no image and counts as one with one.
    logits = adjusted_logits(f32([1, 0.5, -2]), jnp.asarray([2.0, 1, 0]), 2.0)
    log2 = math.log(2)
    np.testing.assert_allclose(logits, [[1 + 2 * log2, 0.5 + 4 * log2, -2 + 4 * log2]], rtol=1e-6)
    same = adjusted_logits(f32([1, 0.5, -2]), jnp.asarray([2.0, 1, 0]), 0.0)
    np.testing.assert_array_equal(same, f32([1, 0.5, -2]))


def test_nearest_class_mean_worked_numbers():
    embeddings = centered_embeddings(f32([4, 5], [1, 1], [1, -2]), jnp.ones(2))
    np.testing.assert_allclose(embeddings, [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)
    is_present = jnp.asarray([True, False, True])
    logits = nearest_class_mean_logits(embeddings, f32([0, 0.5], [0, 0], [1, 0]), is_present)
    expected = [[-0.45, -np.inf, -0.8], [-0.25, -np.inf, -1], [-2.25, -np.inf, -2]]
    np.testing.assert_allclose(logits, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [150, 1000])
def test_every_method_matches_numpy(size):
    train, test = split_of(SIZES, 0), split_of([90, 110, 300, 250, 80], 1)
    kernel, bias = model()
    mean, context, totals, metrics = run_passes(train, test, kernel, bias, size)
    np.testing.assert_allclose(mean, train[0].mean(0, np.float64), rtol=1e-5)
    np.testing.assert_array_equal(context.class_counts, SIZES)
    assert np.isfinite(context.class_means).all() and not context.class_means[4].any()
    assert totals["hits"].shape == (len(METHODS), CLASSES)
    all_logits = reference_logits(train, test[0], kernel, bias)
    assert set(all_logits) == set(METHODS) and len(all_logits) == 1 + len(TAUS) + len(ADJUSTMENTS)
    expected = {}
    for method, logits in all_logits.items():
        top = np.sort(logits, axis=1)
        assert (top[:, -1] - top[:, -2]).min() > 1e-5  # no prediction that rounding could turn
        values = reference_metrics(logits.argmax(1), test[1], SIZES)
        expected |= {f"{method}/{name}": value for name, value in values.items()}
    assert metrics == pytest.approx(expected)
    assert len({tuple(hits) for hits in totals["hits"]}) == len(METHODS)  # none passes for another


def test_features_of_zero_stay_finite():
    zeros, labels = np.zeros((8, DIM), np.float32), np.arange(8, dtype=np.int32) % CLASSES
    kernel, bias = model()
    mean, context, totals, metrics = run_passes((zeros, labels), (zeros, labels), kernel, bias, 8)
    assert not mean.any() and not context.class_means.any()
    assert np.isfinite(totals["hits"]).all()
    assert metrics["ncm/accuracy"] == 25  # all distances tie: the first class
    assert metrics["ncm/accuracy_few"] == 20 and math.isnan(metrics["ncm/accuracy_many"])


def test_a_model_that_diverged_is_never_right():
    train = split_of(SIZES, 0)
    kernel, bias = model()
    context = run_passes(train, train, kernel, bias, 500)[1]
    broken = jnp.full((4, DIM), jnp.nan)
    logits, labels = jnp.full((4, CLASSES), jnp.nan), jnp.arange(4)
    totals = METHOD_HITS(broken, kernel, logits, labels, jnp.ones(4), context)
    assert totals["hits"].sum() == 0 and totals["examples"].sum() == 4


def test_passes_add_up_over_devices():
    features, labels = split_of([40, 30, 20, 10, 0], 2)
    kernel, bias = model()
    mask = np.float32(np.arange(100) != 7)
    features[7] = np.nan
    mean = np.nan_to_num(features).mean(0)
    sums = EMBEDDINGS(features, labels, mask, mean, CLASSES)
    context = class_context(mean, add([sums]))

    def passes(features, labels, mask):
        logits = features @ kernel + bias[None, :]
        return (
            feature_sums(features, mask),
            embedding_sums(features, labels, mask, jnp.asarray(mean), CLASSES),
            class_hits(logits, labels, mask),
            decoupling_hits(features, jnp.asarray(kernel), logits, labels, mask, context),
        )

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    split = jax.P("data")
    mapped = jax.shard_map(
        lambda *shard: jax.lax.psum(passes(*shard), "data"),
        mesh=mesh, in_specs=(split, split, split), out_specs=jax.P(),
    )  # fmt: skip
    arrays = [jnp.asarray(array) for array in (features, labels, mask)]
    expected, result = jax.jit(passes)(*arrays), jax.jit(mapped)(*arrays)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
                 result, expected)  # fmt: skip


def test_no_examples():
    with pytest.raises(ValueError, match="at least one example; the split holds none"):
        feature_mean({"features": np.zeros(2), "examples": np.zeros(())})
    totals = {"hits": np.zeros((len(METHODS), 2)), "examples": np.zeros(2)}
    metrics = decoupling_metrics(totals, np.array([3.0, 200]))
    assert len(metrics) == 5 * len(METHODS) and all(map(math.isnan, metrics.values()))
