"""Residual networks with the ImageNet stem, and the STL-10 variant without pooling in the stem.

Parameters of the features: resnet10 4,905,792; resnet18 11,176,512; resnet34 21,284,672;
resnet50 23,508,032; stl_resnet18 11,168,832. Any input of at least 32 pixels works.

Source: He et al. 2016, https://arxiv.org/abs/1512.03385; stl_resnet18: Shalev et al. 2020,
https://arxiv.org/abs/2011.08704; surgery (`out_channels`): Qian 2020, section on identity heads.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import (
    Conv,
    check_out_channels,
    max_pool,
    remat_block,
    resize_channels,
)
from fixed_head_jax.layers.initializers import he_normal_fan_out, uniform_fan_in
from fixed_head_jax.settings.lookup import check_choice

STEMS = ("imagenet", "stl")
OUT_SHORTCUTS = ("pad", "projection", "none")


class BasicBlock(nn.Module):
    """conv 3x3, conv 3x3, plus the shortcut; `out_channels` makes it the surgery's last block."""

    channels: int
    strides: int
    conv: Callable
    norm: Callable
    out_channels: int | None = None
    out_shortcut: str = "pad"

    expansion = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        y = self.conv(self.channels, strides=self.strides, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        if self.out_channels is None:
            y = self.norm(name="bn2")(self.conv(self.channels, name="conv2")(y), train)
            return nn.relu(y + _shortcut(self, x, self.channels, train))
        y = self.conv(self.out_channels, use_bias=True, kernel_init=uniform_fan_in, name="conv2")(y)
        return nn.relu(y + _surgery_shortcut(self, x))


class Bottleneck(nn.Module):
    """conv 1x1, conv 3x3 (carries the stride), conv 1x1 to four times the channels, shortcut."""

    channels: int
    strides: int
    conv: Callable
    norm: Callable
    out_channels: int | None = None
    out_shortcut: str = "pad"

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        y = self.conv(self.channels, kernel_size=1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.conv(self.channels, strides=self.strides, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train))
        last = partial(self.conv, kernel_size=1, name="conv3")
        if self.out_channels is None:
            width = self.channels * self.expansion
            y = self.norm(name="bn3")(last(width)(y), train)
            return nn.relu(y + _shortcut(self, x, width, train))
        y = last(self.out_channels, use_bias=True, kernel_init=uniform_fan_in)(y)
        return nn.relu(y + _surgery_shortcut(self, x))


def _shortcut(block, x, width, train):
    """Returns x, projected by a 1x1 convolution and batch norm where the shape changes."""
    if x.shape[-1] == width and block.strides == 1:
        return x
    x = block.conv(width, kernel_size=1, strides=block.strides, name="downsample.0")(x)
    return block.norm(name="downsample.1")(x, train)


def _surgery_shortcut(block, x):
    """Returns the shortcut of the last block with `out_channels` channels, or zero for none."""
    if block.out_shortcut == "none":
        return 0.0
    # The last block halves the resolution where it is the first of its stage too (resnet10).
    x = x[:, :: block.strides, :: block.strides]
    if block.out_shortcut == "pad":
        return resize_channels(x, block.out_channels)
    options = dict(kernel_size=1, use_bias=True, kernel_init=uniform_fan_in, name="downsample.0")
    return block.conv(block.out_channels, **options)(x)


class ResNet(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, H/32, W/32, D] (STL stem: H/8).

    Attributes:
        block: BasicBlock or Bottleneck.
        stage_sizes: blocks in each of the four stages.
        stem: "imagenet" (7x7 stride 2, then max-pool) or "stl" (3x3 stride 1, no pooling).
        kernel_init: initializer of every convolution but the surgery's.
        out_channels: None, or the number of class channels: the last convolution then gives
            exactly these, with a bias and no batch norm; the closing ReLU stays.
        out_shortcut: shortcut of that block: "pad" (zero channels, or a crop; no parameters),
            "projection" (learned 1x1 with bias) or "none".
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the blocks again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on an unknown `stem` or `out_shortcut`, or `out_channels` below 1; at
            construction.
    """

    block: type[BasicBlock] | type[Bottleneck]
    stage_sizes: Sequence[int]
    stem: str = "imagenet"
    kernel_init: Callable = he_normal_fan_out
    out_channels: int | None = None
    out_shortcut: str = "pad"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "fc"  # name of the classifier in torch state dicts

    def __post_init__(self):
        check_choice("stem", self.stem, STEMS)
        check_choice("out_shortcut", self.out_shortcut, OUT_SHORTCUTS)
        check_out_channels(self.out_channels)
        super().__post_init__()

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return self.out_channels or 512 * self.block.expansion

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the image up, each by the names of its parts: a block is one layer."""
        blocks = (
            (f"layer{stage}.{index}",)
            for stage, count in enumerate(self.stage_sizes, start=1)
            for index in range(count)
        )
        return (("conv1", "bn1"), *blocks)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        conv = partial(Conv, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
        block = remat_block(self.block, self.remat)
        if self.stem == "imagenet":
            x = conv(64, kernel_size=7, strides=2, name="conv1")(images)
            x = max_pool(nn.relu(norm(name="bn1")(x, train)))
        else:
            x = nn.relu(norm(name="bn1")(conv(64, name="conv1")(images), train))
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                is_last = stage == len(self.stage_sizes) - 1 and index == blocks - 1
                x = block(
                    channels=64 * 2**stage,
                    strides=2 if stage > 0 and index == 0 else 1,
                    conv=conv,
                    norm=norm,
                    out_channels=self.out_channels if is_last else None,
                    out_shortcut=self.out_shortcut,
                    name=f"layer{stage + 1}.{index}",
                )(x, train)
        return x


resnet10 = partial(ResNet, BasicBlock, (1, 1, 1, 1))
resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
stl_resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2), stem="stl", kernel_init=uniform_fan_in)
