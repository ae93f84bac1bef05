"""k-means: the settings of the specification, what it is fitted to, and its seed."""

import numpy as np
import pytest
from sklearn import cluster
from sklearn.metrics import adjusted_rand_score

from fixed_head_jax.evaluators.kmeans import kmeans_clusters


def make_blobs(size, seed, spread=0.1):
    """Returns features around three points at unequal distances, and which point."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size)
    centers = np.array([[0, 0, 1], [3, 1, 0], [-2, 5, 0]])
    noise = spread * rng.standard_normal((size, 3))
    return (centers[labels] + noise).astype(np.float32), labels


def test_finds_blobs_in_features_it_was_not_fitted_to():
    train, _ = make_blobs(60, 0)
    features, labels = make_blobs(41, 1)
    clusters = kmeans_clusters(train, features, 3)
    assert clusters.shape == (41,) and set(clusters) == {0, 1, 2}
    assert adjusted_rand_score(labels, clusters) == 1


def test_features_are_not_scaled_to_unit_norm():
    lengths = np.array([1, 1.1, 1.2, 9, 9.1, 9.2], np.float32)
    features = lengths[:, None] * np.array([[0.6, 0.8]], np.float32)
    assert adjusted_rand_score([0, 0, 0, 1, 1, 1], kmeans_clusters(features, features, 2)) == 1


def test_equals_the_defaults_of_the_source():
    train, _ = make_blobs(80, 2, spread=2.0)
    features, _ = make_blobs(30, 3, spread=2.0)
    peer = cluster.KMeans(6, n_init=10, random_state=5).fit(train.astype(np.float64))
    expected = peer.predict(features.astype(np.float64))
    np.testing.assert_array_equal(kmeans_clusters(train, features, 6, seed=5), expected)


def test_settings(monkeypatch):
    seen, original = {}, cluster.KMeans

    class Spy(original):
        def fit(self, features):
            seen.update(self.get_params(), dtype=features.dtype)
            return super().fit(features)

    monkeypatch.setattr(cluster, "KMeans", Spy)
    kmeans_clusters(*[make_blobs(20, 0)[0]] * 2, num_clusters=3, seed=4)
    expected = {"init": "k-means++", "n_init": 10, "max_iter": 300, "tol": 1e-4}
    expected |= {"n_clusters": 3, "random_state": 4, "dtype": np.float64}
    assert expected.items() <= seen.items()


def test_same_seed_same_clusters():
    train, _ = make_blobs(50, 0, spread=3.0)
    first, second = (kmeans_clusters(train, train, 8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("num_clusters", [0, 11])
def test_errors(num_clusters):
    train, _ = make_blobs(10, 0)
    with pytest.raises(ValueError, match=f"num_clusters {num_clusters} has to be 1 to 10"):
        kmeans_clusters(train, train, num_clusters)
