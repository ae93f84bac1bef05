"""What is said of images of every kind, and what they are converted to."""

import io
import struct
import zlib

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


# What Pillow gives is what is stored and what it is converted to: files whose pixels are known


UPRIGHT = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PIXELS),
}


def pnm(kind: bytes, largest: int, values) -> bytes:
    size = 1 if largest < 256 else 2
    pixels = b"".join(int(value).to_bytes(size, "big") for value in values)
    return b"%s %d 1 %d\n" % (kind, len(values) // (3 if kind == b"P6" else 1), largest) + pixels


def tiff_12_bits(values) -> bytes:
    """Returns a TIFF file of one row of grey."""
    bits = "".join(format(value, "012b") for value in values)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tags = [(256, len(values)), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, 1), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    return head + entries + bytes(4)


def bmp_565(values) -> bytes:
    """Returns a BMP file of one row of 16-bit pixels: five bits of red, six of green, five."""
    pixels = struct.pack(f"<{len(values)}H", *values)
    info = struct.pack("<IiiHHIIiiII", 40, len(values), 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + info + masks + pixels


def row(*colours) -> np.ndarray:
    return np.array([colours], np.uint8)


def deep_row(*values) -> Image.Image:
    return Image.fromarray(np.array([values], np.uint16))


def alpha(pixels, kind: str) -> bytes:
    return encode(
        Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 100, np.uint8)])), kind
    )


def animated(kind: str, **options) -> bytes:
    others = [Image.new("RGB", RGB.size, (level, 0, 0)) for level in (9, 99)]
    return encode(RGB, kind, save_all=True, append_images=others, **options)


LAB = Image.merge("LAB", [Image.fromarray(PIXELS[..., band]) for band in range(3)])
GREYS = [(0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255)]


@pytest.mark.parametrize(
    "encoded, expected",
    [
        *((encode(RGB, "TIFF", tiffinfo={274: o}), UPRIGHT[o]) for o in range(2, 9)),
        *((pnm(b"P5", n, [0, n / 3, n * 2 / 3, n]), row(*GREYS)) for n in (3, 15, 1023, 65535)),
        (pnm(b"P5", 1, [0, 1]), row((0, 0, 0), (255, 255, 255))),
        (pnm(b"P6", 63, [63, 21, 0]), row((255, 85, 0))),
        (pnm(b"P6", 1023, [1023, 341, 0]), row((255, 85, 0))),
        (tiff_12_bits([0, 1365, 2730, 4095]), row(*GREYS)),
        (encode(deep_row(0, 21845, 43690, 65535), "TIFF"), row(*GREYS)),
        (encode(deep_row(127, 128, 384, 386)),
         row((0,) * 3, (0,) * 3, (1,) * 3, (2,) * 3)),
        (alpha(PIXELS, "TIFF"), PIXELS),
        (alpha(PIXELS, "PNG"), PIXELS),
        (bmp_565([0xFFFF, 0xF800, 0x07E0, 0x001F]),
         row((255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))),
        (animated("PNG"), PIXELS),
        (animated("PNG", default_image=True), PIXELS),  # a still image, then another animation
        (animated("WEBP", lossless=True), PIXELS),
        (animated("TIFF"), PIXELS),
        (encode(LAB, "TIFF"), np.asarray(LAB.convert("RGB"))),
    ],
)  # fmt: skip
def test_pixels_are_those_of_pillow_stored_and_converted(encoded, expected):
    findings = inspect_image.inspect(encoded)
    assert not findings.error and not {"damaged", "EXIF rotation"} & {*findings.traits}
    np.testing.assert_array_equal(decode(encoded, 3), expected)
    np.testing.assert_array_equal(pixels(encoded), expected)


@pytest.mark.parametrize(
    "image, message",
    [
        (Image.fromarray(np.linspace(0, 1, 8, dtype=np.float32)[None]), "floating-point numbers"),
        (Image.fromarray(np.array([[0, 70000]], np.int32)), "32-bit or signed integers"),
    ],
)
def test_depths_of_unknown_range_are_refused(image, message):
    encoded = encode(image, "TIFF")
    assert inspect_image.inspect(encoded).error.startswith(f"its pixels are {message}, of a range")
    with pytest.raises(ValueError, match="save it at 8 or 16 bits"):
        decode(encoded, 3)


@pytest.mark.parametrize("orientation", [0, 9, 1])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_orientations_that_turn_nothing_are_no_fault(orientation, kind):
    tags = Image.Exif()
    tags[0x0112] = orientation
    assert inspect_image.inspect(encode(RGB, kind, exif=tags)) == inspect_image.Findings()


def overwrite(encoded: bytes, place: int, damage: bytes) -> bytes:
    return encoded[:place] + damage + encoded[place + len(damage) :]


def png_chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


SMOOTH = RGB.resize((96, 80), Image.BICUBIC)
PAIR = encode(SMOOTH, "MPO", save_all=True, append_images=[SMOOTH])
FAX = encode(SMOOTH.convert("1"), "TIFF", compression="group4")
IDAT = zlib.compress(bytes(40 * 181) + b"more")
PNG_HEAD = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 8, 2, 0, 0, 0))
TOO_MUCH = PNG_HEAD + png_chunk(b"IDAT", IDAT) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "encoded",
    [
        overwrite(PAIR, PAIR.index(b"\xff\xda") + 100, b"\xff\xd9"),
        overwrite(FAX, 100, b"\xff" * 40),
        TOO_MUCH,
    ],
    ids=["of two pictures", "fax", "too many rows"],
)
def test_damage_that_pillow_passes_over_is_damage_and_nothing_is_printed(encoded, capfd):
    findings = inspect_image.inspect(encoded)
    assert not findings.error and "damaged" in findings.traits
    inspect_image.convert(encoded, 3)
    assert capfd.readouterr() == ("", "")


def test_damaged_tiffs_are_refused_and_nothing_is_printed(capfd):
    encoded = encode(SMOOTH, "TIFF", compression="tiff_lzw")
    assert inspect_image.inspect(overwrite(encoded, 500, b"\xff" * 50)).error.startswith("cut off")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("level, traits", [(1, ("read differently",)), (0, ())])
def test_what_training_would_read_differently_is_named(monkeypatch, level, traits):
    monkeypatch.setattr(inspect_image, "decode", lambda *_: PIXELS ^ level)
    assert inspect_image.inspect(PNG) == inspect_image.Findings("", traits)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_conversion_turns_images_upright(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encode(RGB, exif=tags)), UPRIGHT[orientation])
