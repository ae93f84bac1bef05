"""Decoding against Pillow, on a photograph, in the formats that datasets have."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from fixed_head_jax.data.decoding import decode, decode_top, read_head

PHOTO = Image.fromarray(load_sample_image("china.jpg")[100:221, 200:363])


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def with_pillow(data, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode)).astype(int)


@pytest.mark.parametrize(
    "data",
    [
        encoded(PHOTO, "JPEG", quality=90),
        encoded(PHOTO, "JPEG", quality=75, subsampling=2, progressive=True),
        encoded(PHOTO.convert("L"), "JPEG"),
        encoded(PHOTO, "PNG"),
        encoded(PHOTO.convert("L"), "PNG"),
        encoded(PHOTO.quantize(64), "PNG"),
        encoded(PHOTO.quantize(64), "GIF"),
        encoded(PHOTO, "BMP"),
    ],
    ids=["jpeg", "progressive", "grey jpeg", "png", "grey png", "palette", "gif", "bmp"],
)
def test_pixels_are_those_of_pillow(data):
    image = decode(data, 3)
    assert image.shape == (121, 163, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, with_pillow(data))
    grey = decode(data, 1)
    assert grey.shape == (121, 163, 1)
    # The luma of colours is rounded in other ways, or taken as a JPEG file has it.
    difference = np.abs(grey[..., 0] - with_pillow(data, "L"))
    is_grey = Image.open(io.BytesIO(data)).mode == "L"
    assert difference.max() == 0 if is_grey else difference.mean() < 1


def test_alpha_is_dropped():
    image = PHOTO.convert("RGBA")
    image.putalpha(100)
    np.testing.assert_array_equal(decode(encoded(image, "PNG"), 3), np.asarray(PHOTO))


def test_cmyk_becomes_rgb():
    data = encoded(PHOTO.convert("CMYK"), "JPEG")
    assert np.abs(decode(data, 3) - with_pillow(data)).max() <= 1


def test_16_bits_become_8():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    data = encoded(Image.fromarray(levels * 257), "PNG")
    np.testing.assert_array_equal(decode(data, 1)[..., 0], levels)


def test_exif_does_not_rotate():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, "JPEG", exif=exif)
    assert decode(data, 3).shape == (121, 163, 3)


@pytest.mark.parametrize("rows", [1, 15, 16, 40, 100, 121])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_the_top_of_an_image(rows, subsampling):
    data = encoded(PHOTO, "JPEG", quality=90, subsampling=subsampling)
    image = decode_top(data, 3, read_head(data), rows)
    assert min(rows + 16, 121) <= image.shape[0] <= min(rows + 32, 121)
    fast = decode_top(data, 3, read_head(data), 121)
    assert fast.shape == (121, 163, 3)
    np.testing.assert_array_equal(image[:rows], fast[:rows])
    assert np.abs(fast.astype(int) - decode(data, 3)).mean() < (1.2 if subsampling == 0 else 3.0)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_image_has_the_means(reduction):
    data = encoded(PHOTO, "JPEG", quality=95, subsampling=0)
    image = decode_top(data, 3, read_head(data), 121, reduction)
    assert image.shape == (-(-121 // reduction), -(-163 // reduction), 3)
    whole = decode(data, 3)[: 121 // reduction * reduction, : 163 // reduction * reduction]
    blocks = whole.reshape(121 // reduction, reduction, 163 // reduction, reduction, 3)
    means = blocks.mean((1, 3))
    assert np.abs(image[: means.shape[0], : means.shape[1]] - means).mean() < 1.5


def test_the_top_of_a_damaged_image():
    data = encoded(PHOTO, "JPEG")
    assert read_head(data[:3000]) is None  # without an end: decoded whole, which is an error
    head = read_head(data)
    assert decode_top(data[: head.place + 4] + b"\xff\xd9", 3, head, 50) is None


def test_jpeg_with_extra_bytes_inside_is_mended():
    data = encoded(PHOTO, "JPEG")
    middle = data.rindex(b"\xff\xda") + 500
    damaged = data[:middle] + bytes(8) + data[middle:-2] + b"\x00" * 30 + b"\xff\xd9"
    assert decode(damaged, 3).shape == (121, 163, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", encoded(PHOTO, "JPEG")[:2000], encoded(PHOTO, "PNG")[:9000]],
    ids=["empty", "text", "truncated jpeg", "truncated png"],
)
def test_damaged_files_are_errors(data):
    with pytest.raises(ValueError, match="truncated|cannot identify|empty file"):
        decode(data, 3)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_heads_may_have_fill_bytes_before_any_marker(count):
    """T.81, B.1.1.2; a comment holds what looks like a frame at the place of a wrong step."""
    frame = b"\xff\xc0\0\x11\x08\0\x05\0\x05"
    comment = b"\xff\xfe\x02\x02" + bytes(0xFF) + frame * 30
    comment = comment[:4] + comment[4:].ljust(0x0200, b"\0")[:0x0200]
    data = encoded(PHOTO, "JPEG")
    parts = [comment, *segments(data[2:])]
    for index in range(len(parts)):
        padded = b"".join([*parts[:index], b"\xff" * count, *parts[index:]])
        head = read_head(b"\xff\xd8" + padded)
        assert head[:2] == (121, 163)
        top = decode_top(b"\xff\xd8" + padded, 3, head, 121)
        np.testing.assert_array_equal(top, decode_top(data, 3, read_head(data), 121))


def segments(data: bytes) -> list[bytes]:
    """Splits a JPEG file behind its first marker at those that follow, up to the scan."""
    found = []
    while data[1] != 0xDA:
        size = 2 + int.from_bytes(data[2:4], "big")
        found.append(data[:size])
        data = data[size:]
    return [*found, data]


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\xdc\0\x04\0\x10", b"\0\0\0\0"])
def test_heads_that_are_not_understood_are_left_to_the_decoder(marker):
    data = encoded(PHOTO, "JPEG")
    assert read_head(data[:2] + marker + data[2:]) is None
    height = read_head(data).place
    assert read_head(data[:height] + b"\0\0" + data[height + 2 :]) is None  # told after the scan


def test_what_libpng_would_print_of_other_chunks_is_not_printed(capfd):
    data = encoded(PHOTO, "PNG")
    profile = b"\0\0\0\x04iCCPx\0\0\x99" + zlib.crc32(b"iCCPx\0\0\x99").to_bytes(4, "big")
    np.testing.assert_array_equal(decode(data[:33] + profile + data[33:], 3), np.asarray(PHOTO))
    decode(data[:-12], 3)  # without its last chunk
    assert capfd.readouterr() == ("", "")


def test_heads():
    data = encoded(PHOTO, "JPEG")
    height, width, place = read_head(data)
    assert (height, width) == (121, 163)
    assert data[place : place + 4] == bytes([0, 121, 0, 163])
    for other in (encoded(PHOTO, "PNG"), encoded(PHOTO, "JPEG", progressive=True), b"\xff\xd8"):
        assert read_head(other) is None
