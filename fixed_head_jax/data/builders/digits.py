"""The UCI optical digits that ship inside scikit-learn: a real dataset with nothing to download."""

import cv2
import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builds `digits`: 1,797 handwritten digits, 8x8 grey, 10 classes.

    Pixel values 0 ... 16 are stored as uint8 `round(value * 255 / 16)`. The split has no
    randomness: within each class, in file order, every fifth image is test. That gives 1,442
    training and 355 test images.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test part), as `sklearn.datasets.load_digits` returns it.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    # Where TFDS looks for checksums of downloads, of which there are none; looking it up needs
    # importlib_resources, which TFDS does not install on every Python.
    code_path = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8 grey (UCI optical digits, from scikit-learn).",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
            # Examples stay in file order: the prepared files depend on nothing but the data.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        digits = datasets.load_digits()
        images = np.round(digits.images * 255 / 16).astype(np.uint8)[..., None]
        labels = digits.target
        position_in_class = np.zeros(len(labels), int)
        for label in range(10):
            position_in_class[labels == label] = np.arange((labels == label).sum())
        is_test = position_in_class % 5 == 4
        return {
            "train": self._generate_examples(images, labels, np.flatnonzero(~is_test)),
            "test": self._generate_examples(images, labels, np.flatnonzero(is_test)),
        }

    def _generate_examples(self, images, labels, members):
        for index in members.tolist():
            encoded = cv2.imencode(".png", images[index])[1].tobytes()
            yield index, {"image": encoded, "label": int(labels[index])}
