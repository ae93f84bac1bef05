"""A part of an enlarged image, to the bit as Pillow enlarges the whole and the part is cut out.

The whole of a thin image is huge: 4 x 20,000 pixels at a shorter side of 256 are 328 million.
Pillow can resize a box, but rounds its edges to single precision, which moves pixels.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Integer, UInt8

_BITS = 22  # Pillow's weights are whole multiples of 2^-22


class _Taps(NamedTuple):
    """Pixels along one axis whose weighted sum each pixel of the part is."""

    first: Integer[np.ndarray, " part"]
    weights: Int32[np.ndarray, "taps part"]


def enlarge_part(
    image: UInt8[np.ndarray, "h w c"],
    sides: tuple[int, int],
    box: tuple[int, int, int, int],
    method: str,
) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Enlarges an image as far as a box of the result needs it.

    Args:
        image: of any size.
        sides: height and width of the whole result in pixels, at least those of the image: Pillow
            then resizes rows before columns; where it shrinks, the order depends on its version.
        box: top, left, height and width in the result.
        method: "bilinear" or "bicubic".
    """
    top, left, height, width = box
    rows = _taps(image.shape[0], sides[0], np.arange(top, top + height), method)
    columns = _taps(image.shape[1], sides[1], np.arange(left, left + width), method)
    start, stop = rows.first[0], rows.first[-1] + len(rows.weights)
    part = _weigh(image[start:stop], columns, axis=1)  # rounded to levels in between, as Pillow's
    return _weigh(part, rows._replace(first=rows.first - start), axis=0)


def _taps(length, target, places, method):
    """Computes the weights of the pixels `places` of an axis enlarged from `length` to `target`."""
    reach, kernel = _KERNELS[method]
    centers = (places + 0.5) * (length / target)
    first = np.maximum((centers - reach + 0.5).astype(int), 0)
    stop = np.minimum((centers + reach + 0.5).astype(int), length)
    taps = first + np.arange((stop - first).max())[:, None]
    weights = np.where(taps < stop, kernel(abs(taps - centers + 0.5)), 0.0)
    weights = weights / sum(weights)  # added in order, as Pillow does
    return _Taps(first, np.trunc(weights * 2**_BITS + np.copysign(0.5, weights)).astype(np.int32))


def _weigh(image, taps, axis):
    total = np.int32(2 ** (_BITS - 1))  # rounds to the nearest level
    for place, weights in enumerate(taps.weights):
        pixels = image.take(taps.first + place, axis, mode="clip")  # weighs 0 beyond the end
        total = total + pixels * np.expand_dims(weights, tuple(range(1, image.ndim - axis)))
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


def _triangle(x):
    return np.maximum(1 - x, 0)


def _cubic(x):
    """Computes Keys' cubic at a = -0.5."""
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS = {"bilinear": (1, _triangle), "bicubic": (2, _cubic)}  # reach in pixels, weight
