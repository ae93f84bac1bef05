"""Random class vectors, and the identity matrix."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def random_integers(rng: PRNGKeyArray, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws unit vectors in the directions of random integer vectors.

    Entries are uniform on {-100, ..., 99} before each column is divided by its norm.

    Args:
        rng: key of the draw.
        dim: feature size D.
        num_classes: K; any number.

    Returns:
        Unit-norm columns.

    Source: Shalev et al. 2020, https://arxiv.org/abs/2011.08704 (released code).
    """
    vectors = jax.random.randint(rng, (dim, num_classes), -100, 100).astype(jnp.float32)
    # An all-zero column (possible at dim = 1) stays zero instead of becoming NaN.
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=0, keepdims=True), 1.0)


def orthogonal(rng: PRNGKeyArray, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws a uniformly distributed semi-orthogonal matrix.

    Args:
        rng: key of the draw.
        dim: feature size D.
        num_classes: K; any number.

    Returns:
        Orthonormal columns if K <= D; orthonormal rows if K > D, where the class vectors stay
        distinct but have mean squared norm D / K.

    Source: Qian 2020, section 3; Hoffer et al. 2018, https://arxiv.org/abs/1801.04540.
    """
    tall = (max(dim, num_classes), min(dim, num_classes))
    q, r = jnp.linalg.qr(jax.random.normal(rng, tall))
    # The sign of R's diagonal is the algorithm's choice; fixing it makes the draw uniform.
    q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]
    return q if dim >= num_classes else q.T


def identity(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Takes the first K columns of the identity matrix: class k is feature k.

    Args:
        rng: ignored.
        dim: feature size D.
        num_classes: K <= D.

    Returns:
        Orthonormal columns of zeros and ones.

    Raises:
        ValueError: if K > D.

    Source: Qian 2020, identity head.
    """
    del rng
    check_identity(dim, num_classes)
    return jnp.eye(dim, num_classes)


def check_identity(dim: int, num_classes: int) -> None:
    """Raises ValueError if K > D, where `identity` does not exist."""
    if num_classes > dim:
        raise ValueError(
            f"identity needs num_classes <= dim, got {num_classes} classes for {dim} features; "
            f"set backbone_options.out_channels={num_classes} or use head 'orthogonal'"
        )
