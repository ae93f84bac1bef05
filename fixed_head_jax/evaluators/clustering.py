"""Unsupervised classification: how the classes of a head agree with labels that it never saw.

    device  usage_sums         -> how often each class p is predicted, and how surely
            contingency_sums   -> M [P, L]: examples of label l for which the head predicts class p
    host    usage_metrics      -> how evenly the classes are used, and what they tell of an image
            agreement_metrics  -> agreement of classes and labels

A class that is predicted is called a cluster here. Which of the labels it stands for is chosen
after the fact, with all labels of the split at hand (`assign_clusters`): an accuracy found this way
is not that of a classifier that was told its classes.

Source: Amrani, Karlinsky and Bronstein 2022, https://arxiv.org/abs/2103.10994, and its released
code, whose rule for more clusters than labels others have taken over.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, Float32, Int, Shaped
from scipy.special import entr

from fixed_head_jax.evaluators.sums import matmul

# An entropy of this share of ln P is that of P^0.2 equally used classes: 4 of 1000, 1.6 of 10. A
# head that finds ten labels with 1000 classes, and nothing finer, still has 0.33.
COLLAPSED_BELOW = 0.2


def clustering_scores(
    predictions: Shaped[np.ndarray, "_"] | Shaped[Array, "_"] | Sequence[int],
    labels: Shaped[np.ndarray, "_"] | Shaped[Array, "_"] | Sequence[int],
) -> dict[str, float]:
    """Compares predicted clusters with labels: mutual information, Rand index and accuracy.

    Args:
        predictions: cluster of each example, integers from 0; memory grows with the square of
            the largest.
        labels: label of each example, integers from 0.

    Returns:
        Fractions: "nmi", mutual information over the mean of the two entropies, "ami", the same
        corrected for chance, "ari", the Rand index corrected for chance (both can be negative),
        and "acc", the share of examples whose label is the one `assign_clusters` gives to
        their cluster.

    Raises:
        ValueError: without examples, or on different lengths, fractions or negative values.
    """
    # Late: it takes a second to import, and most runs never need it.
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    clusters, classes = _indices("predictions", predictions), _indices("labels", labels)
    counts = contingency_matrix(clusters, classes)
    matched = counts[np.arange(len(counts)), assign_clusters(counts)].sum()
    with warnings.catch_warnings():
        # Many clusters for few examples are a poor result here, not a regression target.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return {
            "nmi": float(normalized_mutual_info_score(classes, clusters)),
            "ami": float(adjusted_mutual_info_score(classes, clusters)),
            "ari": float(adjusted_rand_score(classes, clusters)),
            "acc": float(matched / len(classes)),
        }


def _indices(name, values):
    """Returns the values as int64 after checking that they can be indices."""
    values = np.asarray(values)
    if not values.size:
        raise ValueError(f"{name} is empty; clustering scores need at least one example")
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {values.dtype}; give integers (of logits, the arg-max)")
    if values.min() < 0:
        raise ValueError(f"{name} contains {values.min()}; leave unlabelled examples out")
    return values.astype(np.int64)


def contingency_matrix(
    predictions: Int[np.ndarray, "_"],
    labels: Int[np.ndarray, "_"],
    shape: tuple[int, int] | None = None,
) -> Int[np.ndarray, "p l"]:
    """Counts the examples of each cluster (row) and label (column).

    Args:
        predictions: clusters, from 0.
        labels: as many, from 0.
        shape: (P, L), more than the largest of either; None is a square, one more than the largest
            of both.

    Raises:
        ValueError: on different lengths, or an index outside the shape.
    """
    if len(predictions) != len(labels):
        sizes = f"{len(predictions)} predictions and {len(labels)} labels"
        raise ValueError(f"got {sizes}; give one of each for every example")
    if shape is None:
        shape = (int(max(predictions.max(), labels.max())) + 1,) * 2
    places = np.ravel_multi_index((predictions, labels), shape)
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def assign_clusters(contingency: Shaped[np.ndarray, "p l"]) -> Int[np.ndarray, " p"]:
    """Assigns a label to every cluster so that as many examples as possible match.

    First one to one (Hungarian algorithm) on the matrix, filled up with zeros to a square of size
    S = max(P, L). Then, if more clusters have members than labels occur, each cluster with members
    whose assigned label does not occur takes the most frequent label among its members (the first
    of several) instead, so that several clusters may share a label.

    Args:
        contingency: examples of each cluster (row) and label (column), not negative.

    Returns:
        Indices from 0 to S - 1. Clusters without members keep what the first step gave them; from
        L on an index stands for no label at all.

    Raises:
        ValueError: without a cluster or a label.

    Source: the evaluation code of Amrani et al. 2022; where several assignments match equally
        many examples, which one counts is up to scipy there too.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and only this needs it

    num_clusters, num_labels = contingency.shape
    if not contingency.size:
        raise ValueError(f"contingency has shape {contingency.shape}; give a cluster and a label")
    size = max(num_clusters, num_labels)
    square = np.zeros((size, size))
    square[:num_clusters, :num_labels] = contingency
    assigned = linear_sum_assignment(square.max() - square)[1][:num_clusters]
    has_members, occurs = contingency.sum(1) > 0, square.sum(0) > 0
    if has_members.sum() > occurs.sum():
        left_over = has_members & ~occurs[assigned]
        assigned[left_over] = contingency[left_over].argmax(1)
    return assigned


