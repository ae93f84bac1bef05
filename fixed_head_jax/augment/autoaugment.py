"""What AutoAugment and TrivialAugment Wide draw for one image, with torchvision's magnitudes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Key

from fixed_head_jax.augment.operations import OPERATIONS, Draw, strength_table


def draw_autoaugment(rng: Key[Array, ""], height: int, width: int, subpolicies: Sequence) -> Draw:
    """Draws a sub-policy; each of its two operations is applied with a probability of its own.

    A warp takes the nearest pixel, as by default in torchvision; outside is the mean colour, there
    black.

    Args:
        rng: of one image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        subpolicies: pairs of (operation, probability, magnitude of 0 ... 9), see `AUTOAUGMENT`.

    Source: Cubuk et al. 2018, https://arxiv.org/abs/1805.09501, as torchvision's AutoAugment.
    """
    indices = [[OPERATIONS.index(name) for name, _, _ in pair] for pair in subpolicies]
    probabilities = [[probability for _, probability, _ in pair] for pair in subpolicies]
    magnitudes = [[magnitude for _, _, magnitude in pair] for pair in subpolicies]
    chosen_rng, applied_rng, sign_rng = jax.random.split(rng, 3)
    chosen = jax.random.randint(chosen_rng, (), 0, len(subpolicies))
    operation = jnp.asarray(indices)[chosen]
    strengths = binned_strengths(
        jnp.asarray(magnitudes)[chosen] / 9, _signs(sign_rng, 2),
        shear=0.3, degrees=30, translate=(150 / 331 * height, 150 / 331 * width), factor=0.9,
        bits=4,
    )  # fmt: skip
    is_applied = jax.random.uniform(applied_rng, (2,)) < jnp.asarray(probabilities)[chosen]
    return _nearest(jnp.where(is_applied, operation, 0), strengths)


def draw_trivialaugment(rng: Key[Array, ""], height: int, width: int) -> Draw:
    """Draws one operation of fourteen, the identity among them, and one of 31 magnitudes.

    A warp takes the nearest pixel, as by default in torchvision. The size of the image does not
    matter: translations go up to 32 pixels.

    Source: Mueller & Hutter 2021, https://arxiv.org/abs/2103.10158, as torchvision's
    TrivialAugmentWide.
    """
    operation_rng, magnitude_rng, sign_rng = jax.random.split(rng, 3)
    names = [name for name in OPERATIONS if name not in ("invert", "solarize_add")]
    operation = jax.random.choice(
        operation_rng, jnp.asarray([OPERATIONS.index(name) for name in names]), (1,)
    )
    strengths = binned_strengths(
        jax.random.randint(magnitude_rng, (1,), 0, 31) / 30, _signs(sign_rng, 1),
        shear=0.99, degrees=135, translate=(32, 32), factor=0.99, bits=6,
    )  # fmt: skip
    return _nearest(operation, strengths)


def binned_strengths(
    share: Float32[Array, " turns"],
    sign: Float32[Array, " turns"],
    shear: float,
    degrees: int,
    translate: tuple[float | int, float | int],
    factor: float,
    bits: int,
) -> Float32[Array, "operations turns"]:
    """Returns the strength of every operation at a share of the largest magnitude.

    Args:
        share: 0 ... 1.
        sign: -1 or 1, of what can go two ways.
        shear: largest shear.
        degrees: largest rotation.
        translate: largest translations, down and across, in pixels; only whole ones are made.
        factor: largest distance of a factor from 1.
        bits: how many of the 8 bits posterize takes away at most.
    """
    # The small number keeps a whole translation that float32 brings just below.
    down, across = (sign * jnp.floor(side * share + 1e-3) for side in translate)
    return strength_table(
        factor=1 + sign * factor * share,
        shear=sign * shear * share,
        rotate=sign * degrees * share,
        translate_x=across,
        translate_y=down,
        posterize=8 - jnp.round(bits * share),
        solarize=255 * (1 - share),
    )


def _signs(rng, count):
    return jnp.where(jax.random.bernoulli(rng, 0.5, (count,)), 1.0, -1.0)


def _nearest(operation, strengths):
    """Returns the draw of these operations; a warp takes the nearest pixel, the only method."""
    turns = jnp.arange(len(operation))
    return Draw(operation, strengths[operation, turns], jnp.zeros_like(operation))


# By dataset: sub-policies of two (operation, probability, magnitude), from the paper's appendix;
# an operation without a strength has magnitude 0.
AUTOAUGMENT = {
    "imagenet": (
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
        (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
        (("color", 0.4, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
        (("invert", 0.6, 0), ("equalize", 1.0, 0)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    ),
    "cifar10": (
        (("invert", 0.1, 0), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("auto_contrast", 0.5, 0), ("equalize", 0.9, 0)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 0), ("auto_contrast", 0.4, 0)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 0)),
        (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
        (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
        (("color", 0.9, 9), ("equalize", 0.6, 0)),
        (("auto_contrast", 0.8, 0), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("auto_contrast", 0.9, 0)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("auto_contrast", 0.9, 0), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 0), ("invert", 0.1, 0)),
        (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 0)),
    ),
    "svhn": (
        (("shear_x", 0.9, 4), ("invert", 0.2, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.7, 0)),
        (("equalize", 0.6, 0), ("solarize", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("auto_contrast", 0.8, 0)),
        (("shear_y", 0.9, 8), ("invert", 0.4, 0)),
        (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
        (("invert", 0.9, 0), ("auto_contrast", 0.8, 0)),
        (("equalize", 0.6, 0), ("rotate", 0.9, 3)),
        (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
        (("shear_y", 0.8, 8), ("invert", 0.7, 0)),
        (("equalize", 0.9, 0), ("translate_y", 0.6, 6)),
        (("invert", 0.9, 0), ("equalize", 0.6, 0)),
        (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
        (("invert", 0.8, 0), ("translate_y", 0.0, 2)),
        (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
        (("invert", 0.6, 0), ("rotate", 0.8, 4)),
        (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
        (("shear_x", 0.1, 6), ("invert", 0.6, 0)),
        (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
        (("shear_y", 0.8, 4), ("invert", 0.8, 0)),
        (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
        (("shear_y", 0.8, 5), ("auto_contrast", 0.7, 0)),
        (("shear_x", 0.7, 2), ("invert", 0.1, 0)),
    ),
}
