"""Encoded images to pixels: uint8, grey or RGB, as stored (no rotation by EXIF tags).

JPEG files, nearly all that there are, go to libjpeg-turbo by way of simplejpeg, PNG files and
others to OpenCV, and what these refuse (damage that can be mended, GIF) to Pillow. On photographs
the three give the same pixels.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

cv2.setNumThreads(0)  # images are read side by side already

_SPACES = {1: ("GRAY", cv2.IMREAD_GRAYSCALE, "L"), 3: ("RGB", cv2.IMREAD_COLOR_RGB, "RGB")}
_BASELINE, _SCAN, _END = 0xC0, 0xDA, b"\xff\xd9"  # markers of a JPEG file
_OTHER_FRAMES = (0xC1, 0xC2)
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
    space, flag, mode = _SPACES[channels]
    if simplejpeg.is_jpeg(encoded):
        try:
            return simplejpeg.decode_jpeg(encoded, space)
        except ValueError:
            return _decode_with_pillow(encoded, mode)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return _decode_with_pillow(encoded, mode)
    return image.reshape(*image.shape[:2], channels)


def read_head(encoded: bytes) -> JpegHead | None:
    """Reads the head of a baseline JPEG file that has an end; None of any other."""
    if not simplejpeg.is_jpeg(encoded) or _END not in encoded[-64:]:
        return None
    place = 2
    while place + 9 <= len(encoded):
        marker, size = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4], "big")
        if marker == _BASELINE:
            sides = encoded[place + 5 : place + 9]
            height, width = int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big")
            return JpegHead(height, width, place + 5)
        if marker in (*_OTHER_FRAMES, _SCAN):
            return None
        place += 2 + size
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


def is_damaged_jpeg(encoded: bytes) -> bool:
    """Returns whether libjpeg finds damage in a JPEG file that decoders pass over in silence."""
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY")
    except ValueError as error:  # also of colours sampled in ways that it does not know
        return "tjDecompressHeader" not in str(error)
    return False


def _decode_with_pillow(encoded, mode):
    try:
        image = np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))
    except OSError as error:  # also of files that it does not know
        raise ValueError(str(error) or "not an image") from error
    return image.reshape(*image.shape[:2], -1)
