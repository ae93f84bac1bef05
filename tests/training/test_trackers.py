"""Trackers take a run's config and metrics, and go on with the same run after a resume."""

import json

import numpy as np
import pytest

from fixed_head_jax.data.decoding import decode
from fixed_head_jax.display.pictures import encode_png
from fixed_head_jax.reports.page import picture, pictures_of
from fixed_head_jax.training import trackers
from fixed_head_jax.training.writer import Writer
from tests.loops import read_events

RECORD = {"model.head": "identity", "optim.milestones": (1, 2), "train data": "10 images"}


def write(workdir, name, steps, resume_step=0):
    workdir.mkdir(exist_ok=True)
    opened = trackers.open_trackers((name,), workdir, RECORD, resume_step)
    with Writer(workdir, 4, resume_step, trackers=opened) as writer:
        for step in steps:
            writer.write(step, {"train/loss": 1.0 / step, "eval/bad": float("nan")})


PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def add_page(workdir, name):
    """Gives a tracker a page, as a report is given to it: when the run has ended."""
    page = workdir / "report.html"
    page.write_text(picture(encode_png(PIXELS), 'a "cat" & more'), encoding="utf-8")
    (tracker,) = trackers.open_trackers((name,), workdir, RECORD, 4)
    tracker.add_page(4, page, pictures_of(page.read_text(encoding="utf-8")))
    tracker.close()


def test_tensorboard_takes_the_pictures_of_a_report(tmp_path):
    write(tmp_path / "run", "tensorboard", (1, 2, 3, 4))
    add_page(tmp_path / "run", "tensorboard")
    events = read_events(tmp_path / "run")
    (image,) = (v for event in events for v in event.summary.value if v.HasField("image"))
    assert image.tag.startswith("report/a_") and "cat" in image.tag
    np.testing.assert_array_equal(decode(image.image.encoded_image_string, 3), PIXELS)
    starts = [e.step for e in events if e.HasField("session_log") or e.file_version]
    assert max(starts) <= 5  # nothing up to the last step is purged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the database library below MLflow
def test_mlflow_keeps_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("sqlalchemy", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path / "run", "mlflow", (1, 2))
    write(tmp_path / "run", "mlflow", (3, 4), resume_step=2)
    add_page(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name(trackers.PROJECT).experiment_id
    (run,) = client.search_runs([place])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(s, 1.0 / s) for s in (1, 2, 3, 4)]
    assert run.data.params["model.head"] == "identity"
    assert run.data.params["train_data"] == "10 images"
    assert "eval/bad" not in run.data.metrics
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


@pytest.mark.slow
def test_wandb_keeps_one_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps, resume_step in (((1, 2), 0), ((3, 4), 2)):
        write(tmp_path / "run", "wandb", steps, resume_step)
    name = json.loads((tmp_path / "run" / trackers.IDS).read_text())["wandb"]
    add_page(tmp_path / "run", "wandb")
    offline = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(offline) == 3 and all(name in folder.name for folder in offline)
    content = (offline[0] / f"run-{name}.wandb").read_bytes()
    assert b"identity" in content and b"train/loss" in content
    assert list((offline[2] / "files").rglob("report*.html"))


def test_unknown_trackers_are_refused():
    with pytest.raises(ValueError, match="unknown tracker 'comet'; known: tensorboard, wandb"):
        trackers.check(("comet",))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_says_how_to(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ValueError, match=rf"pip install 'fixed_head_jax\[{name}\]'"):
        trackers.check((name,))
