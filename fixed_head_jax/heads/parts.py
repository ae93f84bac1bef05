"""What several heads are made of: class vectors, guarded norms, checked scales."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class Head(nn.Module):
    """What the rest of a run asks of a head; see `heads`.

    Attributes:
        embeds: whether it has `embed` and `classify` in place of `class_vectors`.
        has_margin: whether it has `training_logits`.
        compares_directions: whether the lengths of its class vectors count for nothing.
    """

    embeds: ClassVar[bool] = False
    has_margin: ClassVar[bool] = False
    compares_directions: ClassVar[bool] = False


def fixed_kernel(head: nn.Module, draw: Callable, dim: int) -> Float[Array, "d k"]:
    """Returns the class vectors of a head, drawn when it is initialised, from "fixed"."""

    def init():
        return draw(head.make_rng("params"), dim, head.num_classes)

    return head.variable("fixed", "kernel", init).value


def linear_class_vectors(
    head: nn.Module, variables: Mapping[str, Any], dim: int
) -> Float[Array, "d k"]:
    """Implements `class_vectors` where logits are linear in the features, bias apart."""

    def logits(features):
        return head.apply(variables, features[None, :])[0]

    jacobian = jax.jacfwd if dim < head.num_classes else jax.jacrev  # the smaller identity
    # By default GPU and TPU multiply with fewer bits than float32 has.
    with jax.default_matmul_precision("highest"):
        return jacobian(logits)(jnp.zeros(dim)).T


def direction_class_vectors(
    head: nn.Module, variables: Mapping[str, Any], dim: int
) -> Float[Array, "d k"]:
    """Implements `class_vectors` where only directions are compared: the kernel as it is."""
    del dim
    return variables["fixed" if head.fixed else "params"]["kernel"]


def norm(vectors: Float[Array, "a b"], minimum: float, axis: int = -1) -> Float[Array, "c d"]:
    """Returns the norms along an axis, which is kept, at least `minimum`."""
    # Clamped before the root, whose gradient at zero is infinite.
    squares = jnp.sum(vectors**2, axis, keepdims=True)
    return jnp.sqrt(jnp.maximum(squares, minimum**2))


def check_scale(init_scale: float | None) -> None:
    """Raises ValueError unless `init_scale` is None or finite and positive."""
    if init_scale is not None and not 0 < init_scale < math.inf:
        raise ValueError(f"init_scale must be finite and > 0, got {init_scale}")
