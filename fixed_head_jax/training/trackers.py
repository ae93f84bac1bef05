"""Where the metrics of a run go beside its own files: TensorBoard, Weights & Biases, MLflow.

A tracker goes on with the same run after a resume: `trackers.json` in the workdir keeps its name.
"""

import json
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tensorboardX import SummaryWriter

from fixed_head_jax.data.decoding import decode
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.storage.files import write_json

IDS = "trackers.json"
PROJECT = "fixed_head_jax"
_LONGEST = 500  # characters of a value of MLflow's


@runtime_checkable
class Tracker(Protocol):
    """What a run tells a tracker."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes metrics by name, finite ones alone, at a step."""

    def add_page(self, step: int, page: Path, pictures: Mapping[str, bytes]) -> None:
        """Takes a page of HTML about the run, and the PNG files in it by their captions."""

    def close(self) -> None:
        """Ends: all that was written is kept."""


class TensorBoard:
    """Event files in `workdir/tensorboard`, without TensorFlow."""

    def __init__(self, workdir: Path, record: Mapping[str, Any], resume_step: int):
        del record
        # TensorBoard drops what an earlier process logged at or after purge_step.
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def add_page(self, step: int, page: Path, pictures: Mapping[str, bytes]) -> None:
        for caption, encoded in pictures.items():  # it shows no pages
            self._events.add_image(f"{page.stem}/{caption}", decode(encoded, 3), step, None, "HWC")

    def close(self) -> None:
        self._events.close()


class WeightsAndBiases:
    """A run of Weights & Biases; WANDB_PROJECT, WANDB_MODE and the like are heeded."""

    def __init__(self, workdir: Path, record: Mapping[str, Any], resume_step: int):
        del resume_step  # steps that it has already are left out by itself
        self._wandb = _load_wandb()
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=_id(workdir, "wandb"),
            resume="allow", name=workdir.name, dir=str(workdir), config=dict(record),
        )  # fmt: skip

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def add_page(self, step: int, page: Path, pictures: Mapping[str, bytes]) -> None:
        del pictures  # the page shows them
        self._run.log({page.stem: self._wandb.Html(str(page))}, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI or in `mlflow.db` and a folder in the workdir."""

    def __init__(self, workdir: Path, record: Mapping[str, Any], resume_step: int):
        del resume_step
        mlflow, files = _load_mlflow(), None
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(workdir / 'mlflow.db').resolve()}")
            files = (workdir / "mlflow_files").resolve().as_uri()
        self._client = mlflow.MlflowClient()
        self._id = _read_ids(workdir).get("mlflow")
        if self._id is None:
            found = self._client.get_experiment_by_name(PROJECT)
            place = found.experiment_id if found else self._client.create_experiment(PROJECT, files)
            self._id = self._client.create_run(place, run_name=workdir.name).info.run_id
            _keep_id(workdir, "mlflow", self._id)
            for key, value in record.items():
                self._client.log_param(self._id, key.replace(" ", "_"), str(value)[:_LONGEST])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._client.log_metric(self._id, key, value, step=step)

    def add_page(self, step: int, page: Path, pictures: Mapping[str, bytes]) -> None:
        del step, pictures  # a newer page takes the place of an older one; it shows them
        self._client.log_artifact(self._id, str(page))

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[..., Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check(names: Sequence[str]) -> None:
    """Raises ValueError on an unknown tracker, or one that is not installed."""
    for name in names:
        check_choice("tracker", name, TRACKERS)
        {"wandb": _load_wandb, "mlflow": _load_mlflow}.get(name, lambda: None)()


def open_trackers(
    names: Sequence[str], workdir: Path, record: Mapping[str, Any], resume_step: int
) -> list[Tracker]:
    """Opens trackers by their names of `TRACKERS`.

    Args:
        names: see above.
        workdir: of the run.
        record: its config, flat, and what data it is for.
        resume_step: the step that it goes on from; 0 at its start.
    """
    return [TRACKERS[name](workdir, record, resume_step) for name in names]


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values that trackers can draw."""
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _id(workdir, tracker):
    """Returns the name of a run for a tracker, the same after a resume."""
    known = _read_ids(workdir).get(tracker)
    return known or _keep_id(workdir, tracker, uuid.uuid4().hex[:12])


def _read_ids(workdir):
    path = workdir / IDS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _keep_id(workdir, tracker, name):
    write_json(workdir / IDS, {**_read_ids(workdir), tracker: name})
    return name


def _load_wandb():
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "tracker 'wandb' is not installed: pip install 'fixed_head_jax[wandb]'"
        ) from error
    return wandb


def _load_mlflow():
    try:
        import mlflow
    except ImportError as error:
        raise ValueError(
            "tracker 'mlflow' is not installed: pip install 'fixed_head_jax[mlflow]'"
        ) from error
    return mlflow
