"""Pixel values."""

import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8


def normalize(
    images: UInt8[Array, "b h w c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Array, "b h w c"]:
    """Computes `(images / 255 - mean) / std` per channel.

    Args:
        images: pixels 0 ... 255.
        mean: mean of each channel, of pixels in 0 ... 1.
        std: standard deviation of each channel, > 0.

    Raises:
        ValueError: if the images have another number of channels.
    """
    channels = images.shape[-1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"mean and std need one value for each of the {channels} channels, "
            f"got mean {mean} and std {std}"
        )
    mean = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    std = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return (images.astype(jnp.float32) / 255 - mean) / std
