"""Feature norms and largest cosines, apart for right and wrong predictions."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fixed_head_jax.evaluators.sums import matmul

GROUPS = ("correct", "wrong")


def feature_norm_sums(
    features: Float[Array, "b d"],
    kernel: Float[Array, "d k"],
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
) -> dict[str, Float[Array, ""]]:
    """Sums |features| and the largest cosine with any class vector over the two groups of a batch.

    The largest cosine is over all classes, max_k cos(features, kernel_k): not that of the predicted
    class, from which it may differ, nor that of the true one. Norms in it are at least 1e-12.

    Args:
        features: as they enter the head, before any normalisation.
        kernel: class vectors of the head, of any length.
        logits: of the head; the arg-max is the prediction.
        labels: true classes.
        mask: 0 for padding, which may hold anything.

    Returns:
        Sums that add up over batches and devices: `examples_`, `norms_` and `cosines_`, each for
        "correct" and "wrong".

    Source: Shalev et al. 2020, https://arxiv.org/abs/2011.08704 (released code).
    """
    norms = jnp.linalg.norm(features, axis=1)
    lengths = jnp.linalg.norm(kernel, axis=0)
    directions = features / jnp.maximum(norms, 1e-12)[:, None]
    class_directions = kernel / jnp.maximum(lengths, 1e-12)[None, :]
    cosines = matmul(directions, class_directions).max(1)
    is_correct = jnp.argmax(logits, axis=1) == labels
    sums = {}
    for name, is_member in zip(GROUPS, (is_correct, ~is_correct), strict=True):
        is_member &= mask > 0
        sums[f"examples_{name}"] = jnp.sum(is_member.astype(jnp.float32))
        sums[f"norms_{name}"] = jnp.sum(jnp.where(is_member, norms, 0.0))
        sums[f"cosines_{name}"] = jnp.sum(jnp.where(is_member, cosines, 0.0))
    return sums


def feature_norm_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Turns sums over a split into the averages of each group; NaN where a group is empty.

    Returns:
        `feature_norm_correct`, `feature_norm_wrong`, `largest_cosine_correct` and
        `largest_cosine_wrong`.
    """
    metrics = {}
    for metric, total in (("feature_norm", "norms"), ("largest_cosine", "cosines")):
        for name in GROUPS:
            examples = sums[f"examples_{name}"]
            mean = sums[f"{total}_{name}"] / examples if examples else math.nan
            metrics[f"{metric}_{name}"] = mean
    return metrics
