"""Operations on one image in whole levels, as Pillow does them, on the device.

Three ways to change an image make all of them: a table of levels, a blend with a greyer or
smoother image, and an affine map of the coordinates. `apply` takes the strength in the
operation's own unit:

    identity, auto_contrast, equalize, invert   none
    posterize                                   bits that stay, 0 ... 8; none of them: black
    solarize                                    levels from this one on are inverted, 0 ... 256
    solarize_add                                is added to the levels below 128, 0 ... 255
    brightness, contrast, color, sharpness      factor >= 0: 1 leaves the image, 0 makes it black,
                                                of one grey, grey, smooth; beyond 1 the other way
    rotate                                      degrees, counter-clockwise, about the centre
    shear_x (shear_y)                           pixels to the left (up) for each pixel down (right)
    translate_x (translate_y)                   pixels to the left (up)
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt8


class Draw(NamedTuple):
    """What is done to one image, at one turn or at several."""

    operation: Int32[Array, "*turns"]  # index in OPERATIONS
    strength: Float32[Array, "*turns"]  # in the operation's unit, see above
    method: Int32[Array, "*turns"]  # of a warp: index in the interpolations that may be drawn


def apply(
    image: UInt8[Array, "h w c"], draw: Draw, methods: Sequence[str], fill: Sequence[int]
) -> UInt8[Array, "h w c"]:
    """Does one operation.

    Args:
        image: of one channel or three.
        draw: of one turn.
        methods: interpolations that may be drawn, of `INTERPOLATIONS`; only those are compiled.
        fill: level outside a warped image, of each channel or one for all.
    """
    operation, strength, method = draw

    def tabulate():
        table = level_table(image, operation, strength)
        channel = jnp.arange(image.shape[-1]).reshape(1, 1, -1)
        return table[image.astype(jnp.int32), channel]

    def blend():
        levels = image.astype(jnp.int32)
        is_color = operation == OPERATIONS.index("color")
        other = jnp.where(is_color, _luma(levels), _smooth(levels))
        return _blend(other, levels, strength).astype(jnp.uint8)

    def transform():
        return warp(image, affine_matrix(image, operation, strength), method, methods, fill)

    # One branch for each way: side by side, on an accelerator, all branches are computed.
    ends = (1, 1 + len(TABLES), 1 + len(TABLES) + len(BLENDS))
    way = sum((operation >= end).astype(jnp.int32) for end in ends)
    return jax.lax.switch(way, [lambda: image, tabulate, blend, transform])


def level_table(
    image: UInt8[Array, "h w c"], operation: Int32[Array, ""], strength: Float32[Array, ""]
) -> UInt8[Array, "256 c"]:
    """Returns what each level of each channel becomes, for the operations in `TABLES`."""
    pixels = image.reshape(-1, image.shape[-1]).astype(jnp.int32)
    levels = jnp.broadcast_to(jnp.arange(256)[:, None], (256, pixels.shape[1]))
    tables = [partial(table, pixels, levels, strength) for table in TABLES.values()]
    table = jax.lax.switch(operation - OPERATIONS.index(next(iter(TABLES))), tables)
    return jnp.clip(table, 0, 255).astype(jnp.uint8)


def strength_table(
    factor: Float32[Array, " turns"],
    shear: Float32[Array, " turns"],
    **strengths: Float32[Array, " turns"],
) -> Float32[Array, "operations turns"]:
    """Stacks the strengths of all operations in their order, 0 for those not given.

    Args:
        factor: of brightness, contrast, color and sharpness.
        shear: of shear_x and shear_y.
        **strengths: of other operations, by name.
    """
    strengths |= dict.fromkeys(("brightness", "contrast", "color", "sharpness"), factor)
    strengths |= dict.fromkeys(("shear_x", "shear_y"), shear)
    return jnp.stack([strengths.get(name, jnp.zeros_like(factor)) for name in OPERATIONS])


def affine_matrix(
    image: UInt8[Array, "h w c"], operation: Int32[Array, ""], strength: Float32[Array, ""]
) -> Float32[Array, "2 3"]:
    """Returns the map of the operations in `WARPS`, from a place (across, down, 1) in the result.

    Its products are the place (across, down) in the image, in pixels from the top left corner.
    """

    def only(name):
        return jnp.where(operation == OPERATIONS.index(name), strength, 0.0)

    height, width, _ = image.shape
    angle = jnp.deg2rad(only("rotate"))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotated_across = width / 2 - cos * width / 2 + sin * height / 2
    rotated_down = height / 2 - sin * width / 2 - cos * height / 2
    return jnp.stack(
        [
            jnp.stack([cos, only("shear_x") - sin, rotated_across + only("translate_x")]),
            jnp.stack([only("shear_y") + sin, cos, rotated_down + only("translate_y")]),
        ]
    )


def warp(
    image: UInt8[Array, "h w c"],
    matrix: Float32[Array, "2 3"],
    method: Int32[Array, ""],
    methods: Sequence[str],
    fill: Sequence[int],
) -> UInt8[Array, "h w c"]:
    """Takes each pixel from the place in the image that `matrix` maps its centre to.

    Args:
        image: levels; between its outer pixels' centres and its edge they are repeated.
        matrix: as `affine_matrix` returns it.
        method: index in `methods`.
        methods: of `INTERPOLATIONS`.
        fill: level outside the image, of each channel or one for all.

    Source: Pillow's Image.transform.
    """
    height, width, channels = image.shape
    across, down = jnp.arange(width)[None] + 0.5, jnp.arange(height)[:, None] + 0.5
    across, down = [row[0] * across + row[1] * down + row[2] for row in matrix]
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    pixels = image.reshape(-1, channels)

    def sample(weigh):
        total = 0.0
        for row, row_weight in weigh(down, height):
            for column, weight in weigh(across, width):
                total += (row_weight * weight)[..., None] * pixels[row * width + column]
        # Pillow rounds down; the small number keeps what only float32 brings below a level.
        return jnp.clip(jnp.floor(total + 1e-3), 0, 255).astype(jnp.uint8)

    samples = [partial(sample, INTERPOLATIONS[name]) for name in methods]
    outside = jnp.asarray(fill, jnp.uint8).reshape(1, 1, -1)
    return jnp.where(inside[..., None], jax.lax.switch(method, samples), outside)


def _nearest(place, side):
    """Returns (index, weight) of the pixels along a side that make up the one at a place."""
    return [(jnp.clip(jnp.floor(place).astype(jnp.int32), 0, side - 1), jnp.ones_like(place))]


def _bilinear(place, side):
    """Same, of the two pixels around a place."""
    first = jnp.floor(place - 0.5)
    t = place - 0.5 - first
    return _taps(first, (1 - t, t), side)


def _bicubic(place, side):
    """Same, of four pixels: Keys' kernel with a = -1."""
    first = jnp.floor(place - 0.5)
    t = place - 0.5 - first
    s = 1 - t
    weights = (-t * s * s, s * (1 + t - t * t), t * (1 + s - s * s), -s * t * t)
    return _taps(first - 1, weights, side)


