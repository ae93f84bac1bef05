"""RandAugment with timm's fifteen operations, on the device, on whole levels as in Pillow.

Three ways to change an image make all of them: a table of levels, a blend with a smoother or
greyer image, and an affine map of the coordinates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt8

# Folded into an example's key; `color` lists the constants of all augmentations.
_RANDAUGMENT = 11
TABLES = (
    "auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "brightness",
    "contrast",
)  # fmt: skip
BLENDS = ("color", "sharpness")
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (*TABLES, *BLENDS, *WARPS)


class Draw(NamedTuple):
    """What is done to one image at one turn."""

    operation: Int32[Array, "..."]  # index in OPERATIONS
    is_applied: Bool[Array, "..."]
    magnitude: Float32[Array, "..."]  # 0 ... 10
    sign: Float32[Array, "..."]  # -1 or 1, of what can go two ways
    is_cubic: Bool[Array, "..."]  # whether a warp interpolates bicubically, or bilinearly


def randaugment(
    rngs: Key[Array, " b"],
    images: UInt8[Array, "b h w c"],
    fill: Sequence[int] = (124, 116, 104),
    num_operations: int = 2,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
    as_published: bool = False,
) -> UInt8[Array, "b h w c"]:
    """Changes each image by operations drawn with replacement, one after the other.

    Args:
        rngs: one key per example.
        images: of one channel or three.
        fill: level of each channel outside a warped image; by default ImageNet's mean.
        num_operations: drawn per image, >= 0.
        magnitude: mean strength of an operation, 0 ... 10.
        magnitude_std: standard deviation of the strength, >= 0; it is clipped to 0 ... 10.
        probability: of applying an operation that was drawn, 0 ... 1.
        as_published: at magnitude 10 posterize to no bits, a black image; by default one bit stays.

    Raises:
        ValueError: if an argument is out of range.

    Source: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, as timm's rand-m9-mstd0.5-inc1.
    """
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"randaugment needs images of one channel or three, got {channels}")
    if len(fill) != channels or min(fill) < 0 or max(fill) > 255:
        raise ValueError(f"fill must be a level 0 ... 255 for each of {channels}, got {fill}")
    if not 0 <= magnitude <= 10:
        raise ValueError(f"magnitude must be in 0 ... 10, got {magnitude}")
    for name, value in (("num_operations", num_operations), ("magnitude_std", magnitude_std)):
        if value < 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in 0 ... 1, got {probability}")
    draws = draw_operations(rngs, num_operations, magnitude, magnitude_std, probability)

    def one(image_and_draws):
        image, draws = image_and_draws
        for turn in range(num_operations):
            draw = jax.tree.map(lambda leaf, turn=turn: leaf[turn], draws)
            image = apply(image, draw, fill, as_published)
        return image

    # One image after the other takes only the branches it needs; side by side all take all.
    if jax.default_backend() == "cpu":
        return jax.lax.map(one, (images, draws))
    return jax.vmap(one)((images, draws))


def draw_operations(
    rngs: Key[Array, " b"],
    num_operations: int,
    magnitude: float,
    magnitude_std: float,
    probability: float,
) -> Draw:
    """Draws the operations of each image, [b, num_operations] in every leaf; see `randaugment`."""

    def one(rng):
        rngs = jax.random.split(jax.random.fold_in(rng, _RANDAUGMENT), 5)
        shape = (num_operations,)
        return Draw(
            operation=jax.random.randint(rngs[0], shape, 0, len(OPERATIONS)),
            is_applied=jax.random.bernoulli(rngs[1], probability, shape),
            magnitude=jnp.clip(
                magnitude + magnitude_std * jax.random.normal(rngs[2], shape), 0.0, 10.0
            ),
            sign=jnp.where(jax.random.bernoulli(rngs[3], 0.5, shape), 1.0, -1.0),
            is_cubic=jax.random.bernoulli(rngs[4], 0.5, shape),
        )

    return jax.vmap(one)(rngs)


def apply(
    image: UInt8[Array, "h w c"], draw: Draw, fill: Sequence[int], as_published: bool = False
) -> UInt8[Array, "h w c"]:
    """Does what was drawn to one image."""

    def tabulate():
        table = level_table(image, draw, as_published)
        channel = jnp.arange(image.shape[-1]).reshape(1, 1, -1)
        return table[image.astype(jnp.int32), channel]

    def blend():
        levels = image.astype(jnp.int32)
        is_color = draw.operation == OPERATIONS.index("color")
        other = jnp.where(is_color, _luma(levels), _smooth(levels))
        return _blend(other, levels, _factor(draw)).astype(jnp.uint8)

    def transform():
        return warp(image, coordinates(draw, *image.shape[:2]), draw.is_cubic, fill)

    is_later = [draw.operation >= len(TABLES), draw.operation >= len(TABLES) + len(BLENDS)]
    family = jnp.where(draw.is_applied, 1 + sum(x.astype(jnp.int32) for x in is_later), 0)
    return jax.lax.switch(family, [lambda: image, tabulate, blend, transform])


def level_table(
    image: UInt8[Array, "h w c"], draw: Draw, as_published: bool
) -> UInt8[Array, "256 c"]:
    """Returns what each level of each channel becomes, for the operations in `TABLES`."""
    pixels = image.reshape(-1, image.shape[-1]).astype(jnp.int32)
    levels = jnp.broadcast_to(jnp.arange(256)[:, None], (256, pixels.shape[1]))
    tenth = draw.magnitude / 10

    def auto_contrast():
        low, high = pixels.min(0, keepdims=True), pixels.max(0, keepdims=True)
        return jnp.where(high > low, (levels - low) * 255 // jnp.maximum(high - low, 1), levels)

    def equalize():
        counts = jax.vmap(lambda channel: jnp.bincount(channel, length=256), 1, 1)(pixels)
        below = jnp.cumsum(counts, 0) - counts
        # All but the brightest pixels, spread over 255 steps.
        step = below.max(0, keepdims=True, where=counts > 0, initial=0) // 255
        return jnp.where(step > 0, (step // 2 + below) // jnp.maximum(step, 1), levels)

    def posterize():
        bits = jnp.maximum(4 - jnp.floor(4 * tenth).astype(jnp.int32), 0 if as_published else 1)
        return levels & (256 - (1 << (8 - bits)))

    def solarize():
        threshold = 256 - jnp.floor(256 * tenth).astype(jnp.int32)
        return jnp.where(levels < threshold, levels, 255 - levels)

    def solarize_add():
        added = levels + jnp.floor(110 * tenth).astype(jnp.int32)
        return jnp.where(levels < 128, added, levels)

    def contrast():
        luma = _luma(pixels)
        mean = jnp.floor(luma.sum() / luma.size + 0.5).astype(jnp.int32)
        return _blend(mean, levels, _factor(draw))

    tables = dict(
        auto_contrast=auto_contrast,
        equalize=equalize,
        invert=lambda: 255 - levels,
        posterize=posterize,
        solarize=solarize,
        solarize_add=solarize_add,
        brightness=lambda: _blend(0, levels, _factor(draw)),
        contrast=contrast,
    )
    table = jax.lax.switch(draw.operation, [tables[name] for name in TABLES])
    return jnp.clip(table, 0, 255).astype(jnp.uint8)


def coordinates(
    draw: Draw, height: int, width: int
) -> tuple[Float32[Array, "{height} {width}"], Float32[Array, "{height} {width}"]]:
    """Returns the place (down, across) in the image that each output pixel's centre comes from."""
    strength = draw.sign * draw.magnitude / 10

    def only(name, size):
        return jnp.where(draw.operation == OPERATIONS.index(name), size * strength, 0.0)

    down, across = jnp.arange(height)[:, None] + 0.5, jnp.arange(width)[None] + 0.5
    angle = only("rotate", jnp.pi / 6)
    from_middle = down - height / 2, across - width / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotated_down = height / 2 + cos * from_middle[0] + sin * from_middle[1]
    rotated_across = width / 2 + cos * from_middle[1] - sin * from_middle[0]
    return (
        rotated_down + only("shear_y", 0.3) * across + only("translate_y", 0.45 * height),
        rotated_across + only("shear_x", 0.3) * down + only("translate_x", 0.45 * width),
    )


