"""Poolings: feature map [B, h, w, C] -> features [B, D].

A pooling is a linen module with `num_features(channels)`: D, or None where it depends on the
size of the map. To add one, write the module here and name it in `POOLINGS`.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax import lookup


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


POOLINGS = {"mean": Mean, "max": Max, "flatten": Flatten}


def get_pool(name: str, **options) -> nn.Module:
    """Builds the pooling `name`; raises ValueError on an unknown name or option."""
    return lookup.build("pool", POOLINGS, name, options)
