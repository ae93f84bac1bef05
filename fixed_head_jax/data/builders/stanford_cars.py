"""Stanford Cars with the split that tuning needs."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from scipy import io

from fixed_head_jax.data.builders import archives
from fixed_head_jax.data.builders.definition import Definition, Example

_HOMEPAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
_ANNOTATIONS = "cars_annos.mat"
_VALIDATION_PER_CLASS = 11


def stanford_cars(manual_dir: Path | None) -> Definition:
    """Defines `stanford_cars`: 196 models, 5,988 / 2,156 / 8,041 images.

    `test` is the official one. `validation` is the first 11 official training images of each
    class, in the order of the annotations, and `train` the other ones: `train+validation` is the
    official training set of 8,144.

    Args:
        manual_dir: holds `cars_annos.mat`, and `car_ims.tgz` or the folder extracted from it.

    Raises:
        ValueError: if one of them is missing or damaged.

    Source: J. Krause et al., 3D Object Representations for Fine-Grained Categorization, 3dRR 2013;
        the split is what the release of J. Plested et al., arXiv 2107.08585, sets out to make (as
        shipped it trains on 10 images of a class and tunes on test images).
    """
    annotations = archives.find(manual_dir, (_ANNOTATIONS,), _HOMEPAGE)
    path = archives.find(manual_dir, ("car_ims.tgz", "car_ims"), _HOMEPAGE)
    class_names, splits = _read_annotations(annotations)
    return Definition(
        class_names=class_names,
        splits={split: partial(_examples, path, labels) for split, labels in splits.items()},
        counts={"train": 5988, "validation": 2156, "test": 8041},
        description="Cars of 196 makes, models and years, with a split to tune on.",
        homepage=_HOMEPAGE,
    )


def _read_annotations(path: Path) -> tuple[tuple[str, ...], dict[str, dict[str, int]]]:
    """Returns the names of the classes, and of each split the label of every image."""
    try:
        content = io.loadmat(path, squeeze_me=True)
        class_names = tuple(str(name) for name in np.atleast_1d(content["class_names"]))
        found = np.atleast_1d(content["annotations"])[["relative_im_path", "class", "test"]]
        rows = [(str(name), int(number) - 1, bool(test)) for name, number, test in found]
    except Exception as error:  # scipy raises many kinds on damaged files
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(path)!r} is not the {_ANNOTATIONS} of {_HOMEPAGE} ({reason})"
        ) from error
    splits: dict[str, dict[str, int]] = {"train": {}, "validation": {}, "test": {}}
    seen = Counter[int]()
    for name, label, is_test in rows:
        seen[label] += not is_test
        of_training = "validation" if seen[label] <= _VALIDATION_PER_CLASS else "train"
        splits["test" if is_test else of_training][name] = label
    return class_names, splits


def _examples(path: Path, labels: Mapping[str, int]) -> Iterator[Example]:
    for name, encoded in archives.pick(archives.members(path), labels, _ANNOTATIONS):
        yield Example(name, encoded, labels[name])
