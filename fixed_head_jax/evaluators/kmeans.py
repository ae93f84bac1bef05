"""k-means clusters of features: the baseline for classes that are learned without labels."""

import numpy as np
from jaxtyping import Int, Real


def kmeans_clusters(
    train_features: Real[np.ndarray, "m d"],
    features: Real[np.ndarray, "n d"],
    num_clusters: int,
    seed: int = 0,
) -> Int[np.ndarray, " n"]:
    """Fits k-means to training features and assigns others to the nearest centre.

    The features are taken as they are, not scaled to unit norm, in float64. k-means++ chooses the
    start; the best of 10 restarts counts, each of at most 300 iterations, ended by a tolerance of
    1e-4.

    Args:
        train_features: to find the centres in; the source takes a tenth of the training images.
        features: to assign.
        num_clusters: at most as many as training features.
        seed: of the restarts; the source has none.

    Returns:
        For each of `features` a cluster, 0 to num_clusters - 1.

    Raises:
        ValueError: if there are more clusters than training features, or features are not finite.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, released code: the settings of
    scikit-learn, written out here.
    """
    from sklearn.cluster import KMeans  # seconds to import, and only this needs it

    if not 1 <= num_clusters <= len(train_features):
        raise ValueError(
            f"num_clusters {num_clusters} has to be 1 to {len(train_features)}, the number of "
            "training features"
        )
    model = KMeans(
        num_clusters, init="k-means++", n_init=10, max_iter=300, tol=1e-4, random_state=seed
    )
    model.fit(np.asarray(train_features, np.float64))
    return model.predict(np.asarray(features, np.float64))
