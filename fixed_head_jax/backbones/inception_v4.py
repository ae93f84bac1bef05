"""Inception v4: 22 feature blocks that the transfer work counts its layers by.

Parameters of the features: 41,142,816. Any input of at least 75 pixels works; published weights
expect 299, which gives an 8x8 map of 1,536 channels (at 75 pixels 1x1).

Source: Szegedy et al. 2016, https://arxiv.org/abs/1602.07261, in the public PyTorch form.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.convolution import Conv, average_pool, check_size, max_pool, remat_block
from fixed_head_jax.layers.initializers import uniform_fan_in

# A branch is its name and its steps; a step is MAX, AVERAGE or the fields of a ConvUnit. The
# outputs of the branches of a block are concatenated in this order.
MAX, AVERAGE = "max", "average"


def unit(features: int, kernel_size=1, strides: int = 1, padding=None) -> dict[str, Any]:
    """Describes a ConvUnit; padding None keeps the size, 0 gives only whole windows."""
    return dict(features=features, kernel_size=kernel_size, strides=strides, padding=padding)


def halving(features: int) -> dict[str, Any]:
    """Describes a ConvUnit with 3x3 windows at stride 2, unpadded."""
    return unit(features, 3, 2, 0)


MIXED_3A = (("pool", [MAX]), ("conv", [halving(96)]))
MIXED_4A = (
    ("branch0", [unit(64), unit(96, 3, padding=0)]),
    ("branch1", [unit(64), unit(64, (1, 7)), unit(64, (7, 1)), unit(96, 3, padding=0)]),
)
MIXED_5A = (("conv", [halving(192)]), ("pool", [MAX]))
INCEPTION_A = (
    ("branch0", [unit(96)]),
    ("branch1", [unit(64), unit(96, 3)]),
    ("branch2", [unit(64), unit(96, 3), unit(96, 3)]),
    ("branch3", [AVERAGE, unit(96)]),
)
REDUCTION_A = (
    ("branch0", [halving(384)]),
    ("branch1", [unit(192), unit(224, 3), halving(256)]),
    ("branch2", [MAX]),
)
INCEPTION_B = (
    ("branch0", [unit(384)]),
    ("branch1", [unit(192), unit(224, (1, 7)), unit(256, (7, 1))]),
    (
        "branch2",
        [unit(192), unit(192, (7, 1)), unit(224, (1, 7)), unit(224, (7, 1)), unit(256, (1, 7))],
    ),
    ("branch3", [AVERAGE, unit(128)]),
)
REDUCTION_B = (
    ("branch0", [unit(192), halving(192)]),
    ("branch1", [unit(256), unit(256, (1, 7)), unit(320, (7, 1)), halving(320)]),
    ("branch2", [MAX]),
)
STEM = (unit(32, 3, 2, 0), unit(32, 3, padding=0), unit(64, 3))
MIXED = (
    *(MIXED_3A, MIXED_4A, MIXED_5A),
    *(INCEPTION_A,) * 4,
    REDUCTION_A,
    *(INCEPTION_B,) * 7,
    REDUCTION_B,
)
NUM_INCEPTION_C = 3


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    features: int
    conv: Callable
    norm: Callable
    kernel_size: int | tuple[int, int] = 1
    strides: int = 1
    padding: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        options = dict(strides=self.strides, padding=self.padding, name="conv")
        x = self.conv(self.features, self.kernel_size, **options)(x)
        return nn.relu(self.norm(name="bn")(x, train))


class Mixed(nn.Module):
    """Branches side by side, concatenated."""

    branches: tuple
    unit: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        return jnp.concatenate(
            [self._branch(name, steps, x, train) for name, steps in self.branches], -1
        )

    def _branch(self, name, steps, x, train):
        for index, step in enumerate(steps):
            if step == MAX:
                x = max_pool(x, 0)
            elif step == AVERAGE:
                x = average_pool(x, 3, 1, 1)
            else:
                x = self.unit(**step, name=name if len(steps) == 1 else f"{name}.{index}")(x, train)
        return x


class InceptionC(nn.Module):
    """Branches that fork at their ends into a row and a column convolution."""

    unit: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        def apply(name, x, features, kernel_size=1):
            return self.unit(features, kernel_size=kernel_size, name=name)(x, train)

        one = apply("branch1_0", x, 384)
        two = apply("branch2_1", apply("branch2_0", x, 384), 448, (3, 1))
        two = apply("branch2_2", two, 512, (1, 3))
        parts = [
            apply("branch0", x, 256),
            apply("branch1_1a", one, 256, (1, 3)),
            apply("branch1_1b", one, 256, (3, 1)),
            apply("branch2_3a", two, 256, (1, 3)),
            apply("branch2_3b", two, 256, (3, 1)),
            apply("branch3.1", average_pool(x, 3, 1, 1), 256),
        ]
        return jnp.concatenate(parts, axis=-1)


class InceptionV4(nn.Module):
    """Maps images [B, H, W, C] to the last feature map [B, about H/32, about W/32, 1536].

    Attributes:
        dtype: compute dtype.
        axis_name: mesh axis that batch statistics are averaged over, or None.
        remat: computes the mixed blocks again in the backward pass instead of storing their
            insides.

    Raises:
        ValueError: on images of fewer than 75 pixels a side, when called.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "last_linear"  # name of the classifier in torch state dicts
    torch_has_background = True  # an older file's classifier has a row for no class before 1000

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return 1536

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """The 22 feature blocks from the image up, each by the names of its parts (here one)."""
        return tuple((f"features.{i}",) for i in range(len(STEM) + len(MIXED) + NUM_INCEPTION_C))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        check_size(images, 75)
        conv = partial(Conv, dtype=self.dtype, kernel_init=uniform_fan_in)
        norm = partial(BatchNorm, epsilon=1e-3, dtype=self.dtype, axis_name=self.axis_name)
        conv_unit = partial(ConvUnit, conv=conv, norm=norm)
        mixed, inception_c = remat_block(Mixed, self.remat), remat_block(InceptionC, self.remat)
        blocks: list[Callable] = [partial(conv_unit, **fields) for fields in STEM]
        blocks += [partial(mixed, branches, conv_unit) for branches in MIXED]
        blocks += [partial(inception_c, conv_unit)] * NUM_INCEPTION_C
        x = images
        for index, block in enumerate(blocks):
            x = block(name=f"features.{index}")(x, train)
        return x
