"""Batch normalisation as backbones and heads use it: over the batch of all devices."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Batch normalisation with the reference framework's constants and running variance.

    Statistics are float32 and taken over the whole batch: over every device when `axis_name` is
    set. The running variance stores the unbiased batch variance n / (n - 1), which flax does not.

    Attributes:
        axis_name: mesh axis that the batch is split over, or None.
        momentum: weight of the old running value (0.9 is the reference framework's 0.1).
        epsilon: added to the variance.
        dtype: dtype of the result.

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            mean, var, count = self._batch_statistics(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
                running_var.value += (1 - self.momentum) * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        return normalize(x, factor, offset).astype(self.dtype)

    def _batch_statistics(self, x):
        """Returns the mean [C], the biased variance [C] and the number of values behind them."""
        x, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
        moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
        count = x.size // x.shape[-1]
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(moments, self.axis_name)
            count *= lax.axis_size(self.axis_name)
        mean, mean_square = moments
        # Rounding can leave the difference a little below zero.
        return mean, jnp.maximum(mean_square - jnp.square(mean), 0.0), count


@jax.jit
def normalize(
    x: Float[Array, "*b c"], factor: Float[Array, " c"], offset: Float[Array, " c"]
) -> Float[Array, "*b c"]:
    """Scales and shifts every channel: what is left of batch norm once its statistics are known."""
    return x * _row(factor, x) + _row(offset, x)


def _row(vector, x):
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
