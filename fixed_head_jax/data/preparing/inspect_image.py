"""What an encoded image is: whether it can be read, and how it departs from plain pixels."""

import io
from typing import NamedTuple

from PIL import ExifTags, Image, ImageOps

from fixed_head_jax.data.decoding import decode, is_damaged_jpeg

UPRIGHT = 1  # the EXIF orientation of an image that is stored as it is to be seen
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY = ("1", "L", "LA", "La", "I", "F")


class Findings(NamedTuple):
    """What `inspect` found.

    Attributes:
        error: why the image cannot be used, "" if it can.
        traits: how it departs from 8-bit upright pixels of the dataset's channels: "grey",
            "colour", "CMYK", "alpha", "16-bit", "palette", "EXIF rotation"; or "damaged", where
            decoders pass over it in silence. It can be read.
    """

    error: str = ""
    traits: tuple[str, ...] = ()


def inspect(
    encoded: bytes, channels: int = 3, image_shape: tuple[int, int, int] | None = None
) -> Findings:
    """Decodes an image in full and says what is wrong or unusual about it.

    It is decoded twice: Pillow notices a file that is cut off, and `decode` is what will read it
    in training. Safe to call from many threads.

    Args:
        encoded: bytes of the file.
        channels: of the dataset, 1 or 3.
        image_shape: (height, width, channels) that all images have; None where they vary.
    """
    if not encoded:
        return Findings("empty, or cannot be opened")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            traits, is_jpeg = _traits(image, encoded, channels), image.format == "JPEG"
            image.load()
    except Image.UnidentifiedImageError:
        return Findings("not an image that Pillow can read")
    except Exception as error:  # Pillow's decoders raise many types
        reason = " ".join(str(error).split()) or type(error).__name__
        return Findings(f"cut off or damaged ({reason})")
    height, width = image.height, image.width
    if image_shape and (height, width) != image_shape[:2]:
        return Findings(f"{height}x{width} pixels where all are {image_shape[0]}x{image_shape[1]}")
    try:
        decode(encoded, channels)
    except Exception as error:  # OpenCV and we raise different types
        return Findings(f"training cannot decode it ({' '.join(str(error).split())})")
    if is_jpeg and is_damaged_jpeg(encoded):
        traits = (*traits, "damaged")
    return Findings("", traits)


def convert(encoded: bytes, channels: int) -> bytes:
    """Re-encodes an image as 8-bit PNG, upright, grey (1 channel) or RGB (3); alpha is dropped.

    Args:
        encoded: bytes of a file in which `inspect` finds no error.
        channels: of the dataset.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        orientation = _orientation(image)
    pixels = decode(encoded, channels)
    plain = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    plain.getexif()[ExifTags.Base.Orientation] = orientation
    target = io.BytesIO()
    ImageOps.exif_transpose(plain).save(target, "PNG")
    return target.getvalue()


def is_grey(image: Image.Image) -> bool:
    """Returns whether an opened image has no colours; its pixels are not decoded."""
    return image.mode in _GREY or image.mode.startswith("I;16")


def _traits(image: Image.Image, encoded: bytes, channels: int) -> tuple[str, ...]:
    png_depth = encoded[24] if encoded.startswith(_PNG) else 8
    found = {
        "grey": channels == 3 and is_grey(image),
        "colour": channels == 1 and not is_grey(image),
        "CMYK": image.mode == "CMYK",
        "alpha": image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        # Pillow opens 16-bit colours as 8-bit ones; how they are stored is in the tiles.
        "16-bit": png_depth == 16 or image.mode in ("I", "F") or ";16" in str(image.tile),
        "palette": image.mode in ("P", "PA"),
        "EXIF rotation": _orientation(image) != UPRIGHT,
    }
    return tuple(trait for trait, is_there in found.items() if is_there)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # tags that cannot be read turn nothing
        return UPRIGHT
