"""Class maps drawn over the photographs that they are of."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fixed_head_jax.display.pictures import resize_square

_SHARE = 0.6  # of the map in the mixture


def overlay(
    photograph: UInt8[np.ndarray, "h w c"], class_map: Float[np.ndarray, "a b"], side: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Draws a map over a photograph, dark where it is 0 and bright where it is 1.

    The map is enlarged bilinearly, as an image of its pixels' centres.

    Args:
        photograph: that the network saw.
        class_map: in 0 ... 1, see `scale_maps`; what is outside is clipped.
        side: of the picture in pixels.
    """
    large = cv2.resize(class_map.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    levels = np.round(255 * np.clip(large, 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = resize_square(photograph, side).mean(-1, keepdims=True)
    return np.round(_SHARE * colours + (1 - _SHARE) * grey).astype(np.uint8)


def scale_maps(
    maps: Float[np.ndarray, "a b n"], is_joint: bool = True
) -> Float[np.ndarray, "a b n"]:
    """Brings the maps of one photograph to 0 ... 1, negative values to 0.

    Args:
        maps: of n classes.
        is_joint: by the largest value of all, so that a class that is not there stays dark; or
            each map by its own smallest and largest, a flat one to 0.
    """
    maps = np.maximum(maps, 0)
    if is_joint:
        return maps / max(maps.max(), 1e-12)
    low, high = maps.min((0, 1)), maps.max((0, 1))
    return (maps - low) / np.maximum(high - low, 1e-12)


def colour_bar(width: int, height: int = 16) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the colours of a map from 0, at the left, to 1."""
    levels = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width))
    return cv2.applyColorMap(np.ascontiguousarray(levels), cv2.COLORMAP_INFERNO)[..., ::-1]
