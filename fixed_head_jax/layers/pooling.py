"""Poolings: feature map [B, h, w, C] -> features [B, D].

A pooling is a linen module with `num_features(channels)`: D, or None where it depends on the
size of the map. To add one, write the module here and name it in `POOLINGS`.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from fixed_head_jax.layers.initializers import uniform, uniform_fan_in
from fixed_head_jax.settings import lookup


class Mean(nn.Module):
    """Averages over all positions."""

    def num_features(self, channels: int) -> int:
        return channels

    def __call__(self, feature_map: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return feature_map.mean((1, 2))


class Max(nn.Module):
    """Takes the maximum over all positions."""

    def num_features(self, channels: int) -> int:
        return channels

    def __call__(self, feature_map: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return feature_map.max((1, 2))


class Power(nn.Module):
    """Averages powers: features = (mean over positions of f^p)^(1/p).

    Between the mean (p = 1) and the maximum (p to infinity), for f >= 0, which a backbone that ends
    in ReLU gives. A negative value counts as zero, except at p = 1, which is `Mean` whatever the
    sign. At f = 0 the gradient is 0 where the formula has none or an infinite one: for p < 1, and
    for a channel that is zero everywhere (the reference gives infinities or NaN).

    Attributes:
        p: exponent, > 0; the thesis has 0.5, 1, 1.5, 2 and 4.
        as_published: the printed formula (5.1), which sums instead of averaging and so depends on
            the size of the map: (h w)^(1/p) times as large. The thesis' code averages.

    Raises:
        ValueError: unless 0 < p < infinity, at construction.

    Source: Qian 2020, equation 5.1 and the listing behind it.
    """

    p: float | int = 2.0
    as_published: bool = False

    def __post_init__(self):
        if not 0 < self.p < math.inf:
            raise ValueError(
                f"power needs 0 < p < infinity, got p={self.p}; pool 'max' is the limit of large p"
            )
        super().__post_init__()

    def num_features(self, channels: int) -> int:
        return channels

    def __call__(self, feature_map: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        reduce = jnp.sum if self.as_published else jnp.mean
        if self.p == 1:
            return reduce(feature_map, (1, 2))
        # Relative to the largest value, powers neither overflow nor all vanish. The scale cancels
        # in the result, so that it needs no gradient. Comparisons are written to let NaN through.
        largest = lax.stop_gradient(feature_map.max((1, 2), keepdims=True))
        is_zero_map = largest <= 0
        scale = jnp.where(is_zero_map, 1.0, largest)
        ratios = feature_map / scale
        # Selected before and after: the gradient of a power at zero would be infinite. Below the
        # smallest normal number the platforms disagree on what is zero.
        is_zero = ratios < jnp.finfo(ratios.dtype).tiny
        powers = jnp.where(is_zero, 0.0, jnp.where(is_zero, 1.0, ratios) ** self.p)
        total = reduce(powers, (1, 2), keepdims=True)
        root = jnp.where(is_zero_map, 1.0, total) ** (1 / self.p)
        return jnp.where(is_zero_map, 0.0, scale * root)[:, 0, 0]


class Attention(nn.Module):
    """Averages with learned weights: features = sum over positions of softmax(score)_i f_i.

    score_i = tanh(f_i @ A + a) @ v + beta, one weight map for all channels; the softmax is over all
    positions. beta changes nothing, and gets no gradient; it is there so that the parameters are
    the published units * D + 2 * units + 1.

    Attributes:
        units: size of the hidden layer, >= 1; the thesis has 32, 64, 128, 256, 512 and 1024.

    Raises:
        ValueError: if units < 1, at construction.

    Source: Qian 2020, soft-attention pooling (listing). Its initialisation is not stated: here both
    layers have the reference framework's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """

    units: int = 128

    def __post_init__(self):
        if self.units < 1:
            raise ValueError(f"attention needs units >= 1, got {self.units}")
        super().__post_init__()

    def num_features(self, channels: int) -> int:
        return channels

    @nn.compact
    def __call__(self, feature_map: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        batch, _, _, channels = feature_map.shape
        x = feature_map.reshape(batch, -1, channels)
        hidden = jnp.tanh(_dense(self.units, channels, "hidden")(x))
        weights = nn.softmax(_dense(1, self.units, "score")(hidden), axis=1)
        return jnp.sum(weights * x, axis=1)


def _dense(features, fan_in, name):
    return nn.Dense(
        features, kernel_init=uniform_fan_in, bias_init=uniform(fan_in**-0.5), name=name
    )


class Flatten(nn.Module):
    """Averages windows of `window` x `window` pixels, then flattens channel-major.

    Index of channel c at position (i, j) of the h x w averages: `(c * h + i) * w + j`, as the
    channels-first reference flattens. Window 4 on the 12x12x512 map of `stl_resnet18` gives the
    4608 features of Shalev et al. 2020; rows and columns that fill no window are dropped.

    Attributes:
        window: side and stride of the windows in pixels; 1 flattens the map as it is.
    """

    window: int = 1

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(f"flatten needs window >= 1, got {self.window}")
        super().__post_init__()

    def num_features(self, channels: int) -> None:
        return None

    def __call__(self, feature_map: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        window, (batch, height, width, channels) = self.window, feature_map.shape
        rows, columns = height // window, width // window
        if rows == 0 or columns == 0:
            raise ValueError(
                f"flatten window {window} exceeds the {height}x{width} feature map; "
                "use a smaller window or larger images"
            )
        x = feature_map[:, : rows * window, : columns * window]
        x = x.reshape(batch, rows, window, columns, window, channels).mean((2, 4))
        return jnp.transpose(x, (0, 3, 1, 2)).reshape(batch, -1)


POOLINGS = {"mean": Mean, "max": Max, "power": Power, "attention": Attention, "flatten": Flatten}


def get_pool(name: str, **options) -> nn.Module:
    """Builds the pooling `name`; raises ValueError on an unknown name or option."""
    return lookup.build("pool", POOLINGS, name, options)
