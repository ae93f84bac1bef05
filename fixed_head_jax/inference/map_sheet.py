"""Sheets of class maps: photographs, and where the network sees which class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fixed_head_jax.display.class_maps import overlay, scale_maps
from fixed_head_jax.display.pictures import contact_sheet
from fixed_head_jax.inference.maps import class_maps
from fixed_head_jax.inference.predictor import Predictor
from fixed_head_jax.settings.lookup import closest


def map_sheet(
    predictor: Predictor,
    images: Sequence[Any],
    *,
    classes: Sequence[str] = (),
    top_k: int = 3,
    sizes: Sequence[int] = (),
    is_joint: bool = True,
    cell: int = 224,
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
    pictures, captions = [], []
    for image in images:
        for size in sizes or predictor.preprocessing.image_shape[:1]:
            seen = predictor.at_size(size) if sizes else predictor
            pixels = seen.fit(image)
            predictions = seen.outputs(pixels[None])
            order = np.argsort(-predictions.probabilities[0], kind="stable")
            shown = chosen or [*order[:top_k], order[-1]]
            maps = class_maps(
                seen.model, seen.variables, jnp.asarray(predictions.feature_map), np.asarray(shown)
            )
            maps = scale_maps(np.asarray(maps[0]), is_joint)
            pictures += [pixels, *(overlay(pixels, maps[..., i], cell) for i in range(len(shown)))]
            captions += [
                f"{Path(image).name if isinstance(image, str | Path) else 'image'}, {size} px",
                *(f"{seen.class_names[k]} {predictions.probabilities[0, k]:.1%}" for k in shown),
            ]
    columns = len(chosen) + 1 if chosen else min(top_k, len(predictor.class_names)) + 2
    heads = ["seen", *(classes or [f"top {i + 1}" for i in range(columns - 2)] + ["least"])]
    return contact_sheet(pictures, columns, cell, captions, heads)


def _number(predictor, name):
    if name not in predictor.class_names:
        hint = closest(name, predictor.class_names)
        raise ValueError(f"--classes has {name!r}, which is no class of the run{hint}")
    return predictor.class_names.index(name)
