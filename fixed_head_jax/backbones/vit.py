"""Vision transformers of the Self-Classifier code: the class token of pre-norm blocks.

Parameters of the features (patch 16, 224 pixels): vit_tiny 5,524,416; vit_small 21,665,664;
vit_base 85,798,656. deit_tiny and deit_small are vit_tiny and vit_small: without the distillation
token, DeiT is another training recipe for the same network. Any image whose sides are multiples
of `patch_size` works. Names follow timm: a parameter's path, joined by dots, is its torch name.

Source: Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; Touvron et al. 2021,
https://arxiv.org/abs/2012.12877; variants, initial values and `positions.resize_positions`: code of
Amrani et al. 2022, which publishes no result with them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.backbones.positions import is_table, resample_positions, resize_positions
from fixed_head_jax.layers.convolution import Conv
from fixed_head_jax.layers.initializers import uniform_fan_in

# The reference truncates at an absolute +-2, a hundred standard deviations: not at all.
normal_init = nn.initializers.normal(0.02)
MLP_RATIO = 4


def _dense(features, dtype, name):
    return nn.Dense(features, dtype=dtype, kernel_init=normal_init, name=name)


def _layer_norm(dtype, name):
    # E[x^2] - E[x]^2, the fast variance, loses digits where the mean is large.
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


class PatchEmbed(nn.Module):
    """Cuts images into squares, row by row, and maps each to a token of `width` channels."""

    width: int
    patch_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b rows columns d"]:
        return Conv(
            features=self.width,
            kernel_size=self.patch_size,
            strides=self.patch_size,
            padding=0,
            use_bias=True,
            kernel_init=uniform_fan_in,
            dtype=self.dtype,
            name="proj",
        )(images)


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q k^T / sqrt(head width)) v, softmax in float32."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        batch, tokens, width = x.shape
        qkv = _dense(3 * width, self.dtype, "qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        x = jax.nn.dot_product_attention(query, key, value).reshape(batch, tokens, width)
        return _dense(width, self.dtype, "proj")(x)


class Mlp(nn.Module):
    """Linear to four times the channels, exact GELU, linear back."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        y = _dense(MLP_RATIO * x.shape[-1], self.dtype, "fc1")(x)
        return _dense(x.shape[-1], self.dtype, "fc2")(nn.gelu(y, approximate=False))


class Block(nn.Module):
    """Attention, then the MLP, each on normalised tokens and added to what came in."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        y = _layer_norm(self.dtype, "norm1")(x)
        x = x + Attention(self.num_heads, self.dtype, name="attn")(y)
        y = _layer_norm(self.dtype, "norm2")(x)
        return x + Mlp(self.dtype, name="mlp")(y)


class ViT(nn.Module):
    """Maps images [B, H, W, C] to the normalised class token as a feature map [B, 1, 1, D].

    A map of one position, so that every pooling gives the class token itself as the features.

    Attributes:
        width: channels of a token, D.
        depth: number of blocks.
        num_heads: attention heads; divides `width`.
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the images that the position table is made for. Images of
            other sizes get an interpolated one in every call (`positions.resize_positions`),
            weights for other sizes one when they are read (`positions.resample_positions`).
        dtype: compute dtype; parameters, layer norm statistics and softmax stay float32.
        axis_name: unused, as there is no batch norm; here because every backbone takes it.
        remat: computes the blocks again in the backward pass instead of storing their insides.

    Raises:
        ValueError: on sizes below 1, a `width` that the heads do not divide or an `image_size`
            that the patches do not divide, at construction; on images that the patches do not
            divide, when called.
    """

    width: int
    depth: int
    num_heads: int
    patch_size: int = 16
    image_size: int = 224
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False

    torch_head = "head"  # name of the classifier in torch state dicts

    def __post_init__(self):
        for field in ("width", "depth", "num_heads", "patch_size", "image_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads ({self.num_heads}), got {self.width}"
            )
        self._check_size("image_size", self.image_size)
        super().__post_init__()

    def _check_size(self, what, pixels):
        if pixels % self.patch_size or pixels < 1:
            raise ValueError(
                f"{what} must be a multiple of patch_size ({self.patch_size}), got {pixels}; "
                f"resize the images or change patch_size"
            )

    @property
    def num_features(self) -> int:
        """Channels of the feature map."""
        return self.width

    @property
    def grid(self) -> int:
        """Positions of the table along a side."""
        return self.image_size // self.patch_size

    def resample(self, name: str, value: np.ndarray) -> np.ndarray:
        """Returns a weight as a network for `image_size` has it: positions are resampled."""
        if name == "pos_embed" and is_table(value.shape):
            return resample_positions(value, self.grid, self.grid)
        return value

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Top-level names of the parameters, layer by layer, from the image up."""
        blocks = tuple((f"blocks.{index}",) for index in range(self.depth))
        return (("cls_token", "pos_embed", "patch_embed"), *blocks, ("norm",))

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], train: bool) -> Float[Array, "b 1 1 d"]:
        """Computes the features; `train` changes nothing: no dropout, no batch norm."""
        x = self._tokens(images)
        block = nn.remat(Block) if self.remat else Block
        for index in range(self.depth):
            x = block(self.num_heads, self.dtype, name=f"blocks.{index}")(x)
        # Layer norm is by token: only the one that is returned needs it.
        return _layer_norm(self.dtype, "norm")(x[:, None, :1])

    def _tokens(self, images):
        """Returns the class token and the patches, with their positions: [B, 1 + patches, D]."""
        self._check_size("image height", images.shape[1])
        self._check_size("image width", images.shape[2])
        cls_token = self.param("cls_token", normal_init, (1, 1, self.width))
        pos_embed = self.param("pos_embed", normal_init, (1, 1 + self.grid**2, self.width))
        x = PatchEmbed(self.width, self.patch_size, self.dtype, name="patch_embed")(images)
        batch, rows, columns, width = x.shape
        cls_token = jnp.broadcast_to(cls_token.astype(self.dtype), (batch, 1, width))
        x = jnp.concatenate([cls_token, x.reshape(batch, rows * columns, width)], axis=1)
        return x + resize_positions(pos_embed, rows, columns).astype(self.dtype)


vit_tiny = partial(ViT, 192, 12, 3)
vit_small = partial(ViT, 384, 12, 6)
vit_base = partial(ViT, 768, 12, 12)
deit_tiny = vit_tiny
deit_small = vit_small
