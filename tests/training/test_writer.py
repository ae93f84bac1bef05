"""metrics.jsonl, TensorBoard events and the console, interrupted or not."""

import json
import math

import pytest

from fixed_head_jax.training.screen import format_lines
from fixed_head_jax.training.trackers import open_trackers
from fixed_head_jax.training.writer import Writer
from tests.loops import read_events


def log_steps(writer, steps):
    for step in steps:
        writer.write(
            step, {"train/loss": 1 / step, "epoch": step / 10, "timing/images_per_second": 5}
        )


def read_steps(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_one_object_per_line_step_and_epoch_first(tmp_path):
    with Writer(tmp_path / "new" / "run", total_steps=20) as writer:
        log_steps(writer, (10,))
    (line,) = (tmp_path / "new" / "run" / "metrics.jsonl").read_text().splitlines()
    assert line == '{"step": 10, "epoch": 1.0, "train/loss": 0.1}'


def test_lines_are_on_disk_before_close(tmp_path):
    with Writer(tmp_path, total_steps=20) as writer:
        log_steps(writer, (5, 10))
        assert read_steps(tmp_path) == [5, 10]


@pytest.mark.parametrize("unfinished", ["", '{"step": 25, "epo', '{"step": 25}'])
def test_killed_and_resumed_gives_the_same_file(tmp_path, unfinished):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with Writer(whole, total_steps=30) as writer:
        log_steps(writer, range(5, 31, 5))
    with Writer(cut, total_steps=30) as writer:
        log_steps(writer, range(5, 21, 5))
    with (cut / "metrics.jsonl").open("a") as file:
        file.write(unfinished)
    with Writer(cut, total_steps=30, resume_step=12) as writer:
        assert read_steps(cut) == [5, 10]
        log_steps(writer, range(15, 31, 5))
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert not list(cut.glob("*.partial"))


def test_resume_keeps_the_line_of_the_checkpoint(tmp_path):
    with Writer(tmp_path, total_steps=30) as writer:
        log_steps(writer, (5, 10, 15))
    with Writer(tmp_path, total_steps=30, resume_step=10):
        pass
    assert read_steps(tmp_path) == [5, 10]


def test_start_without_checkpoint_starts_the_file_afresh(tmp_path):
    for _ in range(2):
        with Writer(tmp_path, total_steps=30) as writer:
            writer.write(0, {"test/accuracy": 9.5})
    assert read_steps(tmp_path) == [0]


def test_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        Writer(tmp_path, total_steps=5, resume_step=3)
    assert path.read_text().startswith('{"step": 1}\n{"st\n')


def test_non_finite_values_stay_json(tmp_path, capsys):
    with Writer(tmp_path, total_steps=20) as writer:
        writer.write(1, {"a": math.nan, "b": math.inf, "c": 2.0})
    path = tmp_path / "metrics.jsonl"
    assert json.loads(path.read_text()) == {"step": 1, "a": None, "b": None, "c": 2.0}
    assert capsys.readouterr().out == "step 1/20  a nan  b inf  c 2\n"


def test_tensorboard_gets_values_timing_and_purge_step(tmp_path):
    opened = open_trackers(("tensorboard",), tmp_path, {}, resume_step=7)
    with Writer(tmp_path, total_steps=20, resume_step=7, trackers=opened) as writer:
        log_steps(writer, (10,))
    events = read_events(tmp_path)
    assert [e.step for e in events if e.HasField("session_log")] == [8]
    scalars = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
    assert scalars["train/loss"] == (10, pytest.approx(0.1))
    assert scalars["timing/images_per_second"] == (10, 5.0)


def test_console_lines():
    values = {"train/loss": 1.2341, "epoch": 3.07, "eval/top5": 88.0, "timing/seconds_left": 3725.0}
    values |= {"timing/images_per_second": 20480.4, "timing/data_wait_percent": 2.0}
    assert format_lines(1200, 64000, values) == [
        "train 1,200/64,000  epoch 3.1  loss 1.234  20,480 images/s  1:02:05 left",
        "eval 1,200/64,000  epoch 3.1  top5 88",
    ]
    (line,) = format_lines(1, 2, {f"eval/metric_{i}": float(i) for i in range(15)})
    assert line.endswith("metric_11 11  and 3 more")
    assert max(map(len, line.splitlines())) <= 110


def test_progress_bar_starts_at_the_resumed_step(tmp_path, capsys):
    with Writer(tmp_path, total_steps=40, resume_step=10, show_progress=True) as writer:
        writer.progress(20)
        log_steps(writer, (30,))
        writer.progress(30)
    captured = capsys.readouterr()
    assert "10/40" in captured.err and "30/40" in captured.err
    assert "images_per_second=5" in captured.err and "loss=0.03333" in captured.err
    assert "train 30/40  epoch 3.0" in captured.out


def test_no_bar_where_there_is_no_terminal(tmp_path, capsys):
    with Writer(tmp_path, total_steps=40) as writer:
        writer.progress(20)
        log_steps(writer, (30,))
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.count("\n") == 1


def test_other_processes_write_nothing(tmp_path, capsys):
    with Writer(tmp_path / "run", total_steps=20, is_main=False, show_progress=True) as writer:
        log_steps(writer, (10,))
        writer.progress(10)
    assert not (tmp_path / "run").exists()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_close_twice(tmp_path):
    writer = Writer(tmp_path, total_steps=20)
    writer.close()
    writer.close()
