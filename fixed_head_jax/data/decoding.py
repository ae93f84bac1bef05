"""Encoded images to pixels: uint8, grey or RGB, as stored (no rotation by EXIF tags).

JPEG files, nearly all that there are, go to libjpeg-turbo by way of simplejpeg, PNG files and
others to OpenCV, and what these refuse (damage that can be mended, GIF) to Pillow. On photographs
the three give the same pixels.
"""

import io

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

cv2.setNumThreads(0)  # images are read side by side already

_SPACES = {1: ("GRAY", cv2.IMREAD_GRAYSCALE, "L"), 3: ("RGB", cv2.IMREAD_COLOR_RGB, "RGB")}


def decode(encoded: bytes, channels: int, reduction: int = 1) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image file of any common format.

    Args:
        encoded: the file.
        channels: 1 for grey, 3 for RGB; others in the file are converted or dropped.
        reduction: 1, 2, 4 or 8: of a JPEG file, decodes means of so many pixels each way, sides
            rounded up, which takes less time; other files are decoded whole.

    Raises:
        ValueError: if the file is damaged or of no known format.
    """
    if not encoded:
        raise ValueError("empty file")
    space, flag, mode = _SPACES[channels]
    if simplejpeg.is_jpeg(encoded):
        try:
            sides = [-(-side // reduction) for side in jpeg_size(encoded)] if reduction > 1 else []
            return simplejpeg.decode_jpeg(encoded, space, False, False, *sides)
        except ValueError:
            return _decode_with_pillow(encoded, mode)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        return _decode_with_pillow(encoded, mode)
    return image.reshape(*image.shape[:2], channels)


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Reads (height, width) from the head of a JPEG file; None of other files."""
    if not simplejpeg.is_jpeg(encoded):
        return None
    height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
    return height, width


def _decode_with_pillow(encoded, mode):
    try:
        image = np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))
    except OSError as error:  # also of files that it does not know
        raise ValueError(str(error) or "not an image") from error
    return image.reshape(*image.shape[:2], -1)
