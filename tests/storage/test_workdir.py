"""The folder of a run: whose it is, what may differ on going on with it, and where it may lie."""

import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from fixed_head_jax.configs import common, digits
from fixed_head_jax.storage.checkpoint import Checkpoints, UnsavedCheckpointError
from fixed_head_jax.storage.workdir import claim, local_folder

RECORD = {"optim.lr": 0.1, "data_dir": "", "train data": "10 images"}


def stored(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(params=["checkpoints/7/state", "row/seed0/checkpoints/7/x", "result.json"])
def worked(request, tmp_path):
    """A folder with a run in it that took work."""
    folder = tmp_path / "run"
    claim(folder, RECORD)
    path = folder / request.param
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return folder


def test_the_run_of_another_config_is_refused_with_the_differing_keys(worked):
    claim(worked, RECORD)
    theirs = r"optim.lr \(0.1 there, 0.2 here\); train data \('10 images' there, '9 images' here\)"
    with pytest.raises(ValueError, match=theirs):
        claim(worked, RECORD | {"optim.lr": 0.2, "train data": "9 images"})
    with pytest.raises(ValueError, match=r"0.2 here; a reason\)"):
        claim(worked, RECORD | {"optim.lr": 0.2}, why_not={"optim.lr": "a reason", "a": "b"})
    assert stored(worked) == RECORD


def test_what_may_differ_is_recorded_as_it_is_now(worked):
    moved = RECORD | {"data_dir": "elsewhere"}
    claim(worked, moved, ("data_dir",), is_kept=True)
    assert stored(worked) == RECORD
    claim(worked, moved, ("data_dir",))
    assert stored(worked) == moved


def test_the_record_of_an_older_version_lacks_keys(worked):
    new = RECORD | {"data.channels": 0}
    with pytest.raises(ValueError, match=r"data.channels \(None there, 0 here\)"):
        claim(worked, new)
    with pytest.raises(ValueError, match=r"data.channels \(0 there, 3 here\)"):
        claim(worked, new | {"data.channels": 3}, assumed=new)
    claim(worked, new, assumed=new | {"optim.lr": 0.3})  # not for a key that the record has
    assert stored(worked) == new


def test_a_folder_without_a_checkpoint_is_free(tmp_path):
    claim(tmp_path / "run", RECORD)
    (tmp_path / "run" / "metrics.jsonl").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    claim(tmp_path / "run", RECORD | {"optim.lr": 0.01})
    assert stored(tmp_path / "run")["optim.lr"] == 0.01


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written: File exists"):
        claim(tmp_path / "file", RECORD)


@pytest.mark.parametrize("name", ["a[1]", "a]b/run", "a\\b", "gs:/bucket", "gs://bucket/run"])
def test_where_checkpoints_could_not_be_read_back_is_refused(tmp_path, name):
    folder = name if "://" in name else tmp_path / name
    with pytest.raises(ValueError, match="workdir .*(choose another|name one)$"):
        local_folder(folder)
    with pytest.raises(ValueError, match="workdir"):
        claim(folder, RECORD)
    assert not (tmp_path / name).exists()


def test_the_home_folder_goes_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("~/run") == tmp_path / "run"
    paths = {"data_dir": "~/data", "init_from": "~/run", "superclass_dir": "~", "data.name": "~"}
    config = common.override(digits.get_config("smoke"), paths)
    assert config.data_dir == os.path.join(tmp_path, "data")
    assert (config.init_from, config.superclass_dir) == (str(tmp_path / "run"), str(tmp_path))
    assert config.data.name == "~"


@pytest.mark.parametrize(
    ("schedule", "length", "evaluations"),
    [("constant", True, True), ("step", True, True), ("exponential", True, True),
     ("cosine", False, True), ("linear", False, True), ("plateau", False, False)],
)  # fmt: skip
def test_a_run_may_differ_in_what_it_does_not_learn_from(schedule, length, evaluations):
    config = common.override(common.get_config(), {"optim.schedule": schedule})
    keys = common.may_differ(config)
    assert ("total_epochs" in keys, "total_steps" in keys) == (length, length)
    assert ("eval_batch_size" in keys, "eval_every_epochs" in keys) == (evaluations, evaluations)
    assert "log_every_steps" in keys and "optim.lr" not in keys
    assert set(keys) <= set(common.KEYS)
    if not length:
        assert re.search(f"optim.schedule='{schedule}' ", common.why_not(config)["total_epochs"])


def test_a_checkpoint_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    checkpoints = Checkpoints(tmp_path, "eval/accuracy")
    full = SimpleNamespace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: full)
    with pytest.raises(UnsavedCheckpointError, match="checkpoint 3 needs 4 MiB .* 1 MiB are free"):
        checkpoints.save(3, {"kernel": np.zeros(2**20, np.float32)}, {}, None)
