"""Pixel values, on the device: scaling, jitter and the like, one random key per example."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, UInt8

from fixed_head_jax.augment import streams

_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R 601)
# Principal components of ImageNet's pixels in 0 ... 1 (columns) and their standard deviations.
_COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_DEVIATIONS = (0.2175, 0.0188, 0.0045)


def to_float(images: UInt8[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
    """Scales pixels 0 ... 255 to 0 ... 1."""
    return images.astype(jnp.float32) / 255


def normalize(
    images: Float32[Array, "b h w c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Array, "b h w c"]:
    """Computes `(images - mean) / std` per channel.

    Args:
        images: pixels in 0 ... 1.
        mean: mean of each channel, of pixels in 0 ... 1; one value serves all channels.
        std: standard deviation of each channel, > 0, likewise.

    Raises:
        ValueError: if the images have another number of channels.
    """
    channels = images.shape[-1]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise ValueError(
            f"mean and std need one value, or one for each of the {channels} channels, "
            f"got mean {mean} and std {std}"
        )
    center, spread = (jnp.asarray(x, jnp.float32).reshape(1, 1, 1, -1) for x in (mean, std))
    return (images - center) / spread


def grey(image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
    """Returns the luma of an image with three channels, or the image itself with one."""
    if image.shape[-1] == 1:
        return image
    # Not a sum over an axis of three: XLA's reductions are several times slower on the CPU.
    red, green, blue = (weight * image[..., i : i + 1] for i, weight in enumerate(_GREY))
    return red + green + blue


def adjust_brightness(
    image: Float[Array, "h w c"], factor: Float[Array, ""]
) -> Float[Array, "h w c"]:
    """Scales the pixels: black at factor 0."""
    return _blend(image, jnp.zeros_like(image), factor)


def adjust_contrast(
    image: Float[Array, "h w c"], factor: Float[Array, ""]
) -> Float[Array, "h w c"]:
    """Scales the differences from the mean luma of the image: one grey at factor 0."""
    return _blend(image, grey(image).mean(), factor)


def adjust_saturation(
    image: Float[Array, "h w c"], factor: Float[Array, ""]
) -> Float[Array, "h w c"]:
    """Scales the differences from each pixel's luma: a grey image at factor 0."""
    return _blend(image, grey(image), factor)


def adjust_hue(image: Float[Array, "h w c"], factor: Float[Array, ""]) -> Float[Array, "h w c"]:
    """Turns the hue by a share of the colour circle, at the same HSV saturation and value.

    Args:
        image: pixels in 0 ... 1; with one channel there is no hue to turn.
        factor: share of a whole turn, -1/2 ... 1/2; 1/3 turns red into green.

    Source: torchvision's adjust_hue, on floats. Back from the hue, in sixths of a turn from red:
    each channel is `value - chroma * clip(min(k, 4 - k), 0, 1)`, k the sixths since the start
    of its dark third.
    """
    if image.shape[-1] == 1:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    sixths = jnp.select(
        [value == red, value == green],
        [(green - blue) / divisor, 2 + (blue - red) / divisor],
        4 + (red - green) / divisor,
    )
    k = sixths[..., None] + 6 * factor + jnp.asarray([5.0, 3.0, 1.0]).reshape(1, 1, 3)
    k = k - 6 * jnp.floor(k / 6)
    dark = jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)
    return value[..., None] - chroma[..., None] * dark


def _blend(image, other, factor):
    return jnp.clip(factor * image + (1 - factor) * other, 0.0, 1.0)


