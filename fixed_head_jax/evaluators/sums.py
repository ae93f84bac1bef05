"""What several evaluators sum: features by class, in products with all the bits of float32."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def matmul(x: Float[Array, "a b"], y: Float[Array, "b c"]) -> Float[Array, "a c"]:
    """Multiplies matrices in full float32; by default GPU and TPU take fewer bits."""
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


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