def _taps(first, weights, side):
    first = first.astype(jnp.int32)
    return [(jnp.clip(first + i, 0, side - 1), weight) for i, weight in enumerate(weights)]


def _auto_contrast(pixels, levels, _):
    """Stretches each channel from black to white."""
    low, high = pixels.min(0, keepdims=True), pixels.max(0, keepdims=True)
    return jnp.where(high > low, (levels - low) * 255 // jnp.maximum(high - low, 1), levels)


def _equalize(pixels, levels, _):
    """Spreads all but the brightest pixels of each channel evenly over 255 steps."""
    counts = jax.vmap(lambda channel: jnp.bincount(channel, length=256), 1, 1)(pixels)
    below = jnp.cumsum(counts, 0) - counts
    step = below.max(0, keepdims=True, where=counts > 0, initial=0) // 255
    return jnp.where(step > 0, (step // 2 + below) // jnp.maximum(step, 1), levels)


def _contrast(pixels, levels, factor):
    """Blends with the mean luma, rounded."""
    luma = _luma(pixels)
    return _blend((2 * luma.sum() + luma.size) // (2 * luma.size), levels, factor)


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


# (pixels [n, c], levels [256, c], strength) -> what the levels become, beyond 0 ... 255 too.
TABLES = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda pixels, levels, _: 255 - levels,
    "posterize": lambda pixels, levels, bits: levels & (256 - (1 << (8 - bits.astype(jnp.int32)))),
    "solarize": lambda pixels, levels, start: jnp.where(levels < start, levels, 255 - levels),
    "solarize_add": lambda pixels, levels, added: jnp.where(
        levels < 128, levels + added.astype(jnp.int32), levels
    ),
    "brightness": lambda pixels, levels, factor: _blend(0, levels, factor),
    "contrast": _contrast,
}
BLENDS = ("color", "sharpness")
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = ("identity", *TABLES, *BLENDS, *WARPS)
INTERPOLATIONS = {"nearest": _nearest, "bilinear": _bilinear, "bicubic": _bicubic}
