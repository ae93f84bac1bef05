"""Convolution, normalisation and pooling as every backbone uses them.

Padding is symmetric and explicit, as in the reference networks ("SAME" pads strided convolutions
on one side only). The lowering by platform lives here and nowhere else.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from fixed_head_jax.initializers import he_normal_fan_out, uniform


class Conv(nn.Module):
    """Square convolution over NHWC images, padded by `kernel_size // 2` on every side.

    Attributes:
        features: output channels.
        kernel_size: side of the window in pixels, odd.
        strides: step of the window in pixels.
        use_bias: adds a bias, drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        kernel_init: initializer of the kernel [k, k, in, out].
        dtype: compute dtype; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    use_bias: bool = False
    kernel_init: Callable = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        size, stride, pad = self.kernel_size, self.strides, self.kernel_size // 2
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if size == 1 and jax.default_backend() == "cpu":
            # Twice the speed of XLA's CPU convolution, and three times for the kernel gradient.
            x = x[:, ::stride, ::stride] @ kernel[0, 0]
        else:
            padding = ((pad, pad), (pad, pad))
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(
                x, kernel, (stride, stride), padding, dimension_numbers=dimensions
            )
        if self.use_bias:
            bound = (size * size * shape[2]) ** -0.5
            bias = self.param("bias", uniform(bound), (self.features,))
            x = x + _row(bias, x).astype(self.dtype)
        return x


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
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
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
        return (x * _row(factor, x) + _row(offset, x)).astype(self.dtype)

    def _batch_statistics(self, x):
        """Returns the mean [C], the biased variance [C] and the number of values behind them."""
        x = x.astype(jnp.float32)
        moments = jnp.stack([x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2))])
        count = x.size // x.shape[-1]
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(moments, self.axis_name)
            count *= lax.axis_size(self.axis_name)
        mean, mean_square = moments
        # Rounding can leave the difference a little below zero.
        return mean, jnp.maximum(mean_square - jnp.square(mean), 0.0), count


def _row(vector, x):
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Takes the maximum over 3x3 windows at stride 2, padded by one on every side.

    Among equal values the first of the window, row by row, takes the gradient, as in the reference
    framework. Slices and selections, one axis at a time: on the CPU the gradient of
    `lax.reduce_window` takes ten times as long (measured).
    """
    return _max_of_three(_max_of_three(x, axis=2), axis=1)


def _max_of_three(x, axis):
    """Takes the maximum over windows of 3 at stride 2 along one axis, padded by one."""
    size = x.shape[axis]
    length = (size + 1) // 2
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (1, size % 2, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), pads)
    first, second, third = (
        lax.slice_in_dim(x, start, start + 2 * length - 1, 2, axis) for start in range(3)
    )
    return _larger(_larger(first, second), third)


def _larger(first, second):
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def resize_channels(x: Float[Array, "b h w c"], channels: int) -> Float[Array, "b h w d"]:
    """Pads with zero channels, or crops, evenly on both sides to `channels` channels.

    An odd difference puts the smaller half in front (the published rule would miss by one there).
    Source: parameter-free shortcut of the identity-head surgery, Qian 2020.
    """
    difference = channels - x.shape[-1]
    front = abs(difference) // 2
    if difference >= 0:
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (front, difference - front)))
    return x[..., front : front + channels]
