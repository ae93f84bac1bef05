"""Crops of encoded images on the host, to uint8 at the size that the device gets.

Evaluation resizes exactly as torchvision and timm do, with Pillow. Training may crop `fast`: of a
JPEG file nothing below the crop is decoded, and where the crop is large, means of 2, 4 or 8 pixels
each way (its edges then move to theirs); OpenCV resizes, bilinearly or, where that would skip
pixels, by areas. On ImageNet's crops to 224 pixels this is 2.2 levels from Pillow's bilinear
resizing on average, and takes 0.56 of the time.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fixed_head_jax.data.decoding import decode, decode_top, read_head
from fixed_head_jax.data.enlarging import enlarge_part
from fixed_head_jax.settings.lookup import check_choice

METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RANDOM_METHODS = ("fast", *METHODS, "random")
ATTEMPTS = 10
# Pixels that are resized for each one of the crop: from here on the part alone takes less time.
_MOST_ENLARGED = 4
_DRAWS = 4 * ATTEMPTS + 1  # per crop; the last one chooses the method


class RandomCrop(NamedTuple):
    """A rectangle of random area and aspect, resized to a square; see `random_box`.

    Attributes:
        size: side of the square in pixels.
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest aspect, width / height.
        method: of resizing: "fast", "bilinear", "bicubic" or "random", one of the last two.
        views: number of crops of each image; 0 for one without an axis of its own.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    method: str = "fast"
    views: int = 0


def check(crop: RandomCrop) -> None:
    """Raises ValueError unless the crop can be drawn."""
    if crop.size < 1 or crop.views < 0:
        raise ValueError(f"a crop needs size >= 1 and views >= 0, got {crop.size} and {crop.views}")
    if len(crop.scale) != 2 or not 0 < crop.scale[0] <= crop.scale[1] <= 1:
        raise ValueError(
            f"crop_scale must be (low, high) with 0 < low <= high <= 1, got {crop.scale}"
        )
    if len(crop.ratio) != 2 or not 0 < crop.ratio[0] <= crop.ratio[1]:
        raise ValueError(f"crop_ratio must be (low, high) with 0 < low <= high, got {crop.ratio}")
    check_choice("crop_interpolation", crop.method, RANDOM_METHODS)


def draw(
    seed: int, step: int, batch_size: int, crops: Mapping[str, RandomCrop]
) -> dict[str, Float[np.ndarray, "b views draws"]]:
    """Draws what `random_crops` needs for every example of training batch `step`."""
    bits = np.random.Philox(key=[seed, step], counter=[0, 0, 0, 2])  # 0 and 1 are the orders'
    rng = np.random.Generator(bits)
    return {
        name: rng.random((batch_size, max(crop.views, 1), _DRAWS)) for name, crop in crops.items()
    }