def contingency_sums(
    logits: Float[Array, "b p"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
    num_classes: int,
) -> dict[str, Float32[Array, "p l"]]:
    """Counts the examples of a batch by predicted class and label.

    Args:
        logits: of any scale; ties go to the first class.
        labels: true classes.
        mask: 0 for padding, which may hold anything.
        num_classes: L, the number of labels; the head may have another number of classes.

    Returns:
        "contingency" [P, L], which adds up over batches and devices.
    """
    valid = (mask > 0).astype(jnp.float32)
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1]) * valid[:, None]
    return {"contingency": matmul(predicted.T, jax.nn.one_hot(labels, num_classes))}


def expand_contingency(
    contingency: Shaped[np.ndarray, "p l"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Lists predictions and labels that have this contingency matrix; they come sorted."""
    counts = np.rint(contingency).astype(np.int64)
    predictions, labels = np.nonzero(counts)
    repeats = counts[predictions, labels]
    return np.repeat(predictions, repeats), np.repeat(labels, repeats)


def usage_sums(
    logits: Float[Array, "b p"], mask: Float[Array, "b"], temperature: float
) -> dict[str, Float32[Array, "..."]]:
    """Sums over a batch how the classes are used, whatever the labels.

    Args:
        logits: before they are divided by the temperature; ties go to the first class.
        mask: 0 for padding, which may hold anything.
        temperature: > 0.

    Returns:
        "members" [P], the examples that each class is predicted for; "probability" [P], the sums of
        the classes' probabilities; "entropy", the sum of the examples' entropies, in nats.
    """
    valid = (mask > 0)[:, None]
    logs = jax.nn.log_softmax(jnp.where(valid, logits.astype(jnp.float32), 0) / temperature)
    members = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1])
    return {
        "members": jnp.sum(members * valid, 0),
        "probability": jnp.sum(jnp.exp(logs) * valid, 0),
        "entropy": -jnp.sum(jnp.exp(logs) * logs * valid),
    }


def agreement_metrics(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Turns the contingency matrix of a split into the scores of `clustering_scores`, in percent.

    Raises:
        ValueError: if the split holds no example.
    """
    scores = clustering_scores(*expand_contingency(sums["contingency"]))
    return {name: 100 * value for name, value in scores.items()}


def usage_metrics(sums: Mapping[str, np.ndarray | np.generic | Array]) -> dict[str, float]:
    """Says how a split uses the classes, and warns of collapse.

    Logs a warning if one class takes all examples, or the classes are used about as unevenly
    (`COLLAPSED_BELOW`): the usual failure of training without labels.

    Args:
        sums: of `usage_sums`, over the whole split.

    Returns:
        "used_classes", the number of classes with examples; "class_entropy", the entropy of the
        shares of the classes over ln P, from 0 (one class) to 1 (all equally used);
        "largest_class", the largest share in percent; "information", what the probabilities tell of
        an image: their mutual information in percent of ln P, 100 if all classes are equally used
        and every image is surely of one, 0 if all images look alike; "examples".

    Raises:
        ValueError: if the split holds no example.

    Source: of the information, Krause, Perona and Gomes 2010, "Discriminative Clustering by
    Regularized Information Maximization".
    """
    members, probability, entropies = (
        np.asarray(sums[name], np.float64) for name in ("members", "probability", "entropy")
    )
    examples = int(members.sum())
    if not examples:
        raise ValueError("the split is empty; the use of classes needs at least one example")
    shares = members / examples
    num_classes, used = len(shares), int((shares > 0).sum())
    most = math.log(num_classes) if num_classes > 1 else 1.0
    entropy = float(entr(shares).sum() / most) if num_classes > 1 else 1.0
    information = (entr(probability / examples).sum() - entropies / examples) / most
    largest = 100 * float(shares.max())
    if num_classes > 1 and examples > 1 and (used == 1 or entropy < COLLAPSED_BELOW):
        logging.warning(
            "The classes have collapsed: %d of %d used, the largest has %.1f%% of %d examples, "
            "class entropy %.3f (0: one class, 1: all equally used)",
            used, num_classes, largest, examples, entropy,
        )  # fmt: skip
    return {
        "used_classes": float(used),
        "class_entropy": entropy,
        "largest_class": largest,
        "information": 100 * float(information),
        "examples": float(examples),
    }
