"""Pictures of images for people to look at: sheets of many, and files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

GUTTER = 4  # white pixels around every cell
_CAPTION = 14  # height of a line of text


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    cell: int,
    captions: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Lays images out in rows on white, each resized to a square cell.

    Args:
        images: uint8 [h, w, 1] or [h, w, 3], of any sizes, row by row.
        columns: images in a row, >= 1.
        cell: side of a cell in pixels, >= 1.
        captions: a line of text (ASCII) under every image, cut off at the width of its cell.

    Raises:
        ValueError: if there are no images, or `columns`, `cell` or the captions do not fit.
    """
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    for name, value in (("columns", columns), ("cell", cell)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must be one for each of {len(images)}, got {len(captions)}")
    text = _CAPTION if captions else 0
    rows = -(-len(images) // columns)
    down, across = cell + text + GUTTER, cell + GUTTER
    sheet = np.full((rows * down + GUTTER, columns * across + GUTTER, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = GUTTER + index // columns * down, GUTTER + index % columns * across
        sheet[top : top + cell, left : left + cell] = _resize(image, cell)
        if captions:
            _write(sheet[top + cell : top + cell + text, left : left + cell], captions[index])
    return sheet


def write_png(path: str | Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Writes an image of one channel or three (red, green, blue) to a PNG file.

    Raises:
        ValueError: if the file's name does not end in .png.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"the picture's name must end in .png, got {str(path)!r}")
    if image.shape[-1] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _resize(image, cell):
    """Returns a square of side `cell`; small images keep their pixels' sharp edges."""
    shrinks = max(image.shape[:2]) > cell
    method = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return cv2.resize(image, (cell, cell), interpolation=method).reshape(cell, cell, -1)


def _write(strip, caption):
    """Writes black text into a strip of a sheet, in place."""
    line = np.full(strip.shape, 255, np.uint8)
    cv2.putText(line, caption, (1, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (0, 0, 0), 1, cv2.LINE_AA)
    strip[...] = line
