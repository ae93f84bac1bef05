"""Trackers take a run's config and metrics, and go on with the same run after a resume."""

import json

import pytest

from fixed_head_jax.training import trackers
from fixed_head_jax.training.writer import Writer

RECORD = {"model.head": "identity", "optim.milestones": (1, 2), "train data": "10 images"}


def write(workdir, name, steps, resume_step=0):
    workdir.mkdir(exist_ok=True)
    opened = trackers.open_trackers((name,), workdir, RECORD, resume_step)
    with Writer(workdir, 4, resume_step, trackers=opened) as writer:
        for step in steps:
            writer.write(step, {"train/loss": 1.0 / step, "eval/bad": float("nan")})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the database library below MLflow
def test_mlflow_keeps_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("sqlalchemy", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path / "run", "mlflow", (1, 2))
    write(tmp_path / "run", "mlflow", (3, 4), resume_step=2)
    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name(trackers.PROJECT).experiment_id
    (run,) = client.search_runs([place])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(s, 1.0 / s) for s in (1, 2, 3, 4)]
    assert run.data.params["model.head"] == "identity"
    assert run.data.params["train_data"] == "10 images"
    assert "eval/bad" not in run.data.metrics


@pytest.mark.slow
def test_wandb_keeps_one_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps, resume_step in (((1, 2), 0), ((3, 4), 2)):
        write(tmp_path / "run", "wandb", steps, resume_step)
    name = json.loads((tmp_path / "run" / trackers.IDS).read_text())["wandb"]
    offline = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(offline) == 2 and all(folder.name.endswith(name) for folder in offline)
    content = (offline[0] / f"run-{name}.wandb").read_bytes()
    assert b"identity" in content and b"train/loss" in content


def test_unknown_trackers_are_refused():
    with pytest.raises(ValueError, match="unknown tracker 'comet'; known: tensorboard, wandb"):
        trackers.check(("comet",))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_says_how_to(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ValueError, match=rf"pip install 'fixed_head_jax\[{name}\]'"):
        trackers.check((name,))
