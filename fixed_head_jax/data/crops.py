"""Crops of decoded images on the host, to uint8 at the size that the device gets.

Shrinking averages areas, which differs from Pillow's antialiased bilinear form (torchvision's) by
0.8 levels on average on a photograph, 26 at most (256 to 224 pixels).
"""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10


def resize_and_crop(
    image: UInt8[np.ndarray, "h w c"], size: int, resize_size: int = 0
) -> UInt8[np.ndarray, "s s c"]:
    """Resizes the shorter side (antialiased) and crops the central square.

    Args:
        image: of any size.
        size: side of the square in pixels.
        resize_size: length of the shorter side before the crop, >= `size`; 0 is `size`.
    """
    height, width, _ = image.shape
    shorter, target = min(height, width), resize_size or size
    if shorter != target:
        shape = (
            max(target, round(width * target / shorter)),
            max(target, round(height * target / shorter)),
        )
        image = _resize(image, shape)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def random_resized_crop(
    image: UInt8[np.ndarray, "h w c"], size: int, draws: Float[np.ndarray, "attempts 4"]
) -> UInt8[np.ndarray, "s s c"]:
    """Crops a random rectangle, see `random_box`, and resizes it to a square of side `size`."""
    top, left, height, width = random_box(*image.shape[:2], draws)
    return _resize(image[top : top + height, left : left + width], (size, size))


def random_box(
    height: int, width: int, draws: Float[np.ndarray, "attempts 4"]
) -> tuple[int, int, int, int]:
    """Chooses a rectangle of random area and aspect inside an image.

    An attempt draws a share of the area uniformly from `SCALE` and an aspect (width / height)
    log-uniformly from `RATIO`; the first whose rounded sides fit is put at a uniform place. If none
    fits, the largest central rectangle with an aspect in `RATIO` is taken.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        draws: uniform numbers in [0, 1): area, aspect, top and left of each attempt.

    Returns:
        Top, left, height and width in pixels.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, in the form of torchvision's
    RandomResizedCrop.
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    for share, aspect, down, right in draws:
        area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * share)
        ratio = math.exp(low + (high - low) * aspect)
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = math.floor(down * (height - box_height + 1))
            left = math.floor(right * (width - box_width + 1))
            return top, left, box_height, box_width
    ratio = min(max(width / height, RATIO[0]), RATIO[1])
    box_width, box_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def draw(seed: int, step: int, batch_size: int) -> Float[np.ndarray, "b attempts 4"]:
    """Draws what `random_box` needs for every example of training batch `step`."""
    bits = np.random.Philox(key=[seed, step], counter=[0, 0, 0, 2])  # 0 and 1 are the orders'
    return np.random.Generator(bits).random((batch_size, ATTEMPTS, 4))


def _resize(image, shape):
    """Resizes to `shape`, (width, height): by areas where it shrinks, bilinearly where not."""
    shrinks = image.shape[1] >= shape[0] and image.shape[0] >= shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, shape, interpolation=method)
    return resized.reshape(*resized.shape[:2], image.shape[2])
