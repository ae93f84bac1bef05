"""Gaussian blur, on the device, one random key per example."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from fixed_head_jax.augment import streams


def random_blur(
    rngs: Key[Array, " b"],
    images: Float32[Array, "b h w c"],
    probability: float,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> Float32[Array, "b h w c"]:
    """Blurs images, each with a Gaussian of its own width.

    Args:
        rngs: one key per example.
        images: pixels of any range.
        probability: of blurring an image, 0 ... 1.
        sigma: smallest and largest standard deviation in pixels, > 0; uniform between them.

    Source: SimCLR, https://arxiv.org/abs/2002.05709. Its kernel has 23 pixels at any width; ours
    reaches four times the largest `sigma`, beyond which lie 6e-5 of a Gaussian, or as far as
    the image goes.
    """
    low, high = sigma
    reach = min(math.ceil(4 * high), *(side - 1 for side in images.shape[1:3]))

    def draw(rng):
        return jax.random.uniform(jax.random.fold_in(rng, streams.BLUR), (2,))

    draws = jax.vmap(draw)(rngs)
    blurred = gaussian_blur(images, low + (high - low) * draws[:, 0], 2 * reach + 1)
    return jnp.where((draws[:, 1] < probability)[:, None, None, None], blurred, images)


def gaussian_blur(
    images: Float32[Array, "b h w c"], sigma: Float32[Array, " b"], kernel_size: int
) -> Float32[Array, "b h w c"]:
    """Convolves rows and columns with exp(-(x / sigma)^2 / 2), its sum scaled to 1.

    Args:
        images: pixels; beyond an edge they are mirrored, the edge itself not repeated.
        sigma: standard deviation for each image, in pixels, > 0.
        kernel_size: samples of the Gaussian, odd; at most 2 * min(h, w) - 1.

    Raises:
        ValueError: if `kernel_size` is even, or too large for the images.

    Source: torchvision's gaussian_blur.
    """
    reach = kernel_size // 2
    if kernel_size % 2 == 0 or not 0 <= reach < min(images.shape[1:3]):
        raise ValueError(
            f"kernel_size must be odd and at most {2 * min(images.shape[1:3]) - 1} "
            f"for images {images.shape[1:3]}, got {kernel_size}"
        )
    offsets = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    weights = jax.nn.softmax(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    # Sums of shifted images, those of one weight first: 4 times faster on the CPU than products
    # with a matrix. Without the barriers XLA mirrors and sums again for every shift.
    for axis in (1, 2):
        pads = [(0, 0)] * 4
        pads[axis] = (reach, reach)
        padded = jax.lax.optimization_barrier(jnp.pad(images, pads, mode="reflect"))
        shifted = [
            jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis)
            for i in range(kernel_size)
        ]
        total = weights[:, reach, None, None, None] * shifted[reach]
        for i in range(reach):
            total += weights[:, i, None, None, None] * (shifted[i] + shifted[-1 - i])
        images = jax.lax.optimization_barrier(total)
    return images
