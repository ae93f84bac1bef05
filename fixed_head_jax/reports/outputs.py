"""What a model says of the images that it was evaluated on."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from fixed_head_jax.data.sources import Source
from fixed_head_jax.inference import Predictor

MOST = 5000  # images: a report takes no longer than an evaluation of CIFAR-10


class Outputs(NamedTuple):
    """Of N images, in the order of the split.

    Attributes:
        indices: of the images in the split.
        labels: 0 ... K - 1.
        probabilities: of the K classes.
        norms: of the features.
        cosines: of the features with the label's class vector; None where the head has none.
    """

    indices: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    probabilities: Float32[np.ndarray, "n k"]
    norms: Float[np.ndarray, " n"]
    cosines: Float[np.ndarray, " n"] | None


def measure(predictor: Predictor, source: Source, most: int = MOST) -> Outputs:
    """Runs a model over a split, or over `most` images spread evenly over it."""
    indices = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int))
    parts = []
    for start in range(0, len(indices), predictor.batch_size):
        images, here = source.read(indices[start : start + predictor.batch_size])
        predictions = predictor.outputs(images)
        parts.append((here, predictions.probabilities, predictions.features))
    labels, probabilities, features = map(np.concatenate, zip(*parts, strict=True))
    norms = np.linalg.norm(features, axis=1)
    return Outputs(
        indices, labels, probabilities, norms,
        _cosines(predictor, features, norms, labels),
    )  # fmt: skip


def _cosines(predictor, features, norms, labels):
    if predictor.model.head.embeds:
        return None
    vectors = np.asarray(predictor.model.class_vectors(predictor.variables, features.shape[1]))
    lengths = norms * np.linalg.norm(vectors, axis=0)[labels]
    return np.einsum("nd,dn->n", features, vectors[:, labels]) / np.maximum(lengths, 1e-12)
