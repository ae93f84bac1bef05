"""Self-Classifier's loss: cross-entropy between views, under uniform priors on classes and images.

Targets are a softmax over the batch, divided by their sum over the classes; predictions a softmax
over the classes, divided by their sum over the batch. Over several devices only these sums, one
number per class, are communicated.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def check_options(row_temperature: float, column_temperature: float, eps: float) -> None:
    """Raises ValueError unless the temperatures are positive and eps is not negative."""
    for name, value in (
        ("row_temperature", row_temperature),
        ("column_temperature", column_temperature),
    ):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if not eps >= 0:
        raise ValueError(f"eps must be at least 0 (0: the stable form), got {eps}")


def view_pairs(num_views: int, num_global: int = 2) -> np.ndarray:
    """Returns booleans [V, V]: whether view i is a target for the prediction of view j.

    All ordered pairs of different views, but those of two local views.

    Raises:
        ValueError: unless there are at least two views, `num_global` of them >= 1 global.
    """
    if not 1 <= num_global <= num_views or num_views < 2:
        raise ValueError(
            f"num_global={num_global} of {num_views} views; the loss needs at least two views, "
            "one or more of them global"
        )
    view = np.arange(num_views)
    is_global = view < num_global
    return (view[:, None] != view) & (is_global[:, None] | is_global)


def self_classifier_loss(
    logits: Float[Array, "v n k"],
    num_global: int = 2,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
    eps: float = 1e-12,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Computes the mean of `pair_losses` over `view_pairs`, for one classifier.

    Args:
        logits: of V views of N images (of K >= 2 classes); the first `num_global` are global.
            Gradients flow through targets and predictions alike.
        num_global: number of global views.
        row_temperature: divides the logits in predictions, > 0.
        column_temperature: divides the logits in targets, > 0.
        eps: guards the divisions and is added inside the logarithm; 0 computes in logarithms
            throughout, which needs no guard.
        axis_name: mesh axis that the images are split over; the mean is then over this device's,
            normalised over all, so that the mean over the devices is the loss of the whole batch.

    Returns:
        A number: 0 for balanced, confident and consistent classes, ln K if all is in one class.

    Raises:
        ValueError: if a value is out of its range.

    Example:
        >>> round(float(self_classifier_loss(jnp.zeros((2, 4, 3)))), 4)  # ln 3
        1.0986

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, equation 6; eps as in its code.
    """
    check_options(row_temperature, column_temperature, eps)
    if logits.shape[-1] < 2:
        raise ValueError(f"logits must be of at least 2 classes, got {logits.shape[-1]}")
    pairs = view_pairs(len(logits), num_global)
    losses = pair_losses(logits, row_temperature, column_temperature, eps, axis_name)
    return jnp.sum(losses, where=pairs) / pairs.sum()


def pair_losses(
    logits: Float[Array, "v n k"],
    row_temperature: float,
    column_temperature: float,
    eps: float,
    axis_name: str | None = None,
) -> Float[Array, "v v"]:
    """Computes the cross-entropy of every view's targets (rows) with every view's predictions.

    Arguments as in `self_classifier_loss`.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_columns = logits / column_temperature
    log_columns -= _log_sum_over_batch(log_columns, axis_name)
    log_rows = jax.nn.log_softmax(logits / row_temperature, axis=-1)
    num_images, num_classes = logits.shape[1:]
    if axis_name is not None:
        num_images *= lax.axis_size(axis_name)
    ratio = num_images / num_classes
    if eps == 0:
        targets = jax.nn.softmax(log_columns, axis=-1)
        predictions = np.log(ratio) + log_rows - _log_sum_over_batch(log_rows, axis_name)
    else:
        columns, rows = jnp.exp(log_columns), jnp.exp(log_rows)
        targets = columns / jnp.maximum(columns.sum(-1, keepdims=True), eps)
        totals = _psum(rows.sum(1, keepdims=True), axis_name)
        predictions = jnp.log(ratio * (rows / jnp.maximum(totals, eps)) + eps)
    products = jnp.einsum("ink,jnk->ij", targets, predictions, precision=lax.Precision.HIGHEST)
    return -products / logits.shape[1]


def _log_sum_over_batch(x, axis_name):
    """Returns the logarithm of the sum of exp(x) over all images: [V, N, K] -> [V, 1, K]."""
    largest = lax.stop_gradient(x.max(1, keepdims=True))
    if axis_name is not None:
        largest = lax.pmax(largest, axis_name)
    return largest + jnp.log(_psum(jnp.exp(x - largest).sum(1, keepdims=True), axis_name))


def _psum(x, axis_name):
    return x if axis_name is None else lax.psum(x, axis_name)
