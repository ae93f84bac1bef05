"""Whether probabilities are as often right as they say."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BINS = 15


class Calibration(NamedTuple):
    """Confidence and accuracy of predictions, by confidence.

    Attributes:
        confidence: mean of the largest probability in each bin, NaN in an empty one.
        accuracy: share of right predictions there.
        counts: predictions there.
        error: expected calibration error, 0 ... 1.
    """

    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    counts: Int[np.ndarray, " bins"]
    error: float


def calibrate(
    probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> Calibration:
    """Bins predictions by their largest probability, in `bins` intervals (low, high].

    error = sum over bins of counts / n |accuracy - confidence|

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.

    Args:
        probabilities: of K classes, each row adds up to 1.
        labels: 0 ... K - 1.
        bins: of equal width over 0 ... 1.
    """
    confidences = probabilities.max(1)
    is_right = probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, confidences, bins) / counts
        accuracy = np.bincount(place, is_right, bins) / counts
    error = np.nansum(counts * np.abs(accuracy - confidence)) / len(labels)
    return Calibration(confidence, accuracy, counts, float(error))
