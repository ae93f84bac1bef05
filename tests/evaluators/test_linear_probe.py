"""The linear probe against scikit-learn, and what it may not look at."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fixed_head_jax.evaluators import linear_probe
from fixed_head_jax.evaluators.linear_probe import Probe, linear_probe_accuracy, to_blocks

K, BLOCK = 7, 100  # one shape for most tests: a fit compiles for a second and more


def make_data(size=240, dim=6, seed=0):
    """Returns overlapping clusters of unequal size; dimensions differ in mean and scale."""
    rng = np.random.default_rng(0)
    centers, scales = rng.standard_normal((K, dim)), 10.0 ** np.arange(-2, dim - 2)
    rng = np.random.default_rng(seed)
    labels = (K * rng.random(size) ** 1.5).astype(np.int64)
    noise = 0.7 * rng.standard_normal((size, dim))
    return (scales * (3 + centers[labels] + noise)).astype(np.float32), labels


def zeros(dim=6):
    return Probe(jnp.zeros((dim + 1, K)), jnp.zeros(dim), jnp.ones(dim))


def fit_all(features, labels, strength, block=BLOCK):
    blocks = to_blocks("features", features, labels, K, block)
    return linear_probe.fit(blocks, blocks.labels >= 0, zeros(features.shape[1]), strength, 200)


def standardize(features):
    features = np.asarray(features, np.float64)
    return (features - features.mean(0)) / features.std(0)


@pytest.mark.parametrize("strength", [0.1, 1e-3])
def test_equals_scikit_learn(strength):
    features, labels = make_data()
    peer = LogisticRegression(C=1 / (len(labels) * strength), tol=1e-8, max_iter=10_000)
    peer.fit(standardize(features), labels)
    probe = fit_all(features, labels, strength)
    kernel, bias = np.asarray(probe.weights[:-1]), np.asarray(probe.weights[-1])
    np.testing.assert_allclose(kernel, peer.coef_.T, rtol=1e-3, atol=1e-3)
    # A constant added to all biases changes nothing; neither side fixes it.
    centered = peer.intercept_ - peer.intercept_.mean()
    np.testing.assert_allclose(bias - bias.mean(), centered, atol=1e-3)
    logits = standardize(features) @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = peer.predict_proba(standardize(features))
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


def test_the_bias_is_not_penalised():
    features, labels = make_data()
    probe = fit_all(features, labels, strength=1e4)
    assert np.abs(probe.weights[:-1]).max() < 1e-3
    shares = np.bincount(labels, minlength=K) / len(labels)
    bias = np.asarray(probe.weights[-1])
    np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(), shares, atol=1e-3)


@pytest.mark.parametrize("block, dtype", [(100, np.float32), (7, np.float32), (100, np.float16)])
def test_blocks_add_up(block, dtype):
    features, labels = make_data(dim=4)
    features = features.astype(dtype)
    rng = np.random.default_rng(2)
    weights = jnp.asarray(rng.standard_normal((5, K)), jnp.float32)
    chosen = rng.random(len(labels)) < 0.8

    def pieces(block):
        blocks = to_blocks("features", features, labels, K, block)
        mask = np.zeros(blocks.labels.size, bool)
        mask[: len(labels)] = chosen
        mask = jnp.asarray(mask.reshape(blocks.labels.shape))
        moments = linear_probe._moments(blocks.features, mask)
        probe = Probe(weights, *moments)
        loss, gradient = linear_probe._loss_and_gradient(probe, blocks, mask)
        return *moments, loss, gradient, linear_probe._hits(probe, blocks, mask)

    kept, kept_labels = np.asarray(features[chosen], np.float64), labels[chosen]
    logits = standardize(kept) @ np.asarray(weights[:-1]) + np.asarray(weights[-1])
    log_sums = np.log(np.exp(logits).sum(1))
    rows = np.arange(len(kept))
    own = logits[rows, kept_labels]
    ranks = (logits > own[:, None]).sum(1)
    mean, std, loss, gradient, hits = pieces(block)
    np.testing.assert_allclose(mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, kept.std(0), rtol=1e-5)
    np.testing.assert_allclose(loss, (log_sums - own).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, pieces(240)[3], atol=1e-6)
    assert hits.tolist() == [(ranks < 1).sum(), (ranks < 5).sum()]


def test_refits_on_all_and_measures_the_others():
    train, labels = make_data()
    others, other_labels = make_data(size=101, seed=1)
    result = linear_probe_accuracy(train, labels, others, other_labels, K, (0.01,), block=BLOCK)
    peer = LogisticRegression(C=1 / (len(labels) * 0.01), tol=1e-8, max_iter=10_000)
    peer.fit(standardize(train), labels)
    train = np.asarray(train, np.float64)
    logits = peer.decision_function((others - train.mean(0)) / train.std(0))
    ranks = np.argsort(np.argsort(-logits, axis=1), axis=1)[np.arange(101), other_labels]
    expected = {"probe_accuracy": 100 * np.mean(ranks < 1), "probe_l2": 0.01}
    expected["probe_top5_accuracy"] = 100 * np.mean(ranks < 5)
    assert 30 < expected["probe_accuracy"] < 95
    assert result == pytest.approx(expected)


def spy_on_fits(monkeypatch):
    """Keeps what every fit is given and returns."""
    calls, fit = [], linear_probe.fit

    def spy(train, mask, start, strength, max_steps):
        probe = fit(train, mask, start, strength, max_steps)
        calls.append((np.asarray(mask).ravel(), start, strength, probe))
        return probe

    monkeypatch.setattr(linear_probe, "fit", spy)
    return calls


def test_path_from_strong_to_weak_and_held_out_tenth(monkeypatch):
    calls = spy_on_fits(monkeypatch)
    train, labels = make_data()
    strengths = (1e-3, 1e2, 1e-1)
    result = linear_probe_accuracy(train, labels, train, labels, K, strengths, block=BLOCK)
    assert [strength for *_, strength, _ in calls[:3]] == [1e2, 1e-1, 1e-3]
    # 100 + 100 + 40 examples lie in three blocks of 80, none of them padded.
    assert [mask.sum() for mask, *_ in calls] == [216, 216, 216, 240]
    fitted = calls[0][0]
    assert (fitted == calls[2][0]).all()
    np.testing.assert_allclose(calls[0][3].mean, train[fitted].mean(0), rtol=1e-5)
    for (*_, before), (_, start, *_) in zip(calls[:2], calls[1:3], strict=True):
        assert start is before
    assert result["probe_l2"] in strengths and result["probe_l2"] < 1e2
    assert calls[3][2] == result["probe_l2"]


def test_the_choice_does_not_see_the_evaluated_labels(monkeypatch):
    calls = spy_on_fits(monkeypatch)
    train, labels = make_data()
    others, other_labels = make_data(size=50, seed=1)
    first, second = (
        linear_probe_accuracy(train, labels, others, seen, K, (0.1, 0.001), block=BLOCK)
        for seen in (other_labels, (other_labels + 1) % K)
    )
    assert first["probe_l2"] == second["probe_l2"]
    assert first["probe_accuracy"] != second["probe_accuracy"]
    np.testing.assert_array_equal(calls[2][3].weights, calls[5][3].weights)


def test_the_seed_chooses_the_tenth(monkeypatch):
    calls = spy_on_fits(monkeypatch)
    data = 2 * make_data()
    for seed in (0, 0, 1):
        linear_probe_accuracy(*data, K, (0.1,), max_steps=3, seed=seed, block=BLOCK)
    masks = [mask for mask, *_ in calls[::2]]
    assert (masks[0] == masks[1]).all() and (masks[0] != masks[2]).any()


def test_the_held_out_tenth_chooses(monkeypatch):
    calls, measured, hits = spy_on_fits(monkeypatch), [], linear_probe._hits

    def spy(probe, blocks, mask):
        found = hits(probe, blocks, mask)
        measured.append((np.asarray(mask).ravel(), int(found[0])))
        return found

    monkeypatch.setattr(linear_probe, "_hits", spy)
    data = 2 * make_data()
    result = linear_probe_accuracy(*data, K, (1e2, 1.0, 1e-2), block=BLOCK)
    for (fitted, *_), (held, _) in zip(calls[:3], measured[:3], strict=True):
        np.testing.assert_array_equal(held, ~fitted)
    best = int(np.argmax([count for _, count in measured[:3]]))
    assert result["probe_l2"] == (1e2, 1.0, 1e-2)[best]


def test_equally_good_strengths_leave_the_strongest():
    labels = np.repeat(np.arange(6), 40)
    data = 2 * (10 * np.eye(6, dtype=np.float32)[labels], labels)
    result = linear_probe_accuracy(*data, K, (1e-4, 1e-2, 1e-3), block=BLOCK)
    assert result == {"probe_accuracy": 100, "probe_top5_accuracy": 100, "probe_l2": 1e-2}


def test_constant_dimensions_are_harmless():
    features, labels = make_data()
    features[:, 1], features[:, 4] = 3.7, 0.0
    kept = [0, 2, 3, 5]
    peer = LogisticRegression(C=1 / (len(labels) * 0.01), tol=1e-8, max_iter=10_000)
    peer.fit(standardize(features[:, kept]), labels)
    kernel = np.asarray(fit_all(features, labels, 0.01).weights[:-1])
    np.testing.assert_allclose(kernel[kept], peer.coef_.T, atol=1e-3)
    assert np.abs(kernel[[1, 4]]).max() < 1e-2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"strengths": ()}, "strengths has to be positive"),
        ({"strengths": (0.1, 0.0)}, "strengths has to be positive, not 0.0"),
        ({"max_steps": 0}, "max_steps"),
        ({"block": 0}, "block"),
        ({"num_classes": 5}, "train_features: labels 0 to 6 have to be 0 to 4"),
        ({"labels": np.full(240, 7)}, "features: labels 7 to 7"),
        ({"features": np.full((240, 6), np.nan, np.float32)}, "features have NaN"),
        ({"train_features": np.ones((1, 6), np.float32), "train_labels": np.ones(1, int)}, "1 row"),
        ({"features": np.ones((0, 6), np.float32), "labels": np.ones(0, int)}, "0 rows, 0 labels"),
    ],
)
def test_errors(changes, message):
    features, labels = make_data()
    arguments = {"train_features": features, "train_labels": labels, "num_classes": K}
    arguments |= {"features": features, "labels": labels}
    with pytest.raises(ValueError, match=message):
        linear_probe_accuracy(**arguments | changes)