def warp(
    image: UInt8[Array, "h w c"],
    places: tuple[Float32[Array, "h w"], Float32[Array, "h w"]],
    is_cubic: Bool[Array, ""],
    fill: Sequence[int],
) -> UInt8[Array, "h w c"]:
    """Samples an image at `places`, (down, across), where pixel i covers i ... i + 1.

    Args:
        image: levels; between its outer pixels' centres and its edge they are repeated.
        places: in pixels.
        is_cubic: by cubics (Keys' kernel with a = -1), else linearly.
        fill: level of each channel outside the image.

    Source: Pillow's Image.transform.
    """
    pixels = image.reshape(-1, image.shape[-1]).astype(jnp.float32)
    inside, taps = True, []
    for place, side in zip(places, image.shape[:2], strict=True):
        inside &= (place >= 0) & (place < side)
        first = jnp.floor(place - 0.5)
        t = place - 0.5 - first
        s = 1 - t
        cubic = (-t * s * s, s * (1 + t - t * t), t * (1 + s - s * s), -s * t * t)
        linear = (jnp.zeros_like(t), s, t, jnp.zeros_like(t))
        weights = [jnp.where(is_cubic, *pair) for pair in zip(cubic, linear, strict=True)]
        index = [jnp.clip(first.astype(jnp.int32) + i, 0, side - 1) for i in (-1, 0, 1, 2)]
        taps.append(list(zip(index, weights, strict=True)))
    total = 0.0
    for row, down in taps[0]:
        for column, across in taps[1]:
            total += (down * across)[..., None] * pixels[row * image.shape[1] + column]
    # Pillow rounds down; the small number keeps what only float32 brings below a level.
    levels = jnp.clip(jnp.floor(total + 1e-3), 0, 255)
    outside = jnp.asarray(fill, jnp.float32).reshape(1, 1, -1)
    return jnp.where(inside[..., None], levels, outside).astype(jnp.uint8)


def _factor(draw):
    return 1 + draw.sign * 0.09 * draw.magnitude


def _blend(other, levels, factor):
    """Mixes whole levels, rounded down: `levels` at factor 1, beyond them above."""
    mixed = other + factor * (levels - other)
    return jnp.clip(jnp.floor(mixed + 1e-4), 0, 255).astype(jnp.int32)


def _luma(levels):
    """Returns the rounded luma of levels [..., 3], in Pillow's 16-bit integers."""
    if levels.shape[-1] == 1:
        return levels
    red, green, blue = (levels[..., i : i + 1] for i in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _smooth(levels):
    """Averages 3 x 3 levels, the middle weighing 5, rounded; the outermost pixels stay."""
    height, width, _ = levels.shape
    if min(height, width) < 3:
        return levels
    total = 4 * levels[1:-1, 1:-1]
    for down in range(3):
        for across in range(3):
            total += levels[down : height - 2 + down, across : width - 2 + across]
    return levels.at[1:-1, 1:-1].set((2 * total + 13) // 26)
