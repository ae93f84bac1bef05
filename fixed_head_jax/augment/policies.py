"""Policies that draw operations for every image: RandAugment, AutoAugment, TrivialAugment.

A policy draws, for one image, the operations of a few turns, one done after the other, with their
strengths in the operations' own units: see `operations`.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key, UInt8

from fixed_head_jax.augment import streams
from fixed_head_jax.augment.autoaugment import AUTOAUGMENT, draw_autoaugment, draw_trivialaugment
from fixed_head_jax.augment.operations import OPERATIONS, Draw, apply, strength_table


def make_policy(
    name: str, fill: Sequence[int], as_published: bool = False
) -> Callable[[Key[Array, " b"], UInt8[Array, "b h w c"]], UInt8[Array, "b h w c"]]:
    """Builds the function `(rngs, images) -> images` of a policy; one key per example.

    Args:
        name: one of
            "rand-m9-mstd0.5-inc1" and the like, see `parse_randaugment` and `draw_randaugment`;
            "autoaugment-imagenet", "autoaugment-cifar10", "autoaugment-svhn", see
            `draw_autoaugment`;
            "trivial-wide", see `draw_trivialaugment`.
        fill: level 0 ... 255 outside a warped image, of each channel, or one for all of them.
        as_published: RandAugment may posterize to no bits, a black image; by default one bit
            stays. The other policies leave two bits at least.

    Returns:
        The function; images have one channel or three.

    Raises:
        ValueError: on an unknown or malformed name, or a fill that is no level; the function, on
            images of another number of channels.
    """
    fill = tuple(fill)
    if len(fill) not in (1, 3) or min(fill) < 0 or max(fill) > 255:
        raise ValueError(f"fill must be one or three levels in 0 ... 255, got {fill}")
    draw, methods = parse_policy(name, as_published)

    def policy(rngs: Key[Array, " b"], images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        _, height, width, channels = images.shape
        if channels not in (1, 3) or len(fill) not in (1, channels):
            raise ValueError(
                f"augment.policy={name!r} with {len(fill)} levels of fill needs images of as many "
                f"channels, one or three, got {channels}"
            )

        def draw_one(rng):
            return draw(jax.random.fold_in(rng, streams.POLICY), height, width)

        def one(image_and_draws):
            def turn(image, drawn):
                return apply(image, drawn, methods, fill), None

            return jax.lax.scan(turn, *image_and_draws)[0]

        draws = jax.vmap(draw_one)(rngs)
        # One image after the other takes only the branches it needs; side by side all are
        # computed, which takes 15 times as long on the CPU.
        if jax.default_backend() == "cpu":
            return jax.lax.map(one, (images, draws))
        return jax.vmap(one)((images, draws))

    return policy


def parse_policy(name: str, as_published: bool) -> tuple[Callable[..., Draw], tuple[str, ...]]:
    """Returns what draws for one image, `(rng, height, width) -> Draw`, and its interpolations.

    Args and Raises: see `make_policy`.
    """
    kind, _, dataset = name.partition("-")
    if kind == "rand" and (settings := parse_randaugment(name)):
        draw = partial(draw_randaugment, settings=settings, as_published=as_published)
        return draw, ("bilinear", "bicubic")
    if kind == "autoaugment" and dataset in AUTOAUGMENT:
        return partial(draw_autoaugment, subpolicies=AUTOAUGMENT[dataset]), ("nearest",)
    if name == "trivial-wide":
        return draw_trivialaugment, ("nearest",)
    known = ", ".join(["trivial-wide", *(f"autoaugment-{dataset}" for dataset in AUTOAUGMENT)])
    raise ValueError(
        f"augment.policy={name!r} is not known; use {known}, or rand with any of -m0 to -m10, "
        "-n2, -mstd0.5, -inc1, -w0, such as rand-m9-mstd0.5-inc1"
    )


class RandAugment(NamedTuple):
    """Settings of a RandAugment policy."""

    magnitude: int  # mean, 0 ... 10
    num_turns: int
    magnitude_std: float
    is_increasing: bool
    is_weighted: bool


def parse_randaugment(name: str) -> RandAugment | None:
    """Reads a name of timm's form, "rand-m9-n2-mstd0.5-inc1-w0".

    The parts after "rand" may stand in another order or be left out: the mean magnitude (10), the
    number of turns (2), the magnitude's standard deviation (0), `inc1` for the maps of magnitudes
    that are increasing, `w0` for the weights; see `draw_randaugment`. timm reads inc0 as inc1; here
    it is refused.

    Returns:
        The settings, or None if the name has not that form.
    """
    forms = dict(m="[0-9]|10", n="[1-9]", mstd=r"[0-9](\.[0-9]+)?", inc="1", w="0")
    parts = {}
    for part in name.split("-")[1:]:
        key = part.rstrip("0123456789.")
        value = part[len(key) :]
        if key not in forms or key in parts or not re.fullmatch(forms[key], value):
            return None
        parts[key] = value
    return RandAugment(
        magnitude=int(parts.get("m", 10)),
        num_turns=int(parts.get("n", 2)),
        magnitude_std=float(parts.get("mstd", 0)),
        is_increasing="inc" in parts,
        is_weighted="w" in parts,
    )


def draw_randaugment(
    rng: Key[Array, ""], height: int, width: int, settings: RandAugment, as_published: bool
) -> Draw:
    """Draws from all operations but the identity; each is applied with probability 1/2.

    They are drawn evenly and with replacement, with `w0` by weight and without. A magnitude is
    normal, clipped to 0 ... 10, for each turn; a warp is bilinear or bicubic, as in timm.

    Args:
        rng: of one image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        settings: from `parse_randaugment`.
        as_published: see `make_policy`.

    Source: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, in timm's form.
    """
    turns = (settings.num_turns,)
    rngs = jax.random.split(rng, 5)
    weights = None
    if settings.is_weighted:
        weights = jnp.asarray([WEIGHTS.get(name, 0.0) for name in OPERATIONS[1:]])
    is_even = not settings.is_weighted
    operation = 1 + jax.random.choice(rngs[0], len(OPERATIONS) - 1, turns, is_even, weights)
    is_applied = jax.random.bernoulli(rngs[1], 0.5, turns)
    noise = settings.magnitude_std * jax.random.normal(rngs[2], turns)
    strengths = randaugment_strengths(
        jnp.clip(settings.magnitude + noise, 0.0, 10.0),
        jnp.where(jax.random.bernoulli(rngs[3], 0.5, turns), 1.0, -1.0),
        height,
        width,
        settings.is_increasing,
        as_published,
    )
    return Draw(
        operation=jnp.where(is_applied, operation, 0),
        strength=strengths[operation, jnp.arange(settings.num_turns)],
        method=jax.random.bernoulli(rngs[4], 0.5, turns).astype(jnp.int32),
    )


def randaugment_strengths(
    magnitude: Float32[Array, " turns"],
    sign: Float32[Array, " turns"],
    height: int,
    width: int,
    is_increasing: bool,
    as_published: bool,
) -> Float32[Array, "operations turns"]:
    """Returns the strength of every operation at a magnitude of 0 ... 10, in timm's maps.

    In the increasing maps a larger magnitude changes an image more. In the plain ones it keeps more
    bits and solarizes fewer levels, and the factors go from 0.1 to 1.9.

    Args:
        magnitude: 0 ... 10.
        sign: -1 or 1, of what can go two ways.
        height: of the images, in pixels.
        width: of the images, in pixels.
        is_increasing: which maps.
        as_published: see `make_policy`.
    """
    bits, threshold = jnp.floor(0.4 * magnitude), jnp.floor(25.6 * magnitude)
    factor = 0.1 + 0.18 * magnitude
    if is_increasing:
        bits, threshold, factor = 4 - bits, 256 - threshold, 1 + sign * 0.09 * magnitude
    return strength_table(
        factor=factor,
        shear=sign * 0.03 * magnitude,
        rotate=sign * 3 * magnitude,
        translate_x=sign * 0.045 * magnitude * width,
        translate_y=sign * 0.045 * magnitude * height,
        posterize=bits if as_published else jnp.maximum(bits, 1.0),
        solarize=threshold,
        solarize_add=jnp.floor(11 * magnitude),
    )


# Of the operations by `w0`; the others have none.
WEIGHTS = {
    "rotate": 0.3,
    "shear_x": 0.2,
    "shear_y": 0.2,
    "translate_x": 0.1,
    "translate_y": 0.1,
    "auto_contrast": 0.025,
    "color": 0.025,
    "sharpness": 0.025,
    "equalize": 0.005,
    "solarize": 0.005,
    "solarize_add": 0.005,
    "contrast": 0.005,
    "brightness": 0.005,
}
