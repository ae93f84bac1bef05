"""Crops and flips, on the device, one random key per example."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key, Shaped

from fixed_head_jax.augment import streams

_ATTEMPTS = 10


def pad_and_crop(
    rngs: Key[Array, " b"], images: Shaped[Array, "b h w c"], padding: int
) -> Shaped[Array, "b h w c"]:
    """Pads with zeros on all sides and crops back to the input size at a random position.

    The (2 * padding + 1)^2 positions are equally likely.

    Args:
        rngs: one key per example.
        images: images of any dtype; zero is black before normalisation.
        padding: pixels added on each side, >= 0.

    Returns:
        The crops, of the dtype of `images`.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2 (padding 4).
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(rng, image):
        rng = jax.random.fold_in(rng, streams.PAD_AND_CROP)
        top, left = jax.random.randint(rng, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(crop)(rngs, padded)


def flip(rngs: Key[Array, " b"], images: Shaped[Array, "b h w c"]) -> Shaped[Array, "b h w c"]:
    """Mirrors each image left-right with probability 1/2.

    Args:
        rngs: one key per example.
        images: images of any dtype.

    Returns:
        The images, mirrored or as they were.
    """

    def is_flipped(rng):
        return jax.random.bernoulli(jax.random.fold_in(rng, streams.FLIP))

    flipped = jax.vmap(is_flipped)(rngs)[:, None, None, None]
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_resized_crop(
    rngs: Key[Array, " b"],
    images: Shaped[Array, "b h w c"],
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = "bilinear",
) -> Shaped[Array, "b {size} {size} c"]:
    """Crops a random rectangle of each image and resizes it to a square.

    Args:
        rngs: one key per example.
        images: images of any dtype.
        size: side of the square in pixels.
        scale: see `random_boxes`.
        ratio: see `random_boxes`.
        method: see `resize_boxes`.

    Returns:
        The crops, of the dtype of `images`.

    Raises:
        ValueError: as `random_boxes` and `resize_boxes` do.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, in the form of torchvision's
    RandomResizedCrop.
    """

    def draw(rng):
        return jax.random.uniform(
            jax.random.fold_in(rng, streams.RANDOM_RESIZED_CROP), (_ATTEMPTS, 4)
        )

    _, height, width, _ = images.shape
    boxes = random_boxes(jax.vmap(draw)(rngs), height, width, scale, ratio)
    return resize_boxes(images, boxes, size, method)


def random_boxes(
    draws: Float32[Array, "b attempts 4"],
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int32[Array, "b 4"]:
    """Chooses a rectangle of random area and aspect inside each image, as the host's crops do.

    An attempt takes a share of the area uniform in `scale` and an aspect (width / height)
    log-uniform in `ratio`; the first whose rounded sides fit is put at a uniform place. If none
    fits, the largest central rectangle with an aspect in `ratio` is taken.

    Args:
        draws: uniform numbers in [0, 1): area, aspect, top and left of each attempt.
        height: of the images, in pixels.
        width: of the images, in pixels.
        scale: smallest and largest share of the area, in (0, 1].
        ratio: smallest and largest aspect, > 0.

    Returns:
        Top, left, height and width in pixels.

    Raises:
        ValueError: if `scale` or `ratio` is not such a range.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be a range of shares in (0, 1], smallest first, got {scale}")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be a range of numbers > 0, smallest first, got {ratio}")
    share, aspect, down, right = jnp.moveaxis(draws, -1, 0)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
    root = jnp.exp(0.5 * (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect))
    box_width, box_height = jnp.round(jnp.sqrt(area) * root), jnp.round(jnp.sqrt(area) / root)
    top = jnp.floor(down * (height - box_height + 1))
    left = jnp.floor(right * (width - box_width + 1))
    fits = (0 < box_width) & (box_width <= width) & (0 < box_height) & (box_height <= height)
    boxes = jnp.stack([top, left, box_height, box_width], -1).astype(jnp.int32)
    first = jnp.argmax(fits, -1)[:, None, None]
    chosen = jnp.take_along_axis(boxes, first, axis=1)[:, 0]

    central = min(max(width / height, ratio[0]), ratio[1])
    central_width = min(width, round(height * central))
    central_height = min(height, round(width / central))
    margins = (height - central_height) // 2, (width - central_width) // 2
    fallback = jnp.asarray([[*margins, central_height, central_width]], jnp.int32)
    return jnp.where(fits.any(-1)[:, None], chosen, fallback)


def resize_boxes(
    images: Shaped[Array, "b h w c"],
    boxes: Int32[Array, "b 4"],
    size: int,
    method: str = "bilinear",
) -> Shaped[Array, "b {size} {size} c"]:
    """Resizes a rectangle of each image to a square, antialiased where it shrinks.

    An output pixel is the mean of the rectangle's pixels, weighed by a kernel around its place;
    the kernel is as wide as an output pixel where that is larger than an input pixel. Both ways
    are products with a matrix, so this costs 2 * size * w * c * (h + size) operations an image.

    Args:
        images: images of any dtype; pixels outside the rectangle have no part in the result.
        boxes: top, left, height and width of the rectangle, in pixels, inside the image.
        size: side of the square in pixels.
        method: "bilinear" or "bicubic" (Keys' kernel with a = -1/2).

    Returns:
        The squares, of the dtype of `images`: integers rounded and kept in the range of uint8.

    Raises:
        ValueError: if there is no such `method`.

    Source: Pillow's resize(box=...), in float32 and rounded once.
    """
    kernels = {"bilinear": _triangle, "bicubic": _cubic}
    if method not in kernels:
        raise ValueError(f"method must be one of {sorted(kernels)}, got {method!r}")
    kernel = kernels[method]

    def weights(start, length, side):
        step = length / size
        width = jnp.maximum(step, 1.0)
        centres = start + (jnp.arange(size) + 0.5) * step
        pixels = jnp.arange(side)
        distances = (pixels[None] + 0.5 - centres[:, None]) / width
        inside = (pixels >= start) & (pixels < start + length)
        taps = jnp.where(inside[None], kernel(distances), 0.0)
        return taps / taps.sum(1, keepdims=True)

    def resize(image, box):
        down, across = (
            weights(box[0], box[2], image.shape[0]),
            weights(box[1], box[3], image.shape[1]),
        )
        # Full precision: accelerators would round the pixels to 8 or 11 bits.
        rows = jnp.einsum("yh,hwc->ywc", down, image, precision="highest")
        return jnp.einsum("xw,ywc->yxc", across, rows, precision="highest")

    resized = jax.vmap(resize)(images.astype(jnp.float32), boxes)
    if jnp.issubdtype(images.dtype, jnp.integer):
        resized = jnp.clip(jnp.round(resized), 0, 255)
    return resized.astype(images.dtype)


def _triangle(x):
    return jnp.maximum(1 - jnp.abs(x), 0.0)


def _cubic(x):
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0.0))
