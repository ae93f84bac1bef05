"""kNN against numpy, the vector of the specification, and the memory that ImageNet would take."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.evaluators import knn
from fixed_head_jax.evaluators.knn import add_votes, knn_accuracy


def brute_force(bank, bank_labels, queries, labels, num_classes, ks, temperature=0.1):
    """Returns the accuracies by stable sorts of all similarities, in float64."""
    bank, queries = (np.asarray(array, np.float64) for array in (bank, queries))
    bank, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
    similarities, metrics = queries @ bank.T, {}
    nearest = np.argsort(-similarities, axis=1, kind="stable")
    for k in ks:
        ranks = []
        for row, order, label in zip(similarities, nearest[:, :k], labels, strict=True):
            totals = np.zeros(num_classes)
            np.add.at(totals, bank_labels[order], np.exp(row[order] / temperature))
            ranks.append(list(np.argsort(-totals, kind="stable")).index(label))
        metrics[f"knn_{k}"] = 100 * np.mean(np.array(ranks) < 1)
        metrics[f"knn_{k}_top5"] = 100 * np.mean(np.array(ranks) < 5)
    return metrics


def make_clusters(bank_size=203, num_queries=61, dim=9, num_classes=8):
    """Returns overlapping clusters of unequal size, none at the origin."""
    rng = np.random.default_rng(0)
    centers = 0.3 + rng.standard_normal((num_classes, dim))
    arrays = []
    for size in (bank_size, num_queries):
        labels = (num_classes * rng.random(size) ** 2).astype(np.int64)
        noise = 1.5 * rng.standard_normal((size, dim))
        scales = rng.uniform(0.1, 30, (size, 1))
        arrays += [(scales * (centers[labels] + noise)).astype(np.float32), labels]
    return arrays


@pytest.mark.parametrize("bank_block, query_block", [(203, 61), (64, 7), (9, 1000)])
def test_equals_brute_force_at_any_block_size(bank_block, query_block):
    data = make_clusters()
    ks = (1, 5, 20, 203)
    expected = brute_force(*data, 8, ks)
    assert 20 < expected["knn_5"] < 90 and expected["knn_5"] < expected["knn_5_top5"] < 100
    blocks = {"bank_block": bank_block, "query_block": query_block}
    assert knn_accuracy(*data, 8, ks, **blocks) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.05, 100.0])
def test_temperature(temperature):
    data, ks = make_clusters(), (30, 203)
    expected = brute_force(*data, 8, ks, temperature)
    assert knn_accuracy(*data, 8, ks, temperature) == pytest.approx(expected)


@pytest.mark.parametrize("bank_block", [5, 96])
def test_ties_go_to_the_lower_index(bank_block):
    # Four entries of +-1 of eight make norms of 2: every similarity is exact, few differ.
    rng = np.random.default_rng(1)
    features = np.zeros((160, 8), np.float32)
    for row in features:
        row[rng.permutation(8)[:4]] = rng.choice((-1, 1), 4)
    features[40:60] = features[20:40]
    labels = rng.integers(0, 7, 160)
    data = (features[:96], labels[:96], features[96:], labels[96:])
    ks = (1, 2, 3, 10, 50)
    result = knn_accuracy(*data, 7, ks, bank_block=bank_block, query_block=30)
    assert result == pytest.approx(brute_force(*data, 7, ks))
    # The same pairs in another order have other neighbours: the ties are real.
    turned = (data[0][::-1], data[1][::-1], *data[2:])
    assert brute_force(*turned, 7, ks) != brute_force(*data, 7, ks)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_bank_of_another_type(dtype):
    bank, *rest = make_clusters()
    bank = bank.astype(dtype)
    expected = brute_force(bank, *rest, 8, (3, 40))
    assert knn_accuracy(bank, *rest, 8, (3, 40), bank_block=64) == pytest.approx(expected)


def test_padding_is_no_neighbour():
    # Every similarity is negative: zeros would be nearer, and vote for the class of the last row.
    bank = -np.ones((5, 3), np.float32) - np.eye(5, 3, dtype=np.float32)
    labels = np.array([1, 1, 1, 2, 0])
    queries, truth = np.ones((3, 3), np.float32), np.array([1, 1, 2])
    result = knn_accuracy(bank, labels, queries, truth, 3, (5,), bank_block=3, query_block=2)
    assert result == pytest.approx({"knn_5": 200 / 3, "knn_5_top5": 100.0})


def test_zero_features_are_as_near_as_any():
    bank = np.array([[0, 0], [-1, 0], [0, 2]], np.float32)
    arguments = bank, np.array([0, 1, 2]), np.array([[3, 0]], np.float32), np.array([0]), 3
    assert knn_accuracy(*arguments, (1, 3)) == pytest.approx(
        {"knn_1": 100.0, "knn_1_top5": 100.0, "knn_3": 100.0, "knn_3_top5": 100.0}
    )


def test_small_temperature_still_ranks():
    # exp((s - 1) / T) would be 0 for every neighbour; the nearest decides.
    bank, labels = np.array([[1, 1], [-1, 1], [-1, 1]], np.float32), np.array([1, 0, 0])
    queries = np.array([[1, -0.9]], np.float32)
    result = knn_accuracy(bank, labels, queries, np.array([1]), 2, (3,), temperature=1e-4)
    assert result["knn_3"] == 100.0


def test_votes_of_the_specification():
    bank = np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8]])
    similarities = bank @ np.array([0.6, 0.8])
    order = np.argsort(-similarities)
    np.testing.assert_allclose(similarities, [0.6, 0.96, 0.8, 0.28])
    weights = jnp.exp(jnp.asarray(similarities[order][None, :], jnp.float32) / 0.1)
    sorted_labels = jnp.asarray(np.array([0, 1, 1, 2])[order][None, :])
    expected = {
        1: (0, 14764.78, 0),
        2: (0, 17745.74, 0),
        3: (403.43, 17745.74, 0),
        4: (403.43, 17745.74, 16.4446),
    }
    for k, numbers in expected.items():
        result = add_votes(jnp.zeros((1, 3)), weights[:, :k], sorted_labels[:, :k])
        np.testing.assert_allclose(result[0], numbers, rtol=2e-5)


def test_ks_above_the_bank_are_left_out():
    data = make_clusters(bank_size=50)
    names = [f"knn_{k}{top}" for k, top in itertools.product((10, 20), ("", "_top5"))]
    assert list(knn_accuracy(*data, 8)) == names
    with pytest.raises(ValueError, match="has 50 images; pass a k up to that"):
        knn_accuracy(*data, 8, ks=(100, 51))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ks": ()}, "ks"),
        ({"ks": (0, 5)}, "at least 1"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"bank_block": 0}, "bank_block 0"),
        ({"num_classes": 7}, "bank_labels 0 to 7"),
        ({"labels": np.full(61, -1)}, "labels -1 to -1"),
        ({"labels": np.zeros(0, int), "queries": np.zeros((0, 9), np.float32)}, "0 for 0"),
        ({"queries": np.full((61, 9), np.nan, np.float32)}, "queries has NaN"),
        ({"bank": np.full((203, 9), np.inf, np.float16)}, "bank has NaN or infinity from row 0"),
    ],
)
def test_errors(changes, message):
    names = ("bank", "bank_labels", "queries", "labels")
    arguments = dict(zip(names, make_clusters(), strict=True)) | {"num_classes": 8}
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**arguments | changes)


def test_labels_of_another_length():
    with pytest.raises(ValueError, match="labels: 60 for 61 features"):
        knn._check_labels("labels", np.zeros(60, int), 61, num_classes=8)


def test_compiles_once():
    data = make_clusters(bank_size=211, num_queries=43, dim=5)
    before = knn._update._cache_size()
    for _ in range(2):
        knn_accuracy(*data, 8, (7,), bank_block=30, query_block=10)
    assert knn._update._cache_size() == before + 1


def test_imagenet_fits_in_memory():
    shape = jax.ShapeDtypeStruct
    queries, k = -(-50_000 // 4096), 200
    state = shape((queries, 4096, k), jnp.float32), shape((queries, 4096, k), jnp.int32)
    features = shape((queries, 4096, 2048), jnp.float32), shape((16384, 2048), jnp.float32)
    memory = knn._update.lower(state, *features, 0, 1_281_167).compile().memory_analysis()
    total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    next_block = 16384 * 2048 * 4
    assert total + next_block < 1.6e9
