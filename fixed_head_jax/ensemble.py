"""Predictions of finished runs on disk, and ensembles: the mean of their class probabilities.

    python -m fixed_head_jax.ensemble RUN RUN ...

evaluates the ensemble of runs of one data set, of any backbones, heads and seeds, that were trained
(or evaluated) with `--config.save_predictions=True`.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from fixed_head_jax.evaluators.classification import classification_metrics, classification_sums
from fixed_head_jax.report import markdown

_CHUNK = 4096  # examples scored at once
_FILES = "predictions_*.npz"


class PredictionsError(ValueError):
    """Predictions of a run that are not there, damaged, or of other examples."""


def write_predictions(
    workdir: str | Path, step: int, split: str, predictions: Mapping[str, np.ndarray]
) -> None:
    """Writes `predictions_<step>.npz` in `workdir`, whole or not at all.

    Args:
        workdir: folder of the run.
        step: of the checkpoint.
        split: what the examples are, for people and to tell runs on others apart.
        predictions: "label" [N] and, by the name of the model ("eval", "eval_ema"), probabilities
            [N, K].
    """
    path = Path(workdir) / f"predictions_{step}.npz"
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with open(partial, "wb") as file:
        np.savez(file, split=split, **predictions)
    os.replace(partial, path)


def read_predictions(workdir: str | Path) -> dict[str, np.ndarray]:
    """Reads what `write_predictions` wrote last in `workdir`, by step, "split" included.

    Raises:
        PredictionsError: if there is nothing, or it is damaged.
    """
    files = {int(path.stem.partition("_")[2]): path for path in Path(workdir).glob(_FILES)}
    if not files:
        raise PredictionsError(
            f"{str(workdir)!r} holds no predictions; give its command again with "
            "--mode=evaluate --config.save_predictions=True"
        )
    path = files[max(files)]
    try:
        with open(path, "rb") as file, np.load(file) as values:
            return dict(values)
    except Exception as error:  # zipfile, zlib and numpy raise different types
        raise PredictionsError(f"{path} is damaged ({type(error).__name__}); remove it") from error


def ensemble_metrics(workdirs: Sequence[str | Path]) -> dict[str, float]:
    """Measures the mean of the class probabilities of several runs.

    Args:
        workdirs: folders of the runs.

    Returns:
        "eval/accuracy", "eval/top5_accuracy" (percent), "eval/loss", "eval/examples"; and the same
        of "eval_ema", where all runs kept averages of their parameters.

    Raises:
        ValueError: if there are no runs.
        PredictionsError: if one has no predictions, or those of other examples.
    """
    if not workdirs:
        raise ValueError("workdirs must name at least one run, got none")
    first, total = None, {}
    for workdir in workdirs:
        predictions = read_predictions(workdir)
        split, labels = str(predictions.pop("split")), predictions.pop("label")
        if first is None:
            first, total = (split, labels), predictions
            continue
        if split != first[0] or not np.array_equal(labels, first[1]):
            raise PredictionsError(
                f"{str(workdir)!r} predicts {split}, but {str(workdirs[0])!r} predicts "
                f"{first[0]}; an ensemble needs the same examples in the same order"
            )
        for key in list(total):
            if key not in predictions:
                del total[key]
            elif total[key].shape != predictions[key].shape:
                raise PredictionsError(f"{str(workdir)!r} predicts another number of classes")
            else:
                total[key] = total[key] + predictions[key]
    return {
        f"{key}/{name}": value
        for key, probabilities in total.items()
        for name, value in _score(probabilities / len(workdirs), first[1]).items()
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


def _table(workdirs: Sequence[str]) -> str:
    """Formats accuracy and loss of every run and of their ensemble."""
    rows: list[tuple[str, dict[str, Any]]] = [(run, ensemble_metrics([run])) for run in workdirs]
    rows.append((f"ensemble of {len(workdirs)}", ensemble_metrics(workdirs)))
    names = [name for name in rows[0][1] if name in rows[-1][1]]
    cells = [["run", *names]]
    cells += [[run, *(f"{metrics[name]:.6g}" for name in names)] for run, metrics in rows]
    return markdown(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m fixed_head_jax.ensemble")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="workdir of a finished run")
    options = parser.parse_args(arguments)
    try:
        print(_table(options.runs), end="")
    except ValueError as error:
        sys.exit(f"ensemble: {error}")


if __name__ == "__main__":
    main()
