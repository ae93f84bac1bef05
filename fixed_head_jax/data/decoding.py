"""Encoded images to pixels: uint8, grey or RGB, as stored (no rotation by EXIF tags).

Pixels are those that Pillow gives (of CMYK to within two levels). JPEG files, nearly all that there
are, go to libjpeg-turbo by way of simplejpeg, PNG (of 8 bits) and still WebP files to OpenCV, which
give the same in less time; all else goes to Pillow itself. Of an animation and of several pages it
reads the first; TIFF files it turns upright.
"""

import io
import zlib
from collections.abc import Collection
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

UPRIGHT = 1  # the EXIF orientation of an image that is stored as it is to be seen
cv2.setNumThreads(0)  # images are read side by side already

_SPACES = {1: ("GRAY", cv2.IMREAD_GRAYSCALE, "L"), 3: ("RGB", cv2.IMREAD_COLOR_RGB, "RGB")}
_BASELINE, _END, _FILL = 0xC0, b"\xff\xd9", 0xFF  # of a JPEG file
# Segments that may lie before its frame, each with its length: tables, comments, applications'.
_SKIPPED = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_SMALLEST = 57  # bytes of a PNG file without pixels
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by its type of colour
_BLOCK = 16  # rows that JPEG codes together, colours at half the resolution


class JpegHead(NamedTuple):
    """What `decode_top` needs of the head of a JPEG file.

    Attributes:
        height: in pixels.
        width: in pixels.
        place: of the height in the file, in bytes.
    """

    height: int
    width: int
    place: int


