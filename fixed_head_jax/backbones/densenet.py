"""DenseNet-BC for small images: every layer sees the maps of all layers before it in its block.

densenet_bc_100_12: 100 layers, growth rate 12, 765,732 parameters of the features. Works at any
input of at least 4 pixels; 32 pixels give an 8x8 map of 342 channels.

Source: Huang et al. 2017, https://arxiv.org/abs/1608.06993, CIFAR networks. There is no surgery:
the identity head takes K of the 342 channels (Qian 2020), the last ones, since in the order [input,
new] the first 150 pass the last block by.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import Conv, average_pool, check_size, remat_block

BLOCKS = 3


class DenseLayer(nn.Module):
    """norm, ReLU, 1x1 to 4 growth_rate channels, norm, ReLU, 3x3; appended to the input."""

    growth_rate: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        y = nn.relu(self.norm(name="norm1")(x, train))
        y = self.conv(4 * self.growth_rate, kernel_size=1, name="conv1")(y)
        y = nn.relu(self.norm(name="norm2")(y, train))
        y = self.conv(self.growth_rate, name="conv2")(y)
        return jnp.concatenate([x, y], axis=-1)


class DenseBlock(nn.Module):
    """Dense layers one after another."""

    num_layers: int
    layer: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        for index in range(self.num_layers):
            x = self.layer(name=f"denselayer{index + 1}")(x, train)
        return x


class Transition(nn.Module):
    """norm, ReLU, 1x1 to half of the channels, 2x2 averages."""

    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        y = nn.relu(self.norm(name="norm")(x, train))
        return average_pool(self.conv(x.shape[-1] // 2, kernel_size=1, name="conv")(y), 2, 2)


class DenseNet(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, H/4, W/4, D], ReLU applied.

    Attributes:
        depth: layers in all, 6n + 4.
        growth_rate: channels that each layer adds.
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the layers again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on images of fewer than 4 pixels a side, when called.
    """

    depth: int
    growth_rate: int
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "classifier"  # name of the classifier in torch state dicts
    head_defaults = {"identity": {"take": "last"}}  # the first channels pass the last block by

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        channels = 2 * self.growth_rate
        for block in range(BLOCKS):
            channels = (channels // 2 if block else channels) + self._per_block * self.growth_rate
        return channels

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the image up, each by the paths of its parts."""
        layers = [("features.conv0",)]
        for block in range(1, BLOCKS + 1):
            if block > 1:
                layers += [(f"features.transition{block - 1}",)]
            for index in range(1, self._per_block + 1):
                layers += [(f"features.denseblock{block}/denselayer{index}",)]
        return (*layers, ("features.norm5",))

    @property
    def _per_block(self) -> int:
        return (self.depth - 4) // (2 * BLOCKS)

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        check_size(images, 4)
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(BatchNorm, dtype=self.dtype, axis_name=self.axis_name)
        layer = partial(remat_block(DenseLayer, self.remat), self.growth_rate, conv, norm)
        x = conv(2 * self.growth_rate, name="features.conv0")(images)
        for block in range(1, BLOCKS + 1):
            if block > 1:
                x = Transition(conv, norm, name=f"features.transition{block - 1}")(x, train)
            x = DenseBlock(self._per_block, layer, name=f"features.denseblock{block}")(x, train)
        return nn.relu(norm(name="features.norm5")(x, train))


densenet_bc_100_12 = partial(DenseNet, 100, 12)
