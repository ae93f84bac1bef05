"""MobileNetV2: inverted residuals with depthwise convolutions.

Parameters of the features: 2,223,872 at width 1. Any input of at least 32 pixels works; published
weights expect 224, which gives a 7x7 map. The closing dropout of the original is not part of the
features.

Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381; surgery (`out_channels`): Qian 2020.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import Conv, check_out_channels, remat_block
from fixed_head_jax.layers.initializers import uniform_fan_in

# Expansion, channels at width 1, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion (none at 1), 3x3 depthwise, linear 1x1 projection; plus x where it fits."""

    features: int
    strides: int
    expansion: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        width = x.shape[-1] * self.expansion
        depthwise = 0 if self.expansion == 1 else 1
        y = x
        if self.expansion != 1:
            y = self.conv(width, kernel_size=1, name="conv.0.0")(y)
            y = nn.relu6(self.norm(name="conv.0.1")(y, train))
        y = self.conv(width, strides=self.strides, groups=width, name=f"conv.{depthwise}.0")(y)
        y = nn.relu6(self.norm(name=f"conv.{depthwise}.1")(y, train))
        y = self.conv(self.features, kernel_size=1, name=f"conv.{depthwise + 1}")(y)
        y = self.norm(name=f"conv.{depthwise + 2}")(y, train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, H/32, W/32, D].

    Attributes:
        width: multiplies the channels, which are then rounded to multiples of 8; > 0.
        out_channels: None, or the number of class channels: the closing 1x1 convolution then
            gives exactly these, with a bias, and neither batch norm nor ReLU6 follows (it would
            cap the logits at 6).
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the blocks again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on a `width` or `out_channels` out of range, at construction.
    """

    width: float = 1.0
    out_channels: int | None = None
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "classifier.1"  # name of the classifier in torch state dicts
    head_defaults = {"linear": {"kernel_init": "normal"}}  # of the public model

    def __post_init__(self):
        if self.width <= 0:
            raise ValueError(f"width must be positive, got {self.width}")
        check_out_channels(self.out_channels)
        super().__post_init__()

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return self.out_channels or round_channels(1280 * max(1.0, self.width))

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the image up, each by the names of its parts."""
        norm = () if self.out_channels else ("features.18.1",)
        blocks = tuple((f"features.{index}",) for index in range(1, 18))
        return (("features.0.0", "features.0.1"), *blocks, ("features.18.0", *norm))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
        block = remat_block(InvertedResidual, self.remat)
        x = conv(round_channels(32 * self.width), strides=2, name="features.0.0")(images)
        x = nn.relu6(norm(name="features.0.1")(x, train))
        index = 0
        for expansion, channels, blocks, first_strides in STAGES:
            for position in range(blocks):
                index += 1
                x = block(
                    features=round_channels(channels * self.width),
                    strides=first_strides if position == 0 else 1,
                    expansion=expansion,
                    conv=conv,
                    norm=norm,
                    name=f"features.{index}",
                )(x, train)
        last = partial(conv, self.num_features, kernel_size=1, name="features.18.0")
        if self.out_channels:
            return last(use_bias=True, kernel_init=uniform_fan_in)(x)
        return nn.relu6(norm(name="features.18.1")(last()(x), train))


def round_channels(channels: float) -> int:
    """Rounds to the nearest multiple of 8, but never more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