def decode(encoded: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image file of any common format.

    Args:
        encoded: the file.
        channels: 1 for grey, 3 for RGB; others in the file are converted or dropped.

    Raises:
        ValueError: if the file is damaged or of no known format.
    """
    if not encoded:
        raise ValueError("empty file")
    space, flag, _ = _SPACES[channels]
    if simplejpeg.is_jpeg(encoded):
        try:
            return simplejpeg.decode_jpeg(encoded, space)
        except ValueError:  # damage that can be mended, colours sampled in unusual ways
            pass
    elif plain := _plain(encoded):
        image = cv2.imdecode(np.frombuffer(plain, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return image.reshape(*image.shape[:2], channels)
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            return to_pixels(opened, channels)
    except Exception as error:  # Pillow's decoders raise many types
        raise ValueError(str(error) or type(error).__name__) from error


def decode_upright(encoded: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image file, see `decode`, and turns it as its EXIF tags say it is to be seen."""
    pixels = decode(encoded, channels)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            turn = orientation(image)
    except Exception:  # `decode` reads what Pillow cannot open; such a file has no tags
        turn = UPRIGHT
    return pixels if turn == UPRIGHT else upright(pixels, turn)


def orientation(image: Image.Image) -> int:
    """Returns how an opened image is yet to be turned: the EXIF tag, 1 for not at all."""
    if image.format == "TIFF":  # is turned as it is loaded; Pillow 10.0 keeps the tag
        return UPRIGHT
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # tags that cannot be read turn nothing
        return UPRIGHT
    return found if found in range(UPRIGHT, 9) else UPRIGHT


def upright(pixels: UInt8[np.ndarray, "h w c"], turn: int) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Turns pixels as an `orientation` says."""
    plain = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    plain.getexif()[ExifTags.Base.Orientation] = turn
    turned = np.asarray(ImageOps.exif_transpose(plain))
    return turned.reshape(*turned.shape[:2], pixels.shape[2])


def as_pixels(image: Any, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels of an image of Pillow, upright, or of an array [h, w] or [h, w, c].

    Raises:
        ValueError: if an array is not of 8 bits, or of other channels than these or grey.
    """
    if isinstance(image, Image.Image):
        return upright(to_pixels(image, channels), orientation(image))
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(
            f"images must be uint8 [height, width, channels], got {image.dtype} of shape "
            f"{image.shape}"
        )
    image = image.reshape(*image.shape[:2], -1)
    return np.repeat(image, channels, axis=2) if image.shape[2] == 1 else image


def to_pixels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """Returns the pixels of an image that Pillow opened, at 8 bits.

    Deeper grey is scaled so that the largest value of its depth becomes 255, and rounded. Alpha is
    dropped, not multiplied in.

    Args:
        image: as opened, also if loaded since.
        channels: 1 or 3.

    Raises:
        ValueError: if the range of its values is not known: floats, 32-bit integers.
    """
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        largest = 2 ** _depth(image) - 1
        values = (np.asarray(image).astype(np.uint32) * 255 + largest // 2) // largest
        image = Image.fromarray(values.astype(np.uint8))
    elif image.mode == "LAB":  # has no direct way to grey
        image = image.convert("RGB")
    pixels = np.asarray(image.convert(_SPACES[channels][2]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _depth(image: Image.Image) -> int:
    """Returns the bits of a value of a grey image of more than 8."""
    is_integer = image.mode != "F"
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode.startswith("I;16"):
        return image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0]
    if image.format in ("PNG", "PPM") and is_integer:  # Pillow scales PPM's to 16 bits
        return 16
    kind = "32-bit or signed integers" if is_integer else "floating-point numbers"
    raise ValueError(
        f"its pixels are {kind}, of a range that is not known; save it at 8 or 16 bits"
    )


def read_head(encoded: bytes) -> JpegHead | None:
    """Reads the head of a baseline JPEG file that has an end; None of any other."""
    if not simplejpeg.is_jpeg(encoded) or _END not in encoded[-64:]:
        return None
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == _FILL:
        marker, size = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if marker == _BASELINE:
            sides = encoded[place + 5 : place + 9]
            height, width = int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big")
            return JpegHead(height, width, place + 5) if height and width else None
        if marker == _FILL:  # any number of them may precede a marker (T.81, B.1.1.2)
            place += 1
        elif marker in _SKIPPED:
            place += 2 + size
        else:
            return None
    return None


def decode_top(
    encoded: bytes, channels: int, head: JpegHead, rows: int, reduction: int = 1
) -> UInt8[np.ndarray, "h w c"] | None:
    """Decodes the upper part of a JPEG file in less time.

    The decoder gets a file whose head says that it ends there. It uses the faster of its two
    transforms, as tf.data does, and repeats colours where they have half the resolution: 1.3
    levels from `decode` on average. Damage in the middle of the file goes unnoticed; stored
    records have checksums.

    Args:
        encoded: the file.
        channels: 1 or 3.
        head: of `read_head`.
        rows: number of rows needed; a few more are returned.
        reduction: 1, 2, 4 or 8: gives means of so many pixels each way, sides rounded up.

    Returns:
        The rows, or None if the decoder refuses the file, such as for unusual sampling of colours.
    """
    file, height = bytearray(encoded), min(head.height, (rows // _BLOCK + 2) * _BLOCK)
    file[head.place : head.place + 2] = height.to_bytes(2, "big")
    try:
        return simplejpeg.decode_jpeg(
            file,
            _SPACES[channels][0],
            fastdct=True,
            fastupsample=True,
            min_height=-(-height // reduction),
            min_width=-(-head.width // reduction),
            strict=False,  # there are bytes after the end
        )
    except ValueError:
        return None


def is_damaged(encoded: bytes) -> bool:
    """Returns whether a JPEG or PNG file has damage that Pillow passes over in silence."""
    if encoded.startswith(_PNG):
        return _is_damaged_png(encoded)
    try:
        if simplejpeg.is_jpeg(encoded):
            simplejpeg.decode_jpeg(encoded, "GRAY")
    except ValueError as error:  # also of colours sampled in ways that it does not know
        return "tjDecompressHeader" not in str(error)
    return False


def _is_damaged_png(encoded):
    """Returns whether its rows are not all that is compressed in it; libpng would print so."""
    width, height = int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    depth, colours, is_interlaced = encoded[24], encoded[25], encoded[28]
    row = 1 + -(-width * depth * _PNG_SAMPLES[colours] // 8)  # its filter, a number up to 4, first
    size = row * height
    data = b"".join(chunk[8:-4] for chunk in _png_chunks(encoded, {b"IDAT"}))
    inflater = zlib.decompressobj()
    try:
        rows = inflater.decompress(data, 2 * size + 1)  # interlaced, narrow rows take up to twice
    except zlib.error:
        return True
    if not inflater.eof or inflater.unused_data:
        return True
    return not is_interlaced and (len(rows) != size or max(rows[::row]) > 4)


def _plain(encoded):
    """Returns what OpenCV may read of a PNG or WebP file, None where it would give other pixels.

    Of a PNG file that is the chunks that make its pixels: others make of it an animation, or
    libpng print warnings.
    """
    if encoded.startswith(_PNG):
        if encoded[24:25] == b"\x10":  # of 16 bits
            return None
        size = int.from_bytes(encoded[33:37], "big")
        if encoded[37:41] == b"IDAT" and len(encoded) == size + _SMALLEST:
            return encoded  # one chunk: to list them would take a tenth of a small image's time
        return b"".join([_PNG, *_png_chunks(encoded, {b"IHDR", b"PLTE", b"IDAT"}), _PNG_END])
    is_animated = encoded[12:16] == b"VP8X" and int.from_bytes(encoded[20:21], "big") & 2
    return encoded if encoded[8:12] == b"WEBP" and not is_animated else None


def _png_chunks(encoded: bytes, kinds: Collection[bytes]) -> list[bytes]:
    """Lists the chunks of these kinds, each with its length, name and checksum."""
    chunks, place = [], len(_PNG)
    while place + 12 <= len(encoded):
        end = place + 12 + int.from_bytes(encoded[place : place + 4], "big")
        if encoded[place + 4 : place + 8] in kinds:
            chunks.append(encoded[place:end])
        place = end
    return chunks