def jitter(
    rngs: Key[Array, " b"],
    images: Float32[Array, "b h w c"],
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float = 0.0,
    probability: float = 1.0,
) -> Float32[Array, "b h w c"]:
    """Changes brightness, contrast, saturation and hue, in an order of its own for every image.

    Args:
        rngs: one key per example.
        images: pixels in 0 ... 1, of one channel or three.
        brightness: the factor is uniform in max(0, 1 - brightness) ... 1 + brightness; 0 leaves
            it, and its place in the order, out.
        contrast: same.
        saturation: same.
        hue: the factor is uniform in -hue ... hue, of a whole turn, 0 ... 1/2; 0 leaves it out.
        probability: of changing an image at all, 0 ... 1.

    Returns:
        Pixels in 0 ... 1.

    Source: torchvision's ColorJitter.
    """
    ranges = {
        adjust_brightness: (max(0.0, 1 - brightness), 1 + brightness),
        adjust_contrast: (max(0.0, 1 - contrast), 1 + contrast),
        adjust_saturation: (max(0.0, 1 - saturation), 1 + saturation),
        adjust_hue: (-hue, hue),
    }
    ranges = {adjust: (low, high) for adjust, (low, high) in ranges.items() if low < high}

    def one(rng_and_image):
        rng, image = rng_and_image
        order_rng, factor_rng = jax.random.split(jax.random.fold_in(rng, streams.JITTER))
        order = jax.random.permutation(order_rng, len(ranges))
        uniform = jax.random.uniform(factor_rng, (len(ranges),))
        changes = [
            partial(adjust, factor=low + (high - low) * uniform[index])
            for index, (adjust, (low, high)) in enumerate(ranges.items())
        ]
        for place in range(len(changes)):
            image = jax.lax.switch(order[place], changes, image)
        return image

    if not ranges:
        return images
    # One image after the other takes only the branch of its turn; side by side all are computed,
    # which took 15 times as long on the CPU.
    on_cpu = jax.default_backend() == "cpu"
    changed = jax.lax.map(one, (rngs, images)) if on_cpu else jax.vmap(one)((rngs, images))
    return _where_drawn(rngs, streams.IS_JITTERED, probability, changed, images)


def random_grey(
    rngs: Key[Array, " b"], images: Float32[Array, "b h w c"], probability: float
) -> Float32[Array, "b h w c"]:
    """Replaces all channels of an image by its luma.

    Args:
        rngs: one key per example.
        images: pixels in 0 ... 1; of one channel they stay as they are.
        probability: of doing so, 0 ... 1.

    Source: torchvision's RandomGrayscale, with the weights it has for Pillow images (for tensors
    red weighs 0.2989: a difference of at most 1e-4).
    """
    greys = jnp.broadcast_to(jax.vmap(grey)(images), images.shape)
    return _where_drawn(rngs, streams.RANDOM_GREY, probability, greys, images)


def solarize(
    rngs: Key[Array, " b"],
    images: Float32[Array, "b h w c"],
    probability: float,
    threshold: float = 0.5,
) -> Float32[Array, "b h w c"]:
    """Inverts the pixels from a threshold on: 1 - x where x >= threshold.

    Args:
        rngs: one key per example.
        images: pixels in 0 ... 1.
        probability: of doing so to an image, 0 ... 1.
        threshold: 0 inverts all; 1/2 is 128 of the 256 levels.

    Source: torchvision's RandomSolarize.
    """
    inverted = jnp.where(images >= threshold, 1 - images, images)
    return _where_drawn(rngs, streams.SOLARIZE, probability, inverted, images)


def _where_drawn(rngs, constant, probability, changed, images):
    """Takes each image of `changed` with the given probability, else that of `images`."""

    def is_drawn(rng):
        return jax.random.bernoulli(jax.random.fold_in(rng, constant), probability)

    return jnp.where(jax.vmap(is_drawn)(rngs)[:, None, None, None], changed, images)


def lighting(
    rngs: Key[Array, " b"], images: Float32[Array, "b h w c"], deviation: float
) -> Float32[Array, "b h w c"]:
    """Adds random multiples of the principal components of ImageNet's pixels to an image.

    Args:
        rngs: one key per example.
        images: pixels in 0 ... 1, three channels.
        deviation: standard deviation of the multiples, >= 0; 0.1 in the paper.

    Returns:
        The pixels plus one offset per image and channel, not clipped.

    Raises:
        ValueError: if the images have another number of channels.

    Source: Krizhevsky et al. 2012, section 4.1.
    """
    if images.shape[-1] != 3:
        raise ValueError(
            f"lighting needs images with 3 channels, got {images.shape[-1]}; set "
            "augment.lighting=0, or data.channels=3"
        )

    def multiples(rng):
        return deviation * jax.random.normal(jax.random.fold_in(rng, streams.LIGHTING), (3,))

    return images + lighting_offsets(jax.vmap(multiples)(rngs))[:, None, None, :]


def lighting_offsets(multiples: Float[Array, "b 3"]) -> Float[Array, "b 3"]:
    """Returns the offset of each channel for the multiples of the three components."""
    scaled = np.asarray(_COMPONENTS) * np.asarray(_DEVIATIONS)[None, :]
    return jnp.einsum("bi,ci->bc", multiples, jnp.asarray(scaled, multiples.dtype))
