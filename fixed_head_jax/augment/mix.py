"""Mixup and CutMix of a batch, and random erasing of normalised images, on the device."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key, Num

from fixed_head_jax.augment import streams

_ATTEMPTS = 10


def draw_shares(
    rng: Key[Array, ""],
    height: int,
    width: int,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    probability: float = 1.0,
    switch_probability: float = 0.5,
) -> Float32[Array, "h w"]:
    """Draws the share that every pixel keeps of its own image, one for the whole batch.

    Mixup: all pixels keep weight ~ Beta(alpha, alpha). CutMix: all keep 1 but those of a rectangle
    with sides sqrt(1 - weight) of the image's, cut off where it leaves the image, which keep 0.

    Args:
        rng: the key of the batch. The caller gives every device the same one, and one that is no
            example's key: that of the step with a number folded in that is no example's index.
        height: of the images, in pixels.
        width: of the images, in pixels.
        mixup_alpha: of the distribution, >= 0; 0 is no mixup.
        cutmix_alpha: same, of CutMix.
        probability: of mixing the batch at all, 0 ... 1.
        switch_probability: of CutMix rather than mixup, 0 ... 1, where both have an alpha.

    Returns:
        Shares in 0 ... 1, for `mix`.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1710.09412, and Yun et al. 2019,
    https://arxiv.org/abs/1905.04899, combined as in timm's batch mode.
    """
    applied_rng, switch_rng, weight_rng, box_rng = jax.random.split(rng, 4)
    if mixup_alpha and cutmix_alpha:
        is_cut = jax.random.bernoulli(switch_rng, switch_probability)
    else:
        is_cut = jnp.asarray(bool(cutmix_alpha))
    alpha = jnp.where(is_cut, cutmix_alpha, mixup_alpha)
    weight = jax.random.beta(weight_rng, alpha, alpha)
    cut = cutmix_shares(weight, jax.random.uniform(box_rng, (2,)), height, width)
    own = jnp.ones((height, width))
    shares = jnp.where(is_cut, cut, own * weight)
    return jnp.where(jax.random.bernoulli(applied_rng, probability), shares, own)


def cutmix_shares(
    weight: Float32[Array, ""], centre: Float32[Array, "2"], height: int, width: int
) -> Float32[Array, "h w"]:
    """Returns 0 in CutMix's rectangle, 1 outside.

    Args:
        weight: share of the area outside, were the rectangle not cut off at the edges, 0 ... 1.
        centre: of the rectangle, uniform numbers in [0, 1): down and across.
        height: of the images, in pixels.
        width: of the images, in pixels.
    """

    def is_inside(side, place):
        half = jnp.floor(side * jnp.sqrt(1 - weight)) // 2
        middle, pixels = jnp.floor(place * side), jnp.arange(side)
        return (pixels >= middle - half) & (pixels < middle + half)

    inside = is_inside(height, centre[0])[:, None] & is_inside(width, centre[1])[None]
    return 1 - inside.astype(jnp.float32)


def mix(
    images: Num[Array, "b h w c"],
    targets: Float32[Array, "b k"],
    shares: Float32[Array, "h w"],
    axis_name: str | None = None,
) -> tuple[Num[Array, "b h w c"], Float32[Array, "b k"]]:
    """Mixes image i with image B - 1 - i of the batch, and their targets by the mean share.

    Args:
        images: images of any dtype; of an integer one the mixture is rounded.
        targets: one-hot; smoothing them (`optax.smooth_labels`) before or after is the same.
        shares: of its own image in each pixel, from `draw_shares`, the same on every device.
        axis_name: mesh axis over which the batch is split: the images that belong together are
            then exchanged, so that the pairs do not depend on the number of devices; None pairs
            the given images.

    Returns:
        Images and targets, of their dtypes.
    """

    def blend(own, share):
        return share * own + (1 - share) * mirror(own, axis_name)

    mixed = blend(images, shares[None, :, :, None])
    if jnp.issubdtype(images.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    # The share of the area, for CutMix that of the rectangle after it was cut off.
    return mixed.astype(images.dtype), blend(targets, shares.mean().reshape(1, 1))


def mirror(batch: Num[Array, "b ..."], axis_name: str | None = None) -> Num[Array, "b ..."]:
    """Reverses the order of the examples, over all devices of the mesh axis if there is one."""
    batch = batch[::-1]
    if axis_name is None:
        return batch
    last = jax.lax.axis_size(axis_name) - 1
    return jax.lax.ppermute(batch, axis_name, [(i, last - i) for i in range(last + 1)])


def erase(
    rngs: Key[Array, " b"],
    images: Float32[Array, "b h w c"],
    probability: float,
    fill: str = "pixel",
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Float32[Array, "b h w c"]:
    """Covers a random rectangle of an image.

    Args:
        rngs: one key per example.
        images: pixels, normalised: zero is the mean and one a standard deviation.
        probability: of doing so to an image, 0 ... 1.
        fill: "const" covers with zeros, "rand" with one normal number per channel, "pixel" with
            one per pixel and channel.
        area: see `erased_box`.
        aspect: see `erased_box`.

    Raises:
        ValueError: as `erased_box` does.

    Source: Zhong et al. 2017, https://arxiv.org/abs/1708.04896, with the fills of timm.
    """
    _, height, width, channels = images.shape
    # The numbers are what this costs: no more of them than a rectangle has pixels, its sides
    # rounded up.
    counts = {"const": 1, "rand": 1, "pixel": int(area[1] * height * width) + height + width}

    def one(rng_and_image):
        rng, image = rng_and_image
        applied_rng, box_rng, noise_rng = jax.random.split(
            jax.random.fold_in(rng, streams.ERASE), 3
        )

        def erased():
            draws = jax.random.uniform(box_rng, (_ATTEMPTS, 4))
            top, left, box_height, box_width = erased_box(draws, height, width, area, aspect)
            down, across = jnp.arange(height)[:, None] - top, jnp.arange(width)[None] - left
            inside = (down >= 0) & (down < box_height) & (across >= 0) & (across < box_width)
            noise = jnp.zeros((counts[fill], channels))
            if fill != "const":
                noise = jax.random.normal(noise_rng, noise.shape)
            place = jnp.clip(down * box_width + across, 0, len(noise) - 1)
            return jnp.where(inside[..., None], noise[place], image)

        is_applied = jax.random.bernoulli(applied_rng, probability)
        return jax.lax.cond(is_applied, erased, lambda: image)

    # One image after the other draws no numbers for an image left alone.
    on_cpu = jax.default_backend() == "cpu"
    return jax.lax.map(one, (rngs, images)) if on_cpu else jax.vmap(one)((rngs, images))


def erased_box(
    draws: Float32[Array, "attempts 4"],
    height: int,
    width: int,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Int32[Array, "4"]:
    """Chooses the rectangle to erase.

    An attempt takes a share of the area uniform in `area` and an aspect (height / width)
    log-uniform in `aspect`; the first whose rounded sides are smaller than the image's is put at a
    uniform place. If none is, the rectangle has no pixels.

    Args:
        draws: uniform numbers in [0, 1): area, aspect, top and left of each attempt.
        height: of the image, in pixels.
        width: of the image, in pixels.
        area: smallest and largest share of the image, in (0, 1].
        aspect: smallest and largest, > 0.

    Returns:
        Top, left, height and width in pixels.

    Raises:
        ValueError: if `area` or `aspect` is not such a range.
    """
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be a range of shares in (0, 1], smallest first, got {area}")
    if not 0 < aspect[0] <= aspect[1]:
        raise ValueError(f"aspect must be a range of numbers > 0, smallest first, got {aspect}")
    share, ratio, down, right = jnp.moveaxis(draws, -1, 0)
    root_area = jnp.sqrt(height * width * (area[0] + (area[1] - area[0]) * share))
    root_aspect = jnp.exp(0.5 * (math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * ratio))
    box_height, box_width = jnp.round(root_area * root_aspect), jnp.round(root_area / root_aspect)
    fits = (box_height < height) & (box_width < width)
    top = jnp.floor(down * (height - box_height + 1))
    left = jnp.floor(right * (width - box_width + 1))
    boxes = jnp.stack([top, left, box_height, box_width], -1).astype(jnp.int32)
    return jnp.where(fits.any(), boxes[jnp.argmax(fits)], 0)
