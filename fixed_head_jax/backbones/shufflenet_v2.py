"""ShuffleNetV2: half of the channels pass by each unit, then the halves are interleaved.

Parameters of the features: shufflenet_v2_x0_5 341,792; shufflenet_v2_x1_0 1,253,604. Any input of
at least 32 pixels works; published weights expect 224, which gives a 7x7 map.

Source: Ma et al. 2018, https://arxiv.org/abs/1807.11164; surgery (`out_channels`): Qian 2020.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import Conv, check_out_channels, max_pool, remat_block
from fixed_head_jax.layers.initializers import uniform_fan_in

UNITS = (4, 8, 4)


class ShuffleUnit(nn.Module):
    """Stride 1 changes one half of the channels, stride 2 computes both halves from all of them."""

    features: int
    strides: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        if self.strides == 1:
            left, right = jnp.split(x, 2, axis=-1)
        else:
            left = self._pointwise(self._depthwise(x, train, "branch1", 0), train, "branch1", 2)
            right = x
        right = self._pointwise(right, train, "branch2", 0)
        right = self._pointwise(self._depthwise(right, train, "branch2", 3), train, "branch2", 5)
        return _interleave(left, right)

    def _pointwise(self, x, train, branch, index):
        x = self.conv(self.features // 2, kernel_size=1, name=f"{branch}.{index}")(x)
        return nn.relu(self.norm(name=f"{branch}.{index + 1}")(x, train))

    def _depthwise(self, x, train, branch, index):
        channels = x.shape[-1]
        options = dict(strides=self.strides, groups=channels, name=f"{branch}.{index}")
        return self.norm(name=f"{branch}.{index + 1}")(self.conv(channels, **options)(x), train)


def _interleave(left, right):
    """Returns the channels left 0, right 0, left 1, right 1, ..."""
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:3], -1)


class ShuffleNetV2(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, H/32, W/32, D].

    Attributes:
        channels: of the three stages, each even.
        out_channels: None, or the number of class channels: the closing 1x1 convolution then
            gives exactly these, with a bias, and neither batch norm nor ReLU follows.
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the units again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on `out_channels` below 1, at construction.
    """

    channels: tuple[int, int, int]
    out_channels: int | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "fc"  # name of the classifier in torch state dicts

    def __post_init__(self):
        check_out_channels(self.out_channels)
        super().__post_init__()

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return self.out_channels or 1024

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the image up, each by the names of its parts."""
        norm = () if self.out_channels else ("conv5.1",)
        units = tuple(
            (f"stage{stage}.{index}",)
            for stage, count in enumerate(UNITS, start=2)
            for index in range(count)
        )
        return (("conv1.0", "conv1.1"), *units, ("conv5.0", *norm))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        conv = partial(Conv, dtype=self.dtype, kernel_init=uniform_fan_in)
        norm = partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
        unit = remat_block(ShuffleUnit, self.remat)
        x = nn.relu(norm(name="conv1.1")(conv(24, strides=2, name="conv1.0")(images), train))
        x = max_pool(x)
        for stage, (features, count) in enumerate(zip(self.channels, UNITS, strict=True), start=2):
            for index in range(count):
                x = unit(
                    features, 2 if index == 0 else 1, conv, norm, name=f"stage{stage}.{index}"
                )(x, train)
        last = partial(conv, self.num_features, kernel_size=1, name="conv5.0")
        if self.out_channels:
            return last(use_bias=True)(x)
        return nn.relu(norm(name="conv5.1")(last()(x), train))


shufflenet_v2_x0_5 = partial(ShuffleNetV2, (48, 96, 192))
shufflenet_v2_x1_0 = partial(ShuffleNetV2, (116, 232, 464))
