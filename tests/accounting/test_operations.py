"""The operations on images against Pillow, on photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import operations
from fixed_head_jax.augment.operations import BLENDS, OPERATIONS, TABLES, WARPS

FILL = (124, 116, 104)
METHODS = ("nearest", "bilinear", "bicubic")
ENHANCERS = ("brightness", "contrast", "color", "sharpness")
# Both ends of what the policies draw, and the middle.
STRENGTHS = {
    **dict.fromkeys(("identity", "auto_contrast", "equalize", "invert"), (0.0,)),
    **dict.fromkeys(ENHANCERS, (0.01, 0.19, 0.55, 1.0, 1.45, 1.81, 1.99)),
    **dict.fromkeys(("shear_x", "shear_y"), (-0.99, -0.27, 0.0, 0.135, 0.99)),
    **dict.fromkeys(("translate_x", "translate_y"), (-32.0, -12.15, 0.0, 21.6, 32.0)),
    "rotate": (-130.5, -27.0, 0.0, 13.5, 90.0, 130.5),  # at 135 a diagonal falls between pixels
    "posterize": (0.0, 1.0, 2.0, 4.0, 8.0),
    "solarize": (0.0, 26.0, 127.5, 255.0, 256.0),
    "solarize_add": (0.0, 55.0, 110.0),
}
apply_draw = jax.jit(operations.apply, static_argnums=(2, 3))


def apply(image, operation, strength=0.0, method="nearest", fill=FILL):
    """Does an operation; all of them share one compiled function for each shape."""
    draw = operations.Draw(
        jnp.asarray(OPERATIONS.index(operation)),
        jnp.asarray(strength),
        jnp.asarray(METHODS.index(method)),
    )
    return np.asarray(apply_draw(image, draw, METHODS, fill))


def by_pillow(image, operation, strength, method="nearest"):
    image = Image.fromarray(image.squeeze())
    fill = FILL if image.mode == "RGB" else FILL[0]
    levels, resample = np.arange(256), Image.Resampling[method.upper()]

    def table(becomes):
        return image.point(np.clip(becomes, 0, 255).astype(int).tolist() * len(image.getbands()))

    def affine(*numbers):
        return image.transform(
            image.size, Image.Transform.AFFINE, numbers, resample, fillcolor=fill
        )

    def enhance(enhancer):
        return enhancer(image).enhance(strength)

    return np.asarray(
        {
            "identity": lambda: image,
            "auto_contrast": lambda: ImageOps.autocontrast(image),
            "equalize": lambda: ImageOps.equalize(image),
            "invert": lambda: ImageOps.invert(image),
            # Pillow's own function refuses to keep no bits.
            "posterize": lambda: table(levels // 2 ** (8 - strength) * 2 ** (8 - strength)),
            "solarize": lambda: ImageOps.solarize(image, strength),
            "solarize_add": lambda: table(levels + strength * (levels < 128)),
            "brightness": lambda: enhance(ImageEnhance.Brightness),
            "contrast": lambda: enhance(ImageEnhance.Contrast),
            "color": lambda: enhance(ImageEnhance.Color),
            "sharpness": lambda: enhance(ImageEnhance.Sharpness),
            "rotate": lambda: image.rotate(strength, resample, fillcolor=fill),
            "shear_x": lambda: affine(1, strength, 0, 0, 1, 0),
            "shear_y": lambda: affine(1, 0, 0, strength, 1, 0),
            "translate_x": lambda: affine(1, 0, strength, 0, 1, 0),
            "translate_y": lambda: affine(1, 0, 0, 0, 1, strength),
        }[operation]()
    )


@pytest.fixture(scope="module")
def photographs():
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    china, flower = (photograph[40:424:8, 60:572:8] for photograph in photographs)
    return china, flower, china // 3 + 40  # the last without extreme levels


def differences(photographs, operation, strength, method="nearest"):
    for photograph in photographs:
        ours = apply(photograph, operation, strength, method).astype(int)
        yield np.abs(ours - by_pillow(photograph, operation, strength, method))


@pytest.mark.parametrize("operation", ["identity", *TABLES, *BLENDS])
def test_levels_match_pillow(photographs, operation):
    for strength in STRENGTHS[operation]:
        for difference in differences(photographs, operation, strength):
            # Pillow rounds whole levels down where float64 brings them just below.
            assert difference.max() <= (operation == "auto_contrast")
            assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operation", WARPS)
def test_warps_match_pillow(photographs, operation, method):
    for strength in STRENGTHS[operation]:
        for difference in differences(photographs, operation, strength, method):
            if method == "nearest":  # on the border of two pixels either of them is
                assert (difference > 0).mean() < 0.002
            else:
                assert difference.max() <= 1
                assert (difference > 0).mean() < 0.05


@pytest.mark.parametrize(
    "shape", [(48, 64, 1), *(pytest.param((2, 2, c), marks=pytest.mark.slow) for c in (1, 3))]
)
def test_grey_and_tiny_images_match_pillow(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for operation in OPERATIONS:
        for strength in STRENGTHS[operation][::2]:
            ours = apply(image, operation, strength, "bilinear", FILL[: shape[2]])
            expected = by_pillow(image, operation, strength, "bilinear")
            assert np.abs(ours.squeeze().astype(int) - expected).max() <= 1


def test_flat_images_match_pillow():
    flat = np.full((48, 64, 3), (90, 0, 255), np.uint8)
    for operation in OPERATIONS:
        strength = STRENGTHS[operation][0]
        expected = by_pillow(flat, operation, strength, "bicubic")
        np.testing.assert_array_equal(apply(flat, operation, strength, "bicubic"), expected)


def test_a_pixel_of_the_specification():
    image = np.full((48, 64, 3), (200, 100, 37), np.uint8)
    for operation, strength, expected in (
        ("posterize", 1.0, (128, 0, 0)),
        ("solarize", 26.0, (55, 155, 218)),
    ):
        becomes = apply(image, operation, strength)
        np.testing.assert_array_equal(becomes, np.broadcast_to(expected, image.shape))


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_the_specification(method):
    row = np.asarray([10, 20, 30, 40, 50], np.uint8).reshape(1, 5, 1)
    shifted = apply(row, "translate_x", 2.0, method, (7,))
    np.testing.assert_array_equal(shifted.ravel(), [30, 40, 50, 7, 7])
