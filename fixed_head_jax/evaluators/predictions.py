"""Predictions of finished runs on disk, and ensembles: the mean of their class probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fixed_head_jax.evaluators.classification import classification_metrics, classification_sums
from fixed_head_jax.storage.files import replacing

_CHUNK = 4096  # examples scored at once


_SHOWN = 4  # files that an error names


PREDICTIONS_FILE = "predictions.npz"  # of a workdir: its evaluation split after the last step


class PredictionsError(ValueError):
    """Predictions of a run that are not there, damaged, or of other examples."""


def write_predictions(path: str | Path, predictions: Mapping[str, Any]) -> None:
    """Writes a file of predictions, whole or not at all.

    Args:
        path: the .npz file.
        predictions: "split", text that says what the examples are; "label" [N]; and by the name of
            the model ("eval", "eval_ema") probabilities [N, K].
    """
    with replacing(Path(path)) as partial, open(partial, "wb") as file:
        np.savez(file, **predictions)


def read_predictions(run: str | Path) -> dict[str, np.ndarray]:
    """Reads predictions, "split" included: a file, or that which training left in a workdir.

    Raises:
        PredictionsError: if there are none, or they are damaged.
    """
    path = Path(run) / PREDICTIONS_FILE if Path(run).is_dir() else Path(run)
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise PredictionsError(f"{str(run)!r} is neither the workdir of a run nor an .npz file")
    if not path.exists():
        raise PredictionsError(f"{str(run)!r} holds no predictions; {_advice(path.parent)}")
    try:
        with open(path, "rb") as file, np.load(file) as values:
            return dict(values)
    except Exception as error:  # zipfile, zlib and numpy raise different types
        raise PredictionsError(f"{path} is damaged ({type(error).__name__}); remove it") from error


def _advice(folder):
    patterns = ("evaluation_*.npz", f"*/{PREDICTIONS_FILE}", f"*/*/{PREDICTIONS_FILE}")
    found = [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]
    if found:
        return f"those in it are named as {', '.join(found[:_SHOWN])}" + " ..." * (
            len(found) > _SHOWN
        )
    return "give its command again with --config.save_predictions=True, also where it has finished"


def average(runs: Sequence[str | Path]) -> dict[str, np.ndarray]:
    """Returns the predictions of an ensemble: the mean of the class probabilities of its runs.

    Args:
        runs: workdirs or files, of the same examples.

    Returns:
        As `read_predictions`; "eval_ema" only where all runs kept averages of their parameters.

    Raises:
        ValueError: if there are no runs.
        PredictionsError: if one has no predictions, or those of other examples.
    """
    if not runs:
        raise ValueError("runs must name at least one run, got none")
    total = read_predictions(runs[0])
    split, labels = total.pop("split"), total.pop("label")
    for run in runs[1:]:
        predictions = read_predictions(run)
        if predictions["split"] != split or not np.array_equal(predictions["label"], labels):
            raise PredictionsError(
                f"{str(run)!r} predicts {predictions['split']}, but {str(runs[0])!r} predicts "
                f"{split}; an ensemble needs the same examples in the same order"
            )
        total = {key: value for key, value in total.items() if key in predictions}
        for key in total:
            if predictions[key].shape != total[key].shape:
                raise PredictionsError(f"{str(run)!r} predicts another number of classes")
            total[key] = total[key] + predictions[key]
    mean = {key: value / len(runs) for key, value in total.items()}
    return {"split": split, "label": labels, **mean}


def measure(predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Measures predictions.

    Args:
        predictions: of `read_predictions` or `average`.

    Returns:
        "eval/accuracy", "eval/top5_accuracy" (percent), "eval/loss" and "eval/examples", and the
        same of "eval_ema" where it is there.
    """
    return {
        f"{key}/{name}": value
        for key, probabilities in predictions.items()
        if key not in ("split", "label")
        for name, value in _score(probabilities, predictions["label"]).items()
    }


def _score(probabilities, labels):
    """Returns the metrics of classification; log-probabilities are logits."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    sums: dict[str, float] = {}
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        mask = jnp.ones(len(labels[part]))
        here = classification_sums(jnp.asarray(logits[part]), jnp.asarray(labels[part]), mask)
        sums = {key: sums.get(key, 0.0) + float(value) for key, value in here.items()}
    return classification_metrics(sums)
