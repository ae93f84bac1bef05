"""Residual networks for small images: depth 6n + 2, 16, 32 and 64 channels.

Parameters of the features: resnet20 269,072; resnet32 463,504; resnet44 657,936; resnet56 852,368.
Works at any input size; 32 pixels give an 8x8 feature map.

Source: He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385; `out_channels`: Qian 2020.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads import frames
from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import (
    Conv,
    check_out_channels,
    convolve,
    remat_block,
    resize_channels,
)
from fixed_head_jax.layers.initializers import he_normal_fan_in
from fixed_head_jax.settings.lookup import check_choice

SHORTCUTS = ("pad", "projection")
# Options C to G of the thesis: 1x1 convolutions whose kernel is a frame [in, out].
FRAMES: dict[str, Callable] = {
    "hadamard": frames.hadamard,
    "orthoplex": frames.orthoplex,
    "orthoplex_shuffled": frames.orthoplex_shuffled,
    "cube": frames.cube,
    "cube_random": frames.cube_random,
}
OUT_SHORTCUTS = (*SHORTCUTS, *FRAMES)


class FixedProjection(nn.Module):
    """A 1x1 convolution with fixed weights; Hadamard's are multiplied by a learned -scale.

    The scale starts at 1/sqrt(out). What is drawn (`cube_random`) lives in the collection "fixed".
    """

    features: int
    frame: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        def make():
            rng = self.make_rng("params") if self.frame == "cube_random" else None
            return FRAMES[self.frame](rng, x.shape[-1], self.features)

        if self.frame == "cube_random":
            kernel = self.variable("fixed", "kernel", make).value
        else:
            kernel = make()
        if self.frame == "hadamard":
            scale = self.param("scale", nn.initializers.constant(self.features**-0.5), ())
            kernel = -scale * kernel
        return convolve(x, kernel.astype(x.dtype)[None, None])


class CifarBlock(nn.Module):
    """conv 3x3, conv 3x3, plus the shortcut: zero channels, or a projection and batch norm."""

    channels: int
    strides: int
    shortcut: str
    conv: Callable
    norm: Callable
    out_channels: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        width = self.out_channels or self.channels
        y = self.conv(self.channels, strides=self.strides, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.norm(name="bn2")(self.conv(width, name="conv2")(y), train)
        if x.shape[-1] != width or self.strides != 1:
            if self.shortcut == "pad":
                x = resize_channels(x[:, :: self.strides, :: self.strides], width)
            elif self.shortcut == "projection":
                x = self.conv(width, kernel_size=1, strides=self.strides, name="downsample.0")(x)
                x = self.norm(name="downsample.1")(x, train)
            else:
                x = x[:, :: self.strides, :: self.strides]
                x = FixedProjection(width, self.shortcut, name="downsample.0")(x)
                x = self.norm(name="downsample.1")(x, train)
        # The surgery leaves the last block without its closing ReLU: its logits are signed.
        return y + x if self.out_channels else nn.relu(y + x)


class CifarResNet(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, H/4, W/4, D].

    Attributes:
        blocks_per_stage: n in depth = 6n + 2.
        shortcut: of the two blocks that halve the resolution: "pad" (no parameters; the thesis)
            or "projection" (1x1 convolution and batch norm).
        out_channels: None, or the number of class channels: the second convolution of the last
            block then gives exactly these (batch norm kept, closing ReLU removed).
        out_shortcut: shortcut of that block: "pad" (option A of the thesis; its published result),
            "projection" (B), or one with fixed weights and batch norm: "hadamard" (C),
            "orthoplex" (D), "orthoplex_shuffled" (E), "cube" (F) or "cube_random" (G).
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the blocks again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on an unknown shortcut or `out_channels` below 1, at construction.
    """

    blocks_per_stage: int
    shortcut: str = "pad"
    out_channels: int | None = None
    out_shortcut: str = "pad"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "linear"  # name of the classifier in torch state dicts

    def __post_init__(self):
        check_choice("shortcut", self.shortcut, SHORTCUTS)
        check_choice("out_shortcut", self.out_shortcut, OUT_SHORTCUTS)
        if self.out_channels is None and self.out_shortcut != "pad":
            raise ValueError(f"out_shortcut={self.out_shortcut!r} needs out_channels; set it")
        check_out_channels(self.out_channels)
        super().__post_init__()

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return self.out_channels or 64

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the image up, each by the names of its parts: a block is one layer."""
        blocks = (
            (f"layer{stage}.{index}",)
            for stage in (1, 2, 3)
            for index in range(self.blocks_per_stage)
        )
        return (("conv1", "bn1"), *blocks)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        conv = partial(Conv, dtype=self.dtype, kernel_init=he_normal_fan_in)
        norm = partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
        block = remat_block(CifarBlock, self.remat)
        x = nn.relu(norm(name="bn1")(conv(16, name="conv1")(images), train))
        for stage in range(3):
            for index in range(self.blocks_per_stage):
                is_last = stage == 2 and index == self.blocks_per_stage - 1
                x = block(
                    channels=16 * 2**stage,
                    strides=2 if stage > 0 and index == 0 else 1,
                    shortcut=self.out_shortcut if is_last else self.shortcut,
                    conv=conv,
                    norm=norm,
                    out_channels=self.out_channels if is_last else None,
                    name=f"layer{stage + 1}.{index}",
                )(x, train)
        return x


resnet20 = partial(CifarResNet, 3)
resnet32 = partial(CifarResNet, 5)
resnet44 = partial(CifarResNet, 7)
resnet56 = partial(CifarResNet, 9)
