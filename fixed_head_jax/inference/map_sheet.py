"""Sheets of class maps: photographs, and where the network sees which class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fixed_head_jax.display.class_maps import overlay, scale_maps
from fixed_head_jax.display.pictures import contact_sheet
from fixed_head_jax.inference.maps import class_maps
from fixed_head_jax.inference.predictor import Predictions, Predictor
from fixed_head_jax.settings.lookup import closest

CELL = 224  # side of a picture in pixels


def map_sheet(
    predictor: Predictor,
    images: Sequence[Any],
    *,
    classes: Sequence[str] = (),
    top_k: int = 3,
    sizes: Sequence[int] = (),
    is_joint: bool = True,
    cell: int = CELL,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws of each photograph, at each size, itself and maps over it, most probable class first.

    Args:
        predictor: of `load`.
        images: as its call takes them.
        classes: names of those whose maps are drawn; empty: the `top_k` most probable ones and, to
            compare, the least probable one.
        top_k: see `classes`; at least 1.
        sizes: sides in pixels that photographs are seen at; empty: the size of training.
        is_joint: whether the maps of a photograph share one scale, see `scale_maps`.
        cell: side of a picture on the sheet, in pixels.

    Raises:
        ValueError: if the model has no class maps, or a class or a size is none of its.
    """
    chosen = [_number(predictor, name) for name in classes]
    rows = []
    for image in images:
        name = Path(image).name if isinstance(image, str | Path) else "image"
        for size in sizes or predictor.preprocessing.image_shape[:1]:
            seen = predictor.at_size(size) if sizes else predictor
            pixels = seen.fit(image)
            predictions = seen.outputs(pixels[None])
            shown = chosen or shown_classes(predictions.probabilities[0], top_k)
            rows.append(
                _row(seen, f"{name}, {size} px", pixels, predictions, shown, is_joint, cell)
            )
    return _sheet(rows, classes, cell)


def map_picture(
    predictor: Predictor, name: str, pixels: np.ndarray, predictions: Predictions, top_k: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws one photograph that was classified already, see `map_sheet`.

    Args:
        predictor: that did it.
        name: of the photograph.
        pixels: as the model took them.
        predictions: of it, a batch of one.
        top_k: classes to show, and the least probable one.
    """
    shown = shown_classes(predictions.probabilities[0], top_k)
    return _sheet([_row(predictor, name, pixels, predictions, shown, True, CELL)], (), CELL)


def shown_classes(probabilities: np.ndarray, top_k: int) -> list[int]:
    """Returns the `top_k` most probable classes and the least probable one."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    return [*order[:top_k], order[-1]]


def _row(predictor, name, pixels, predictions, shown, is_joint, cell):
    """Returns the pictures of a row and their captions."""
    found = class_maps(
        predictor.model, predictor.variables, predictions.feature_map, np.asarray(shown)
    )
    maps, shares = scale_maps(np.asarray(found[0]), is_joint), predictions.probabilities[0]
    drawn = [overlay(pixels, maps[..., i], cell) for i in range(len(shown))]
    captions = [f"{predictor.class_names[k]} {shares[k]:.1%}" for k in shown]
    return [pixels, *drawn], [name, *captions]


def _sheet(rows, classes, cell):
    columns = len(rows[0][0])
    heads = ["seen", *(classes or [*(f"top {i + 1}" for i in range(columns - 2)), "least"])]
    pictures = [picture for row, _ in rows for picture in row]
    captions = [caption for _, row in rows for caption in row]
    return contact_sheet(pictures, columns, cell, captions, heads)


def _number(predictor, name):
    if name not in predictor.class_names:
        hint = closest(name, predictor.class_names)
        raise ValueError(f"--classes has {name!r}, which is no class of the run{hint}")
    return predictor.class_names.index(name)