def random_crops(
    encoded: bytes,
    channels: int,
    crops: Mapping[str, RandomCrop],
    draws: Mapping[str, Float[np.ndarray, "views draws"]],
    out: Mapping[str, UInt8[np.ndarray, "..."]],
) -> None:
    """Decodes one image, once, and writes its random crops.

    Args:
        encoded: the file.
        channels: 1 or 3.
        crops: by name.
        draws: uniform numbers in [0, 1) of each crop, from `draw`.
        out: where the crops go, [size, size, channels], with `views` [views, size, size, channels].

    Raises:
        ValueError: if the file cannot be decoded.
    """
    views = [
        (crop, row, view)
        for name, crop in crops.items()
        for row, view in zip(draws[name], out[name] if crop.views else out[name][None], strict=True)
    ]
    is_fast = all(crop.method == "fast" for crop in crops.values())
    head = read_head(encoded) if is_fast else None
    image, reduction = None, 1
    if head:
        height, width = head.height, head.width
    else:
        image = decode(encoded, channels)
        height, width = image.shape[:2]
    boxes = [random_box(height, width, row, crop.scale, crop.ratio) for crop, row, _ in views]
    if head:
        sizes = [crop.size for crop, _, _ in views]
        reduction = min(map(_reduction, boxes, sizes))
        rows = max(top + height for top, _, height, _ in boxes)
        image = decode_top(encoded, channels, head, rows, reduction)
    if image is None:  # colours sampled in a way that only `decode` knows
        image, reduction = decode(encoded, channels), 1
    for box, (crop, row, view) in zip(boxes, views, strict=True):
        if crop.method == "fast":
            top, left, height, width = (side // reduction for side in box)
            _resize_fast(image[top : top + height, left : left + width], view)
        else:
            method = crop.method
            if method == "random":
                method = "bicubic" if row[-1] < 0.5 else "bilinear"
            view[...] = _resize(image, (crop.size, crop.size), method, box)


def random_box(
    height: int,
    width: int,
    draws: Float[np.ndarray, " draws"],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Chooses a rectangle of random area and aspect inside an image.

    An attempt draws a share of the area uniformly from `scale` and an aspect (width / height)
    log-uniformly from `ratio`; the first whose rounded sides fit is put at a uniform place. If none
    fits, the largest central rectangle with an aspect in `ratio` is taken.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        draws: uniform numbers in [0, 1): area, aspect, top and left of each attempt.
        scale: smallest and largest share of the area.
        ratio: smallest and largest aspect.

    Returns:
        Top, left, height and width in pixels.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, in the form of torchvision's
    RandomResizedCrop.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(ATTEMPTS):
        share, aspect, down, right = draws[4 * attempt : 4 * attempt + 4]
        area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
        drawn = math.exp(low + (high - low) * aspect)
        box_width, box_height = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = math.floor(down * (height - box_height + 1))
            left = math.floor(right * (width - box_width + 1))
            return top, left, box_height, box_width
    central = min(max(width / height, ratio[0]), ratio[1])
    box_width, box_height = min(width, round(height * central)), min(height, round(width / central))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resize_and_crop(
    image: UInt8[np.ndarray, "h w c"], size: int, resize_size: int = 0, method: str = "bilinear"
) -> UInt8[np.ndarray, "s s c"]:
    """Resizes the shorter side, antialiased, and crops the central square, as torchvision does.

    The longer side is rounded down, the place of the square to the nearest pixel, halves to even.

    Args:
        image: of any size.
        size: side of the square in pixels.
        resize_size: length of the shorter side before the crop, >= `size`; 0 is `size`.
        method: "bilinear" or "bicubic".
    """
    height, width, _ = image.shape
    shorter, target = min(height, width), resize_size or size
    sides = target * height // shorter, target * width // shorter
    top, left = (round((side - size) / 2) for side in sides)
    if shorter < target and math.prod(sides) > _MOST_ENLARGED * size**2:
        return enlarge_part(image, sides, (top, left, size, size), method)
    if shorter != target:
        image = _resize(image, sides, method)
    return image[top : top + size, left : left + size]


def _resize(image, sides, method, box=None):
    """Resizes an image, or the box (top, left, height, width) in it, to (height, width)."""
    plane = image[..., 0] if image.shape[-1] == 1 else image
    if box is not None:
        top, left, height, width = box
        plane = plane[top : top + height, left : left + width]
    resized = Image.fromarray(np.ascontiguousarray(plane)).resize(sides[::-1], METHODS[method])
    return np.asarray(resized).reshape(*sides, image.shape[-1])


def _reduction(box, size):
    """Returns by how much a JPEG file may be reduced without the box falling below the size."""
    return max(factor for factor in (1, 2, 4, 8) if factor == 1 or min(box[2:]) >= factor * size)


def _resize_fast(image, out):
    """Resizes an image to the square `out`, in place."""
    skips = min(image.shape[:2]) >= 2 * out.shape[0]
    method = cv2.INTER_AREA if skips else cv2.INTER_LINEAR
    cv2.resize(image, out.shape[1::-1], dst=out, interpolation=method)
