"""What is said of images of every kind, and what they are converted to."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.data.decoding import decode
from fixed_head_jax.data.preparing import inspect_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
RGB = Image.fromarray(PIXELS)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # shown after a quarter turn clockwise
DEEP = PIXELS.astype(np.uint16) * 257


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def encode_deep(image, kind=".png") -> bytes:
    return cv2.imencode(kind, image)[1].tobytes()


JPEG, PNG = encode(RGB, "JPEG"), encode(RGB)
ENDS_EARLY = JPEG[: len(JPEG) // 2] + b"\xff\xd9"  # Pillow fills the rest with grey, in silence


@pytest.mark.parametrize(
    "encoded, traits",
    [
        (JPEG, ()),
        (ENDS_EARLY, ("damaged",)),
        (PNG, ()),
        (encode(RGB, "JPEG", progressive=True), ()),
        (encode(RGB, "BMP"), ()),
        (encode(RGB, "WEBP"), ()),
        (encode(RGB, "JPEG", exif=b"Exif\0\0no tags at all"), ()),
        (encode(RGB.convert("L"), "JPEG"), ("grey",)),
        (encode(RGB.convert("1")), ("grey",)),
        (encode(RGB.convert("LA")), ("grey", "alpha")),
        (encode(RGB.convert("CMYK"), "JPEG"), ("CMYK",)),
        (encode(RGB.convert("RGBA")), ("alpha",)),
        (encode(RGB.convert("P")), ("palette",)),
        (encode(RGB.convert("P"), transparency=3), ("alpha", "palette")),
        (encode_deep(DEEP), ("16-bit",)),
        (encode_deep(DEEP, ".tif"), ("16-bit",)),
        (encode_deep(DEEP[..., 0]), ("grey", "16-bit")),
        (encode_deep(DEEP[..., 0], ".tif"), ("grey", "16-bit")),
        (encode_deep(np.dstack([DEEP, DEEP[..., :1]])), ("alpha", "16-bit")),
        (encode(RGB, "JPEG", exif=TURNED), ("EXIF rotation",)),
        (encode(RGB, "PNG", exif=TURNED), ("EXIF rotation",)),
    ],
)
def test_what_departs_from_plain_colours_is_named_and_can_be_converted(encoded, traits):
    assert inspect_image.inspect(encoded) == inspect_image.Findings("", traits)
    converted = inspect_image.convert(encoded, 3)
    assert inspect_image.inspect(converted) == inspect_image.Findings()
    upright = (60, 40) if "EXIF rotation" in traits else (40, 60)
    assert decode(converted, 3).shape == (*upright, 3)


@pytest.mark.parametrize(
    "encoded, traits",
    [
        (encode(RGB.convert("L")), ()),
        (encode(RGB.convert("LA")), ("alpha",)),
        (encode_deep(DEEP[..., 0]), ("16-bit",)),
        (PNG, ("colour",)),
        (encode(RGB.convert("RGBA")), ("colour", "alpha")),
    ],
)
def test_a_grey_dataset_expects_grey_images(encoded, traits):
    assert inspect_image.inspect(encoded, 1) == inspect_image.Findings("", traits)
    converted = inspect_image.convert(encoded, 1)
    assert inspect_image.inspect(converted, 1) == inspect_image.Findings()


@pytest.mark.parametrize(
    "encoded, message",
    [
        (b"", "empty, or cannot be opened"),
        (b"no image at all\n" * 20, "not an image that Pillow can read"),
        (JPEG[: len(JPEG) // 2], "cut off or damaged"),
        (JPEG[:-2], "cut off or damaged"),
        (JPEG[:100], "cut off or damaged"),
        (encode(RGB, "JPEG", progressive=True)[:1500], "cut off or damaged"),
        (PNG[:3000], "cut off or damaged"),
        (PNG[:3000] + bytes(50) + PNG[3050:], ""),  # found by one of the two
        (encode(RGB, "WEBP")[:1000], "cut off or damaged"),
        (encode(RGB, "BMP")[:1000], "cut off or damaged"),
    ],
)
def test_what_cannot_be_read_is_an_error(encoded, message):
    findings = inspect_image.inspect(encoded)
    assert findings.error and findings.error.startswith(message)
    assert "\n" not in findings.error
    assert findings.traits == ()


def test_images_that_are_all_of_one_size_are_held_to_it():
    assert inspect_image.inspect(PNG, 3, (40, 60, 3)) == inspect_image.Findings()
    error = inspect_image.inspect(PNG, 3, (60, 40, 3)).error
    assert error == "40x60 pixels where all are 60x40"


def test_what_training_cannot_decode_is_an_error(monkeypatch):
    def refuse(encoded, channels):
        raise RuntimeError("too\nlarge")

    monkeypatch.setattr(inspect_image, "decode", refuse)
    assert inspect_image.inspect(PNG).error == "training cannot decode it (too large)"


def pixels(encoded: bytes, channels: int = 3) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(inspect_image.convert(encoded, channels))))


def test_conversion_keeps_the_pixels():
    np.testing.assert_array_equal(pixels(encode(RGB.convert("RGBA"))), PIXELS)
    np.testing.assert_array_equal(pixels(encode_deep(DEEP[..., ::-1])), PIXELS)
    np.testing.assert_array_equal(pixels(encode_deep(DEEP[..., 0]), 1), PIXELS[..., 0])
    palette = RGB.convert("P")
    np.testing.assert_array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))
    inks = encode(RGB.convert("CMYK"), "JPEG", quality=100)
    assert np.abs(pixels(inks).astype(int) - PIXELS).mean() < 8


@pytest.mark.parametrize(
    "orientation, upright",
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.transpose(1, 0, 2)),
        (6, np.rot90(PIXELS, -1)),
        (7, PIXELS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(PIXELS)),
    ],
)
def test_conversion_turns_images_upright(orientation, upright):
    tags = Image.Exif()
    tags[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encode(RGB, exif=tags)), upright)
