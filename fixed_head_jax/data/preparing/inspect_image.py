"""What an encoded image is: whether it can be read, and how it departs from plain pixels."""

import io
import os
import tempfile
from typing import NamedTuple

import numpy as np
import tqdm
from PIL import Image, TiffImagePlugin

from fixed_head_jax.data.decoding import (
    UPRIGHT,
    decode,
    is_damaged,
    orientation,
    to_pixels,
    upright,
)

_GREY = ("1", "L", "LA", "La", "I", "F")


class Findings(NamedTuple):
    """What `inspect` found.

    Attributes:
        error: why the image cannot be used, "" if it can.
        traits: how it departs from 8-bit upright pixels of the dataset's channels: "grey",
            "colour", "CMYK", "alpha", "16-bit" (more than 8), "palette", "EXIF rotation"; or
            "damaged", where decoders pass over it in silence; or "read differently", where `decode`
            and Pillow do not give the same pixels. It can be read.
    """

    error: str = ""
    traits: tuple[str, ...] = ()


def inspect(
    encoded: bytes, channels: int = 3, image_shape: tuple[int, int, int] | None = None
) -> Findings:
    """Decodes an image in full and says what is wrong or unusual about it.

    It is decoded twice: by Pillow, which notices a file that is cut off and gives the right pixels,
    and by `decode`, which will read it in training. Safe to call from many threads.

    Args:
        encoded: bytes of the file.
        channels: of the dataset, 1 or 3.
        image_shape: (height, width, channels) that all images have; None where they vary.
    """
    if not encoded:
        return Findings("empty, or cannot be opened")
    try:
        image, has_damage = _load(encoded)
    except Image.UnidentifiedImageError:
        return Findings("not an image that Pillow can read")
    except Image.DecompressionBombError as error:
        return Findings(f"too large ({error})")
    except Exception as error:  # Pillow's decoders raise many types
        return Findings(f"cut off or damaged ({_reason(error)})")
    height, width = image.height, image.width
    if image_shape and (height, width) != image_shape[:2]:
        return Findings(f"{height}x{width} pixels where all are {image_shape[0]}x{image_shape[1]}")
    try:
        pixels = to_pixels(image, channels)
    except ValueError as error:
        return Findings(str(error))
    traits = _traits(image, encoded, channels)
    if has_damage:
        return Findings("", (*traits, "damaged"))
    try:
        decoded = decode(encoded, channels)
    except Exception as error:  # OpenCV and we raise different types
        return Findings(f"training cannot decode it ({_reason(error)})")
    if {*traits} <= {"grey"} and not _is_same(decoded, pixels, image.format):
        traits = (*traits, "read differently")
    return Findings("", traits)


def convert(encoded: bytes, channels: int) -> bytes:
    """Re-encodes an image as 8-bit PNG, upright, grey (1 channel) or RGB (3); alpha is dropped.

    Args:
        encoded: bytes of a file in which `inspect` finds no error.
        channels: of the dataset.
    """
    image, _ = _load(encoded)
    pixels = upright(to_pixels(image, channels), orientation(image))
    target = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(target, "PNG")
    return target.getvalue()


def is_grey(image: Image.Image) -> bool:
    """Returns whether an opened image has no colours; its pixels are not decoded."""
    return image.mode in _GREY or image.mode.startswith("I;16")


def _load(encoded: bytes) -> tuple[Image.Image, bool]:
    """Reads an image with Pillow; returns also whether it has damage that Pillow passes over.

    libtiff speaks of it on the process's stderr, without the file's name.
    """
    image = Image.open(io.BytesIO(encoded))
    if image.format != "TIFF":
        image.load()
        return image, is_damaged(encoded)
    with tqdm.tqdm.get_lock(), tempfile.TemporaryFile() as spoken:  # no bar writes meanwhile
        stderr = os.dup(2)
        os.dup2(spoken.fileno(), 2)
        try:
            image.load()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        return image, os.fstat(spoken.fileno()).st_size > 0


def _traits(image: Image.Image, encoded: bytes, channels: int) -> tuple[str, ...]:
    """Lists the traits of a loaded image, all but those that its pixels show."""
    found = {
        "grey": channels == 3 and is_grey(image),
        "colour": channels == 1 and not is_grey(image),
        "CMYK": image.mode == "CMYK",
        "alpha": image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        "16-bit": _is_deep(image, encoded),
        "palette": image.mode in ("P", "PA"),
        "EXIF rotation": orientation(image) != UPRIGHT,
    }
    return tuple(trait for trait, is_there in found.items() if is_there)


def _is_deep(image: Image.Image, encoded: bytes) -> bool:
    """Returns whether values have more than 8 bits; Pillow opens such colours as 8-bit ones."""
    if image.format == "PNG":
        return encoded[24] > 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _is_same(decoded: np.ndarray, pixels: np.ndarray, image_format: str | None) -> bool:
    """Compares pixels; versions of libjpeg may round those of JPEG files in other ways."""
    if decoded.shape != pixels.shape or np.array_equal(decoded, pixels):
        return decoded.shape == pixels.shape
    return image_format in ("JPEG", "MPO") and np.abs(decoded - pixels.astype(int)).mean() < 1


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
