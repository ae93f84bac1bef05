"""Pictures of images for people to look at: sheets of many, and files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GUTTER = 4  # white pixels around every cell
_CAPTION = 16  # height of a line of text below an image
_LINE = 20  # and beside a strip
_SHARP = 4  # from this enlargement on pixels stay squares: interpolated, few pixels are a blur


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    cell: int,
    captions: Sequence[str] | None = None,
    heads: Sequence[str] = (),
) -> UInt8[np.ndarray, "h w 3"]:
    """Lays images out in rows on white, each resized to a square cell.

    Args:
        images: uint8 [h, w, 1] or [h, w, 3], of any sizes, row by row.
        columns: images in a row, >= 1.
        cell: side of a cell in pixels, >= 1.
        captions: a line of text under every image, cut off at the width of its cell.
        heads: a line of text above every column.

    Raises:
        ValueError: if there are no images, or `columns`, `cell` or the texts do not fit.
    """
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    for name, value in (("columns", columns), ("cell", cell)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must be one for each of {len(images)}, got {len(captions)}")
    if len(heads) not in (0, columns):
        raise ValueError(f"heads must be one for each of {columns} columns, got {len(heads)}")
    text, top_margin = _CAPTION if captions else 0, _CAPTION if heads else 0
    rows = -(-len(images) // columns)
    down, across = cell + text + GUTTER, cell + GUTTER
    size = top_margin + rows * down + GUTTER, columns * across + GUTTER
    sheet = np.full((*size, 3), 255, np.uint8)
    for column, head in enumerate(heads):
        left = GUTTER + column * across
        _write(sheet[GUTTER : GUTTER + _CAPTION, left : left + cell], head)
    for index, image in enumerate(images):
        top = top_margin + GUTTER + index // columns * down
        left = GUTTER + index % columns * across
        sheet[top : top + cell, left : left + cell] = _resize(image, cell)
        if captions:
            _write(sheet[top + cell : top + cell + text, left : left + cell], captions[index])
    return sheet


def strips(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[str]],
    cell: int,
    width: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Lays strips of images out below one another, each with its caption at the left.

    Args:
        rows: images of each strip as in `contact_sheet`, equally many in all.
        captions: lines of text of each strip, cut off at `width`.
        cell: side of an image on the sheet in pixels, >= 1; it has room for a line every 20.
        width: of the captions in pixels, >= 1.

    Raises:
        ValueError: if there are no images, or the strips or the captions do not fit.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or len(captions) != len(rows):
        raise ValueError(
            f"rows must be equally long and have a caption each, got lengths {sorted(lengths)} and "
            f"{len(captions)} captions for {len(rows)} rows"
        )
    columns = max(lengths, default=1)
    sheet = contact_sheet([image for row in rows for image in row], columns, cell)
    margin = np.full((len(sheet), GUTTER + width, 3), 255, np.uint8)
    for index, lines in enumerate(captions):
        top = GUTTER + index * (cell + GUTTER)
        for place, line in enumerate(lines[: cell // _LINE]):
            _write(margin[top + place * _LINE :, GUTTER:][:_LINE], line)
    return np.hstack([margin, sheet])


def resize_square(image: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "s s 3"]:
    """Resizes an image to a square, whatever its aspect; one channel becomes three of grey.

    Enlarged by 4 or more, pixels stay squares; else Pillow's bicubic resizing, antialiased.

    Args:
        image: of one channel or three.
        side: of the square in pixels, >= 1.
    """
    method = Image.Resampling.BICUBIC
    if _SHARP * max(image.shape[:2]) <= side:
        method = Image.Resampling.NEAREST
    image = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return np.asarray(Image.fromarray(image).resize((side, side), method))


def write_png(path: str | Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Writes an image of one channel or three (red, green, blue) to a PNG file.

    Raises:
        ValueError: as `check_png_path` does.
        OSError: if the file cannot be written.
    """
    check_png_path(path)
    Path(path).write_bytes(encode_png(image))


def check_png_path(path: str | Path) -> None:
    """Raises ValueError unless a picture can have this path; to be called before it is drawn."""
    if Path(path).suffix != ".png":
        raise ValueError(f"the picture's name must end in .png, got {str(path)!r}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"the folder of the picture {str(path)!r} does not exist; create it")


def encode_png(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Returns the PNG file of an image of one channel or three (red, green, blue)."""
    if image.shape[-1] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()


def _resize(image, cell):
    """Returns a square of side `cell`; small images keep their pixels' sharp edges."""
    shrinks = max(image.shape[:2]) > cell
    method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(image, (cell, cell), interpolation=method).reshape(cell, cell, -1)


def _write(strip, caption):
    """Writes black text into a strip of a sheet, in place; what is too wide is cut off."""
    height, width = strip.shape[:2]
    line = Image.new("L", (width, height), 255)
    font = ImageFont.load_default(round(0.75 * height))
    ImageDraw.Draw(line).text((1, height / 2), caption, 0, font, anchor="lm")
    strip[...] = np.asarray(line)[..., None]
