"""Accuracy and loss over a whole split, every example counted exactly once."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fixed_head_jax.evaluators.sums import true_rank


def classification_sums(
    logits: Float[Array, "b k"], labels: Int[Array, "b"], mask: Float[Array, "b"]
) -> dict[str, Float[Array, ""]]:
    """Sums over the examples of one batch; `mask` is 0 for padding, which may hold anything."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    rank, valid = true_rank(logits, labels), mask > 0
    return {
        "loss": jnp.sum(jnp.where(valid, losses, 0.0)),
        "correct": jnp.sum(jnp.where(valid, rank < 1, False).astype(jnp.float32)),
        "correct_top5": jnp.sum(jnp.where(valid, rank < 5, False).astype(jnp.float32)),
        "examples": jnp.sum(mask),
    }


def classification_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Turns sums over a split into `accuracy` and `top5_accuracy` (percent), `loss`, `examples`."""
    examples = sums["examples"]
    return {
        "accuracy": 100 * sums["correct"] / examples,
        "top5_accuracy": 100 * sums["correct_top5"] / examples,
        "loss": sums["loss"] / examples,
        "examples": examples,
    }
