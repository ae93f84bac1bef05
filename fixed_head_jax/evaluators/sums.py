"""What several evaluators use: ranks, features by class, products with all bits of float32."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def matmul(x: Float[Array, "a b"], y: Float[Array, "b c"]) -> Float[Array, "a c"]:
    """Multiplies matrices in full float32; by default GPU and TPU take fewer bits."""
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


def true_rank(scores: Float[Array, "b k"], labels: Int[Array, "b"]) -> Int[Array, " b"]:
    """Counts the classes ahead of the true one, 0 where it is first; ties go by index, as arg-max.

    A class that is not comparable with the true one counts as ahead (NaN: a model that diverged is
    never right). A label out of range gives a rank without meaning.
    """
    own = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[:, None], axis=1)
    others = jnp.arange(scores.shape[1])[None, :] - labels[:, None]
    ahead = ~(own >= scores) | ((scores == own) & (others < 0))
    return jnp.sum(ahead & (others != 0), axis=1)


def class_sums(
    features: Float[Array, "b d"],
    labels: Int[Array, "b"],
    mask: Float[Array, "b"],
    num_classes: int,
) -> dict[str, Array]:
    """Sums the features of a batch by class.

    Args:
        features: as they enter the head, or what was made of them.
        labels: true classes.
        mask: 0 for padding, which may hold anything.
        num_classes: K.

    Returns:
        "examples" [K] and "features" [K, D], which add up over batches and devices.
    """
    valid = mask > 0
    members = jax.nn.one_hot(labels, num_classes) * valid[:, None]
    features = jnp.where(valid[:, None], features, 0.0)
    return {"examples": members.sum(0), "features": matmul(members.T, features)}
