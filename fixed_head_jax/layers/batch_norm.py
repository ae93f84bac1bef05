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
    All is computed on values less a constant close to their mean, which changes nothing but
    rounding: E[x^2] - E[x]^2 alone is wrong where the mean is large beside the deviation.

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
        shift = lax.stop_gradient(self._rough_mean(x)) if train else running_mean.value
        x = x.astype(jnp.float32) - _row(shift, x)
        if train:
            mean, var, count = self._batch_statistics(x)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                running_mean.value += (1 - self.momentum) * (shift + mean - running_mean.value)
                running_var.value += (1 - self.momentum) * (unbiased - running_var.value)
        else:
            mean, var = jnp.zeros_like(shift), running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        return normalize(x, factor, offset).astype(self.dtype)

    def _rough_mean(self, x):
        """Returns the mean [C] of the first example, averaged over the devices.

        One of n examples is never further from the mean of all than sqrt(n) deviations, so that
        the variance loses no more than n roundings; most often it loses none.
        """
        first = x[0].astype(jnp.float32)
        return self._mean_over_devices(first.mean(tuple(range(first.ndim - 1))))

    def _batch_statistics(self, x):
        """Returns the mean [C], the biased variance [C] and the number of values behind them."""
        axes = tuple(range(x.ndim - 1))
        moments = self._mean_over_devices(jnp.stack([x.mean(axes), jnp.square(x).mean(axes)]))
        count = x.size // x.shape[-1]
        if self._is_split:
            count *= lax.axis_size(self.axis_name)
        mean, mean_square = moments
        # Rounding can leave the difference a little below zero.
        return mean, jnp.maximum(mean_square - jnp.square(mean), 0.0), count

    def _mean_over_devices(self, x):
        return lax.pmean(x, self.axis_name) if self._is_split else x

    @property
    def _is_split(self):
        return self.axis_name is not None and not self.is_initializing()


@jax.jit
def normalize(
    x: Float[Array, "*b c"], factor: Float[Array, " c"], offset: Float[Array, " c"]
) -> Float[Array, "*b c"]:
    """Scales and shifts every channel: what is left of batch norm once its statistics are known."""
    return x * _row(factor, x) + _row(offset, x)


def _row(vector, x):
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
