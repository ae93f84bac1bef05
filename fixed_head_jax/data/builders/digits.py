"""The UCI optical digits that ship inside scikit-learn: a real dataset with nothing to download."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fixed_head_jax.data.builders.definition import Definition, Example


def digits(manual_dir: Path | None = None) -> Definition:
    """Defines `digits`: 1,797 handwritten digits, 8x8 grey, 10 classes.

    Pixel values 0 ... 16 are stored as uint8 `round(value * 255 / 16)`. The split has no
    randomness: within each class, in file order, every fifth image is test. That gives 1,442
    training and 355 test images, in file order.

    Args:
        manual_dir: not read; the images are in scikit-learn.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
        Learning Repository, 1998 (its test part), as `sklearn.datasets.load_digits` returns it.
    """
    return Definition(
        class_names=tuple(map(str, range(10))),
        splits={"train": partial(_examples, False), "test": partial(_examples, True)},
        counts={"train": 1442, "test": 355},
        description="Handwritten digits, 8x8 grey (UCI optical digits, from scikit-learn).",
        homepage="https://doi.org/10.24432/C50P49",
        channels=1,
        image_shape=(8, 8, 1),
        shuffled=False,
    )


def _examples(of_test: bool) -> Iterator[Example]:
    from sklearn import datasets  # a second to import, and only this needs it

    data = datasets.load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)[..., None]
    labels = data.target
    position_in_class = np.zeros(len(labels), int)
    for label in range(10):
        position_in_class[labels == label] = np.arange((labels == label).sum())
    for index in np.flatnonzero((position_in_class % 5 == 4) == of_test).tolist():
        encoded = cv2.imencode(".png", images[index])[1].tobytes()
        yield Example(str(index), encoded, int(labels[index]))
