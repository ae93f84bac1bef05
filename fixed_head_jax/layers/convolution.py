"""Convolution and pooling as every backbone uses them.

Padding is symmetric and explicit, as in the reference networks ("SAME" pads strided convolutions
on one side only). The lowering by platform lives here and nowhere else. The functions are jitted
so that a traced program names them: `accounting` counts operations by these names.
"""

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from fixed_head_jax.layers.initializers import he_normal_fan_out, uniform

PLAIN = "plain"  # in place of a platform: no form of its own


class Conv(nn.Module):
    """Convolution over NHWC images.

    Attributes:
        features: output channels.
        kernel_size: side of the window in pixels, or (height, width).
        strides: step of the window in pixels.
        padding: zeros on every side in pixels, or (above and below, left and right); None is
            half the window, rounded down.
        groups: parts that the channels are split into, each convolved by itself.
        use_bias: adds a bias, drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        kernel_init: initializer of the kernel [kh, kw, in / groups, out].
        dtype: compute dtype; parameters stay float32.
    """

    features: int
    kernel_size: int | tuple[int, int] = 3
    strides: int = 1
    padding: int | tuple[int, int] | None = None
    groups: int = 1
    use_bias: bool = False
    kernel_init: Callable = he_normal_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], platform: str | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        """Convolves images; `platform`: see `convolve`."""
        size = _pair(self.kernel_size)
        padding = (size[0] // 2, size[1] // 2) if self.padding is None else _pair(self.padding)
        shape = (*size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = convolve(x.astype(self.dtype), kernel, self.strides, padding, self.groups, platform)
        if self.use_bias:
            bias = self.param("bias", uniform(math.prod(shape[:3]) ** -0.5), (self.features,))
            x = x + _row(bias, x).astype(self.dtype)
        return x


def plainly() -> contextlib.AbstractContextManager:
    """Makes every `Conv` that is called inside convolve in the form without a platform: for export.

    That form is one operation, which converters know and other programs have their own ways for.
    """

    def convolve_plainly(call, args, kwargs, context):
        is_conv = isinstance(context.module, Conv) and context.method_name == "__call__"
        return call(*args, **kwargs, **({"platform": PLAIN} if is_conv else {}))

    return nn.intercept_methods(convolve_plainly)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw i d"],
    strides: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    platform: str | None = None,
) -> Float[Array, "b h2 w2 d"]:
    """Convolves by whichever form is fastest on `platform` (None: where this runs).

    Args:
        x: images.
        kernel: [kh, kw, channels / groups, output channels].
        strides: step of the window in pixels.
        padding: zeros (above and below, left and right).
        groups: parts that the channels are split into.
        platform: a backend's name of JAX, or `PLAIN`; the forms agree up to rounding.
    """
    size = kernel.shape[:2]
    if (platform or jax.default_backend()) == "cpu":
        if size == (1, 1) and groups == 1 and padding == (0, 0):
            return _pointwise(x[:, ::strides, ::strides], kernel)
        if size == (strides, strides) and groups == 1 and padding == (0, 0):
            return _pointwise(_patches(x, strides), kernel)
        if groups == x.shape[-1] == kernel.shape[-1]:
            return _shifted_sum(x, kernel[:, :, 0], strides, padding)
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), [(pad, pad) for pad in padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def _pointwise(x, kernel):
    # As a product of matrices: contracting three axes at once, the kernel gradient takes three
    # times as long (measured).
    y = x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(*x.shape[:-1], -1)


def _patches(x, size):
    """Cuts [B, H, W, C] into squares that do not overlap: [B, H / size, W / size, size^2 C]."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    x = x.reshape(batch, rows, size, columns, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def _shifted_sum(x, kernel, strides, padding):
    """Convolves every channel by itself: a multiply-add per tap of the kernel [kh, kw, C]."""
    dtype, x, kernel = x.dtype, x.astype(jnp.float32), kernel.astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    height = x.shape[1] - kernel.shape[0] + 1
    width = x.shape[2] - kernel.shape[1] + 1
    taps = [
        x[:, row : row + height : strides, column : column + width : strides]
        * _row(kernel[row, column], x)
        for row, column in np.ndindex(kernel.shape[:2])
    ]
    return sum(taps[1:], start=taps[0]).astype(dtype)


def _pair(value):
    return value if isinstance(value, tuple) else (value, value)


def _row(vector, x):
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


@partial(jax.jit, static_argnums=1)
def max_pool(x: Float[Array, "b h w c"], padding: int = 1) -> Float[Array, "b h2 w2 c"]:
    """Takes the maximum over 3x3 windows at stride 2, padded by `padding` (0 or 1) on every side.

    Among equal values the first of the window, row by row, takes the gradient, as in the reference
    framework. Slices and selections, one axis at a time: on the CPU the gradient of
    `lax.reduce_window` takes four times as long (measured).
    """
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    return _max_of_three(_max_of_three(x, axis=2), axis=1)


def _max_of_three(x, axis):
    """Takes the maximum over windows of 3 at stride 2 along one axis."""
    last = x.shape[axis] - 2
    first, second, third = (
        lax.slice_in_dim(x, start, start + last, stride=2, axis=axis) for start in range(3)
    )
    return _larger(_larger(first, second), third)


def _larger(first, second):
    return jnp.where((second > first) | jnp.isnan(second), second, first)


@partial(jax.jit, static_argnums=(1, 2, 3))
def average_pool(
    x: Float[Array, "b h w c"], size: int, strides: int, padding: int = 0
) -> Float[Array, "b h2 w2 c"]:
    """Averages size x size windows; the padding does not count in the divisor."""
    # Not by `nn.avg_pool`, which jax2onnx replaces by one that knows no padding in numbers.
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, steps = (1, size, size, 1), (1, strides, strides, 1)
    total = lax.reduce_window(x, 0.0, lax.add, window, steps, pads)
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / lax.reduce_window(ones, 0.0, lax.add, window, steps, pads)


def remat_block(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    """Returns the block, called as `(x, train)`; with `remat`, one that stores only its input."""
    return nn.remat(block, static_argnums=(2,)) if remat else block


def check_out_channels(out_channels: int | None) -> None:
    """Raises ValueError unless `out_channels` is None or a number of channels."""
    if out_channels is not None and out_channels < 1:
        raise ValueError(f"out_channels must be at least 1, got {out_channels}")


def check_size(images: Float[Array, "b h w c"], smallest: int) -> None:
    """Raises ValueError if the images have fewer than `smallest` pixels on a side."""
    if min(images.shape[1:3]) < smallest:
        size = "x".join(map(str, images.shape[1:3]))
        raise ValueError(f"images of {size} pixels are too small; use at least {smallest} a side")


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
