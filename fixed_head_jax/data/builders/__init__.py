"""Datasets that TFDS lacks, or splits otherwise, by dataset name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import (
    caltech256,
    digits,
    fgvc_aircraft,
    imagenet_lt,
    imagenet_subset,
    inaturalist_2019,
    stanford_cars,
)
from fixed_head_jax.data.builders.definition import Definition

# Name -> function of the folder with the official archives, which only `digits` does without.
DEFINITIONS: dict[str, Callable[[Path | None], Definition]] = {
    "digits": digits.digits,
    "fgvc_aircraft": fgvc_aircraft.fgvc_aircraft,
    "caltech256_30": caltech256.caltech256_30,
    "caltech256_30_clutter": partial(caltech256.caltech256_30, with_clutter=True),
    "imagenet_50": partial(imagenet_subset.imagenet_subset, 50),
    "imagenet_100": partial(imagenet_subset.imagenet_subset, 100),
    "imagenet_200": partial(imagenet_subset.imagenet_subset, 200),
    "imagenet_lt": imagenet_lt.imagenet_lt,
    "inaturalist_2019": inaturalist_2019.inaturalist_2019,
    "stanford_cars": stanford_cars.stanford_cars,
}
