"""Long-tailed recognition: accuracy by class size, and classifiers that need no training.

`class_hits` and `shot_metrics` measure any model. The three passes compare, on the features h of a
model trained as usual (stage 1), classifiers that are less biased to large classes. With class
vectors w_k, own logits z_k and n_k training images in class k, class k scores

    ncm                  -|e - m_k|^2, e = (h - g) / |h - g|: g is the mean of all training
                         features, m_k the mean of e over the training images of the class
    tau_norm_T           w_k . h / |w_k|^T, without bias, T = 0, 0.1, ..., 2
    logit_adjustment_T   z_k - T log(n_k / n), n = sum of n_k, T = 0.5, 1, 1.5, 2

    1 train  feature_sums                  -> feature_mean   -> g
    2 train  embedding_sums (needs g)      -> class_context  -> g, m_k, n_k
    3 eval   decoupling_hits (needs them)  -> decoupling_metrics

The best T has to be chosen on a split held out for it: a table of all T on the test split that
reports the largest is optimistic. Nothing here chooses.

Source: NCM and tau-normalisation, Kang et al. 2020, https://arxiv.org/abs/1910.09217 (released
code: "cl2n" features); post-hoc logit adjustment, Menon et al. 2021,
https://arxiv.org/abs/2007.07314.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from fixed_head_jax.evaluators.sums import class_sums, matmul

MANY_SHOT_ABOVE = 100  # training images of a class; this many are medium still
FEW_SHOT_BELOW = 20  # this many are medium already
TAUS = tuple(step / 10 for step in range(21))
ADJUSTMENTS = (0.5, 1.0, 1.5, 2.0)
METHODS = (
    "ncm",
    *(f"tau_norm_{tau:.1f}" for tau in TAUS),
    *(f"logit_adjustment_{tau:.1f}" for tau in ADJUSTMENTS),
)
_NORM_MIN = 1e-12


def class_hits(
    logits: Float[Array, "b k"], labels: Int[Array, "b"], mask: Float[Array, "b"]
) -> dict[str, Float[Array, " k"]]:
    """Counts the examples of a batch and the right predictions among them by true class.

    Args:
        logits: of any scale; ties go to the first class, and a NaN makes the example wrong.
        labels: true classes.
        mask: 0 for padding, which may hold anything.

    Returns:
        "hits" and "examples", which add up over batches and devices.
    """
    counts = _count_by_class(_is_hit(logits, labels)[None, :], labels, mask, logits.shape[1])
    return {"hits": counts["hits"][0], "examples": counts["examples"]}


def _is_hit(logits, labels):
    """Returns whether the true class is the arg-max; a NaN makes it wrong, wherever it stands."""
    # Not a comparison with the logit of the true class: XLA may compute that one apart from the
    # others, rounded differently, and the class then fails to reach its own logit.
    return (jnp.argmax(logits, axis=1) == labels) & ~jnp.isnan(logits).any(1)


def _count_by_class(is_hit, labels, mask, num_classes):
    """Counts the examples and each row of `is_hit` [M, b] by true class; returns [K] and [M, K]."""
    valid = mask > 0
    rows = jnp.concatenate([is_hit & valid[None, :], valid[None, :]]).astype(jnp.float32)
    counts = jax.ops.segment_sum(rows.T, labels, num_classes).T
    return {"hits": counts[:-1], "examples": counts[-1]}


def shot_metrics(
    totals: Mapping[str, np.ndarray], class_counts: Shaped[np.ndarray, " k"]
) -> dict[str, float]:
    """Turns hits by class into the accuracy of large, middling and small classes.

    The accuracy of a group is the mean over its classes of the accuracy within each, as in the
    released code of the paper, not the share of its examples: the two agree where the evaluation
    split is balanced. Classes without evaluation examples are left out.

    Args:
        totals: of `class_hits`, over the whole split.
        class_counts: training images of each class; a class without any is few-shot.

    Returns:
        `accuracy_many` (more than 100 training images), `accuracy_medium` (20 to 100),
        `accuracy_few` (fewer than 20) and `balanced_accuracy` (all classes), in percent; NaN for
        a group without classes.

    Source: Kang et al. 2020, https://arxiv.org/abs/1910.09217; its code has 0 for an empty group.
    """
    counts = np.asarray(class_counts)
    is_many, is_few = counts > MANY_SHOT_ABOVE, counts < FEW_SHOT_BELOW
    groups = {
        "accuracy_many": is_many,
        "accuracy_medium": ~is_many & ~is_few,
        "accuracy_few": is_few,
        "balanced_accuracy": np.ones_like(is_few),
    }
    hits, examples = (np.asarray(totals[name], np.float64) for name in ("hits", "examples"))
    metrics = {}
    for name, is_member in groups.items():
        is_member = is_member & (examples > 0)
        accuracies = hits[is_member] / examples[is_member]
        metrics[name] = 100 * float(accuracies.mean()) if accuracies.size else math.nan
    return metrics


def centered_embeddings(
    features: Float[Array, "b d"], mean: Float[Array, " d"]
) -> Float[Array, "b d"]:
    """Subtracts the mean and scales to unit norm ("cl2n"); features at the mean become zero.

    Norms are at least 1e-12.
    """
    centered = features - mean[None, :]
    norms = jnp.linalg.norm(centered, axis=1, keepdims=True)
    return centered / jnp.maximum(norms, _NORM_MIN)


def nearest_class_mean_logits(
    embeddings: Float[Array, "b d"],
    class_means: Float[Array, "k d"],
    is_present: Bool[Array, " k"],
) -> Float[Array, "b k"]:
    """Returns minus the squared Euclidean distances to the class means.

    Args:
        embeddings: of `centered_embeddings`.
        class_means: means of such embeddings, as they are: not scaled to unit norm again.
        is_present: classes that have a mean; the others get -inf and never win.
    """
    squares = jnp.sum(embeddings**2, axis=1)[:, None] + jnp.sum(class_means**2, axis=1)[None, :]
    logits = 2 * matmul(embeddings, class_means.T) - squares
    return jnp.where(is_present[None, :], logits, -jnp.inf)


def tau_normalized_logits(
    products: Float[Array, "b k"], kernel: Float[Array, "d k"], tau: float | Float[Array, ""]
) -> Float[Array, "b k"]:
    """Divides by the norms of the class vectors to the power tau: products_k / |kernel_k|^tau.

    Args:
        products: features times kernel, without bias: the same for every tau, and what costs.
        kernel: class vectors; norms are at least 1e-12.
        tau: 0 leaves the products, 1 is the cosine times the norm of the features.
    """
    lengths = jnp.maximum(jnp.linalg.norm(kernel, axis=0), _NORM_MIN)
    return products / (lengths**tau)[None, :]


def adjusted_logits(
    logits: Float[Array, "b k"], class_counts: Float[Array, " k"], tau: float | Float[Array, ""]
) -> Float[Array, "b k"]:
    """Subtracts tau times the log of the class frequencies: logits_k - tau log(n_k / n).

    Args:
        logits: of a model trained on these frequencies, as they entered its softmax.
        class_counts: training images n_k of each class. A class without any counts as one with
            one image, the rarest there can be: the log of 0 would let it win everywhere.
        tau: 0 leaves the logits; 1 is what the balanced error asks for.
    """
    counts = jnp.maximum(class_counts, 1)
    return logits - (tau * jnp.log(counts / jnp.sum(counts)))[None, :]


def feature_sums(
    features: Float[Array, "b d"], mask: Float[Array, "b"]
) -> dict[str, Float[Array, "..."]]:
    """Sums the features of a batch: the first pass, over the training split.

    Args:
        features: as they enter the head.
        mask: 0 for padding, which may hold anything.

    Returns:
        "features" [D] and "examples" [], which add up over batches and devices.
    """
    valid = mask > 0
    total = jnp.sum(jnp.where(valid[:, None], features, 0.0), axis=0, dtype=jnp.float32)
    return {"features": total, "examples": jnp.sum(valid.astype(jnp.float32))}


def feature_mean(totals: Mapping[str, np.ndarray | float]) -> Float32[np.ndarray, " d"]:
    """Turns the totals of the first pass into the overall mean.

    Raises:
        ValueError: if the split holds no example.
    """
    if not totals["examples"] > 0:
        raise ValueError("the mean feature needs at least one example; the split holds none")
    return (np.asarray(totals["features"], np.float64) / totals["examples"]).astype(np.float32)


def embedding_sums(
    features: Float[Array, "b d"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
    mean: Float[Array, " d"],
    num_classes: int,
) -> dict[str, Array]:
    """Sums the centered embeddings of a batch by class: the second pass, over the training split.

    Args:
        features: as they enter the head.
        labels: true classes.
        mask: 0 for padding, which may hold anything.
        mean: of `feature_mean`.
        num_classes: K.

    Returns:
        "features" [K, D] and "examples" [K], which add up over batches and devices.
    """
    return class_sums(centered_embeddings(features, mean), labels, mask, num_classes)


class ClassContext(NamedTuple):
    """What the third pass knows of the training split.

    Attributes:
        mean: overall mean of the features.
        class_means: means of the centered embeddings; zeros for a class without examples.
        class_counts: examples of each class.
    """

    mean: Float32[np.ndarray, " d"]
    class_means: Float32[np.ndarray, "k d"]
    class_counts: Float32[np.ndarray, " k"]


def class_context(
    mean: Float32[np.ndarray, " d"], totals: Mapping[str, np.ndarray]
) -> ClassContext:
    """Turns the totals of the second pass, and the mean it was given, into class means."""
    counts = np.asarray(totals["examples"], np.float64)
    means = np.asarray(totals["features"], np.float64) / np.maximum(counts, 1)[:, None]
    return ClassContext(mean, means.astype(np.float32), counts.astype(np.float32))


def decoupling_hits(
    features: Float[Array, "b d"],
    kernel: Float[Array, "d k"],
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
    context: ClassContext,
) -> dict[str, Array]:
    """Counts the right predictions of every method by class: the third pass, on any split.

    The taus follow one another, so that no more than a few arrays [B, K] live at a time.

    Args:
        features: as they enter the head.
        kernel: class vectors of the head.
        logits: of the head, with its bias and scale.
        labels: true classes.
        mask: 0 for padding, which may hold anything.
        context: of `class_context`.

    Returns:
        "hits" [M, K], its rows in the order of `METHODS`, and "examples" [K], which add up over
        batches and devices.
    """
    mean, class_means, class_counts = (jnp.asarray(array) for array in context)
    embeddings = centered_embeddings(features, mean)
    distances = nearest_class_mean_logits(embeddings, class_means, class_counts > 0)
    products = matmul(features, kernel)

    def normalized(tau):
        return _is_hit(tau_normalized_logits(products, kernel, tau), labels)

    def adjusted(tau):
        return _is_hit(adjusted_logits(logits, class_counts, tau), labels)

    is_hit = [
        _is_hit(distances, labels)[None, :],
        lax.map(normalized, jnp.asarray(TAUS, jnp.float32)),
        lax.map(adjusted, jnp.asarray(ADJUSTMENTS, jnp.float32)),
    ]
    return _count_by_class(jnp.concatenate(is_hit), labels, mask, logits.shape[1])


def decoupling_metrics(
    totals: Mapping[str, np.ndarray], class_counts: Shaped[np.ndarray, " k"]
) -> dict[str, float]:
    """Turns the totals of the third pass into the accuracies of every method.

    Args:
        totals: of `decoupling_hits`, over the whole split.
        class_counts: training images of each class, `ClassContext.class_counts`.

    Returns:
        For each of `METHODS`, after its name and a slash: `accuracy` over the examples (percent;
        NaN without any) and the metrics of `shot_metrics`.
    """
    examples = np.asarray(totals["examples"], np.float64)
    metrics = {}
    for method, hits in zip(METHODS, np.asarray(totals["hits"], np.float64), strict=True):
        accuracy = 100 * hits.sum() / examples.sum() if examples.any() else math.nan
        metrics[f"{method}/accuracy"] = float(accuracy)
        groups = shot_metrics({"hits": hits, "examples": examples}, class_counts)
        metrics |= {f"{method}/{name}": value for name, value in groups.items()}
    return metrics
