"""Neural collapse, NC1 to NC4: how near features and classifier are to a simplex. All are 0 there.

With class means m_c, centre g (the mean of the class means), deviations d_c = m_c - g (the rows of
M), class vectors w_c and K classes:

    NC1  nc1_within_over_between     trace(S_W pinv(S_B)) / K,  S_W = mean of (h - m_y)(h - m_y)^T
                                     over the examples, S_B = mean of d_c d_c^T over the classes
    NC2  nc2_norm_variation_*        std / mean of |d_c| (means), of |w_c| (kernel)
         nc2_angle_variation_*       std of the cosines of all pairs of classes
         nc2_simplex_deviation_*     mean |cosine + 1 / (K - 1)| over these pairs
    NC3  nc3_kernel_to_means         | W / |W| - M / |M| |^2, Frobenius norms
    NC4  nc4_nearest_mean_mismatch   share of the examples, in [0, 1], whose prediction is not the
                                     class of the nearest mean

It takes two passes: which mean is nearest (NC4) is not known before all means are. The first pass
sums features per class, the second compares each example with the means. NC1 gains by it, since
trace(S_W pinv(S_B)) / K is the mean over the examples of |(h - m_y) pinv(M)|^2: no D x D matrix is
summed, and no small difference of large sums taken. The passes may read different splits, as the
paper does for NC4: means of training images, examples of test images.

Source: Papyan, Han & Donoho 2020, https://arxiv.org/abs/2008.08186, figures 2 to 7. Where classes
differ in size each class mean counts once and so does each example, as in the paper's released
code; std divides by the number, where that code divides by one less, and NC1 by K, as the paper.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from fixed_head_jax.evaluators.sums import matmul

_ROWS = 1024  # classes compared with all others at a time: bounds the memory for many classes
_RESOLUTION = 1e-6  # relative; smaller differences and singular values of means are rounding


class ClassGeometry(NamedTuple):
    """Class means as the second pass needs them; classes without examples are rows of zeros.

    Attributes:
        center: mean of the class means.
        deviations: class means minus the center.
        pseudo_inverse: of the deviations.
        is_present: which classes have examples.
    """

    center: Float32[np.ndarray, " d"]
    deviations: Float32[np.ndarray, "k d"]
    pseudo_inverse: Float32[np.ndarray, "d k"]
    is_present: Bool[np.ndarray, " k"]


def class_geometry(sums: Mapping[str, np.ndarray]) -> ClassGeometry:
    """Turns the sums of the first pass into class means, on the host and in float64.

    Args:
        sums: of `sums.class_sums`, over the whole split.

    Raises:
        ValueError: if no class has an example.
    """
    examples = np.asarray(sums["examples"], np.float64)
    is_present = examples > 0
    if not is_present.any():
        raise ValueError("neural collapse needs at least one example; the split holds none")
    means = np.asarray(sums["features"], np.float64)[is_present] / examples[is_present, None]
    if not np.isfinite(means).all():  # of a model that diverged: no geometry, but no error either
        means = np.full_like(means, np.nan)
    center = means.mean(0)
    present = means - center[None, :]
    if np.abs(present).max() <= _RESOLUTION * np.abs(means).max():
        present = np.zeros_like(present)
    deviations = np.zeros((len(examples), len(center)), np.float32)
    pseudo_inverse = np.zeros_like(deviations.T)
    deviations[is_present] = present
    if np.isfinite(present).all():
        pseudo_inverse[:, is_present] = np.linalg.pinv(present, rcond=_RESOLUTION)
    return ClassGeometry(center.astype(np.float32), deviations, pseudo_inverse, is_present)


def collapse_sums(
    features: Float[Array, "b d"],
    logits: Float[Array, "b k"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
    geometry: ClassGeometry,
) -> dict[str, Float[Array, ""]]:
    """Compares the examples of a batch with the class means: the second pass.

    Args:
        features: as they enter the head.
        logits: of the head; the arg-max is the prediction.
        labels: true classes; those without a mean count for NC4 only.
        mask: 0 for padding, which may hold anything.
        geometry: of `class_geometry`.

    Returns:
        Sums that add up over batches and devices: "within" over "members", "mismatches" over
        "examples".
    """
    center, deviations, pseudo_inverse, is_present = (jnp.asarray(array) for array in geometry)
    valid = mask > 0
    is_member = valid & is_present[labels]
    centered = features - center[None, :]
    spread = matmul(centered - deviations[labels], pseudo_inverse)
    # |h - m_c|^2 without what all classes share, which would only add rounding.
    distances = jnp.sum(deviations**2, axis=1)[None, :] - 2 * matmul(centered, deviations.T)
    nearest = jnp.argmin(jnp.where(is_present[None, :], distances, jnp.inf), axis=1)
    mismatches = valid & (nearest != jnp.argmax(logits, axis=1))
    return {
        "within": jnp.sum(jnp.where(is_member, jnp.sum(spread**2, axis=1), 0.0)),
        "members": jnp.sum(is_member.astype(jnp.float32)),
        "mismatches": jnp.sum(mismatches.astype(jnp.float32)),
        "examples": jnp.sum(valid.astype(jnp.float32)),
    }


def collapse_metrics(
    geometry: ClassGeometry, sums: Mapping[str, float], kernel: Float[np.ndarray, "d k"]
) -> dict[str, float]:
    """Turns the means and the sums of the second pass into the measures.

    Args:
        geometry: of `class_geometry`.
        sums: of `collapse_sums`, over the whole split.
        kernel: class vectors of the head.

    Returns:
        The measures named above, over the classes that have examples. All but NC4 are NaN with
        fewer than two of them, or where their means coincide.
    """
    means = geometry.deviations[geometry.is_present].astype(np.float64)
    vectors = np.asarray(kernel, np.float64).T[geometry.is_present]
    spread = sums["within"] / sums["members"] if sums["members"] and means.any() else math.nan
    metrics = {"nc1_within_over_between": spread}
    for name, rows in (("means", means), ("kernel", vectors)):
        variation, angles, deviation = _simplex_measures(rows)
        metrics[f"nc2_norm_variation_{name}"] = variation
        metrics[f"nc2_angle_variation_{name}"] = angles
        metrics[f"nc2_simplex_deviation_{name}"] = deviation
    metrics["nc3_kernel_to_means"] = _distance(vectors, means)
    examples = sums["examples"]
    metrics["nc4_nearest_mean_mismatch"] = sums["mismatches"] / examples if examples else math.nan
    return metrics


def _simplex_measures(rows):
    """Returns the variation of the norms, that of the cosines, and the distance to the simplex."""
    norms = np.linalg.norm(rows, axis=1)
    if len(rows) < 2 or not norms.any():
        return math.nan, math.nan, math.nan
    directions = rows / np.maximum(norms, 1e-12)[:, None]
    total = squares = absolute = 0.0
    for start in range(0, len(rows), _ROWS):
        part = directions[start : start + _ROWS]
        excess = part @ directions.T + 1 / (len(rows) - 1)
        own = np.arange(len(part))
        excess[own, start + own] = 0.0  # a class makes no pair with itself
        total += excess.sum()
        squares += np.square(excess).sum()
        absolute += np.abs(excess).sum()
    pairs = len(rows) * (len(rows) - 1)
    variance = max(squares / pairs - (total / pairs) ** 2, 0.0)  # rounding can leave it below
    return float(norms.std() / norms.mean()), math.sqrt(variance), float(absolute / pairs)


def _distance(vectors, means):
    """Returns the squared distance of two matrices, each at Frobenius norm one."""
    lengths = np.linalg.norm(vectors), np.linalg.norm(means)
    if not all(lengths):
        return math.nan
    return float(np.square(vectors / lengths[0] - means / lengths[1]).sum())
