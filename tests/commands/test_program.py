"""The command line: one clear line and an exit code for what a user can mend, safe to kill."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixed_head_jax import commands
from fixed_head_jax.commands import arguments, modes
from fixed_head_jax.data.records import BadRecordError
from fixed_head_jax.evaluators.predictions import PredictionsError

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.total_steps=40", "--config.log_every_steps=7", "--config.eval_every_epochs=0",
    "--config.checkpoint_every_steps=5", "--config.batch_size=16", "--config.ema_decay=0.9",
    "--config.optim.warmup_epochs=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def command(workdir, *arguments, config="configs/digits.py:orthogonal"):
    flags = [f"--config={config}", f"--workdir={workdir}", *map(str, arguments)]
    return [sys.executable, str(ROOT / "main.py"), *flags]


def environment():
    """Takes back what conftest.py sets for this process: of a flag, the last value counts."""
    flags = os.environ["XLA_FLAGS"].replace("fusion_emitters=false", "fusion_emitters=true")
    as_users = (
        "--xla_force_host_platform_device_count=1 --xla_llvm_disable_expensive_passes=false "
        "--xla_backend_optimization_level=3"
    )
    return {**os.environ, "XLA_FLAGS": f"{flags} {as_users}"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`(workdir, *arguments) -> (code, output, errors)` of the command, in a process of its own.

    The process is forked from one that has imported the modes, which takes seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fixed_head_jax.commands.modes"])
    folder = tmp_path_factory.mktemp("outputs")

    def run(*arguments, **options):
        outputs = (folder / "stdout", folder / "stderr")
        argv = command(*arguments, **options)[1:]
        process = context.Process(target=be_command, args=(argv, environment(), outputs))
        process.start()
        process.join()
        return process.exitcode, *(path.read_text() for path in outputs)

    return run


def be_command(argv, environment, outputs):
    """Makes this process what `python argv` is, from the line on that calls `run`."""
    os.chdir(ROOT)
    os.environ.update(environment)
    sys.argv = argv
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    commands.run(program="main.py")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BadRecordError("bad record at index 7"), 2, "main.py: bad record at index 7"),
        (PredictionsError("no predictions"), 2, "main.py: no predictions"),
        (KeyboardInterrupt(), 130, "main.py: interrupted; the last checkpoint is kept"),
    ],
)
def test_what_ends_training_is_one_line_and_a_code(monkeypatch, capsys, error, code, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(modes.experiments, "train", fail)
    with pytest.raises(SystemExit) as stopped:
        commands.run(["train", "digits", "--workdir=none"], "main.py")
    assert stopped.value.code == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_an_interruption_of_the_imports_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("raise KeyboardInterrupt")
    result = subprocess.run(
        command(tmp_path / "run"), cwd=ROOT, env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "main.py: interrupted before it began\n"


@pytest.mark.parametrize("given", [["--config=configs/digit.py:smoke"], ["-config", "digit"]])
def test_a_config_that_is_no_file_is_named_with_its_like(given):
    message = r"--config='\S*digit\S*' is no experiment and no Python file .did you mean 'digits'"
    with pytest.raises(ValueError, match=message):
        arguments.parse([*given, "--config.optim.lr=1"])


def test_no_cluster_is_bad_input(monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.\nMore.")

    monkeypatch.setattr(modes.jax.distributed, "initialize", initialize)
    with pytest.raises(modes.BadInput, match="finds no cluster .coordinator_address should be"):
        modes.join_cluster()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["--config.optim.lrr=1"], {}, r"no key optim.lrr \(did you mean 'optim.lr'\?\)"),
        (["--config.optim.b1=1"], {}, r"optim.b1=1.0 must be a number in \[0, 1\)"),
        ([], {"config": "configs/digits.py:hadamart"}, "unknown config variant 'hadamart'"),
        (["--config.model.head=identiti"], {}, "did you mean 'identity'"),
        (["--config.data_dir=/nonexistent"], {}, "data_dir '/nonexistent'"),
        ([], {"config": "configs/plested_small.py"}, "needs weights to start from, and init_from"),
        (["--mode=search"], {}, "digits:orthogonal has no get_search"),
        (["--mode=search", "--sweep"], {}, "--mode=search goes without --sweep"),
    ],
    ids=["key", "value", "variant", "head", "data_dir", "no_weights", "no_search", "mode"],
)
def test_bad_input_ends_in_one_line_and_code_2(tmp_path, arguments, options, message, run):
    code, _, errors = run(tmp_path / "run", *arguments, **options)
    assert code == 2
    assert re.search(message, errors)
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "the run never got there"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_killed_and_repeated_equals_uninterrupted(tmp_path, data_dir, placement, run):
    arguments = (f"--config.data_dir={data_dir}", f"--config.data.placement={placement}", *SMALL)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole, *arguments)[0] == 0
    for checkpoint in (5, 20):
        process = subprocess.Popen(command(parts, *arguments), cwd=ROOT, env=environment())

        def saved(checkpoint=checkpoint):
            steps = (parts / "checkpoints").glob("[0-9]*")
            return any(step.name.isdigit() and int(step.name) >= checkpoint for step in steps)

        wait_for(saved, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    code, output, _ = run(parts, *arguments)
    assert code == 0
    assert "step 40 on test, accuracy" in output
    assert metrics(parts) == metrics(whole)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, parts)]
    assert results[0] == results[1]
    code, output, _ = run(parts, *arguments, "--mode=evaluate")
    assert code == 0
    assert f"step 40 eval/accuracy {results[0]['eval/accuracy']:.6g}" in output


def test_evaluating_a_folder_without_a_run_says_so(tmp_path):
    """As a shell starts the command, from its first line on."""
    result = subprocess.run(
        command(tmp_path, "--mode=evaluate"), cwd=ROOT, env=environment(), capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert (
        result.stderr
        == f"main.py: workdir {str(tmp_path)!r} holds no run: config.json is missing\n"
    )


STAGED = """
from fixed_head_jax.configs import digits

def get_config(arg=""):
    config = digits.get_config("smoke")
    config.data.train_split = "train[:64]"
    return config

def get_stages(arg=""):
    later = {"init_skip": ("^head",), "model.head": arg or "linear", "model.frozen_backbone": True}
    return [
        {"name": "one", "overrides": {}},
        {"name": "two", "init_from": "one", "overrides": later},
    ]

def get_sweep(arg=""):
    row = {"name": "lr", "overrides": {"optim.lr": 0.2}, "published": 12.5}
    return {"baseline": "lr", "seeds": (3,), "rows": [row]}
"""


@pytest.mark.slow
def test_stages_run_in_one_command_and_in_sweeps(tmp_path, data_dir, run):
    (tmp_path / "staged.py").write_text(STAGED)
    config = f"{tmp_path / 'staged.py'}:cosine"
    arguments = f"--config.data_dir={data_dir}"
    code, output, errors = run(tmp_path / "run", arguments, config=config)
    assert code == 0, errors
    assert "| two" in output
    for folder, head in (("one", "identity"), ("two", "cosine")):
        saved = json.loads((tmp_path / "run" / folder / "config.json").read_text())
        assert saved["model.head"] == head
    (tmp_path / "run").rename(tmp_path / "moved")  # as a cluster moves scratch folders
    code, again, errors = run(tmp_path / "moved", arguments, config=config)
    assert code == 0, errors
    tables = [[line for line in text.splitlines() if line[:1] == "|"] for text in (again, output)]
    assert tables[0] == tables[1]
    code, evaluated, errors = run(tmp_path / "moved", arguments, "--mode=evaluate", config=config)
    assert code == 0, errors
    assert "two step 2 eval/accuracy" in evaluated
    code, output, errors = run(tmp_path / "sweep", arguments, "--sweep", config=config)
    assert code == 0, errors
    assert (tmp_path / "sweep" / "lr" / "seed3" / "stages.md").exists()
    assert "12.50" in (tmp_path / "sweep" / "sweep.md").read_text()


SEARCHED = """
from fixed_head_jax.configs.plested_small import get_search
from fixed_head_jax.configs import digits

def get_config(arg=""):
    config = digits.get_config("linear,smoke")
    config.data.train_split = "train[:64]"
    return config
"""


@pytest.mark.slow
def test_searching_dials_in_one_command(tmp_path, data_dir, run):
    (tmp_path / "searched.py").write_text(SEARCHED)
    config, common = str(tmp_path / "searched.py"), f"--config.data_dir={data_dir}"
    start, search = tmp_path / "start", tmp_path / "search"
    assert run(start, common, config=config)[0] == 0
    arguments = (common, f"--config.init_from={start}", "--mode=search")
    code, _, errors = run(search, common, "--mode=search", config=config)
    assert code == 2
    assert "needs weights to start from" in errors
    assert not search.exists()
    code, output, errors = run(search, *arguments, "--budget=1", config=config)
    assert code == 0, errors
    assert "rule of thumb" in output
    best = json.loads((search / "search.json").read_text())["best"]
    code, output, errors = run(search, *arguments, "--budget=2", config=config)
    assert code == 0, errors
    assert "trial 2/2" in output
    folders = {path.name for path in search.glob("*/*") if path.is_dir()}
    assert folders == {"scratch", "frozen", "0000", "0001"}
    assert best["accuracy"] <= json.loads((search / "search.json").read_text())["best"]["accuracy"]


@pytest.mark.slow
def test_a_mistake_in_the_last_stage_shows_before_the_first(tmp_path, data_dir, run):
    (tmp_path / "staged.py").write_text(STAGED)
    config = f"{tmp_path / 'staged.py'}:cosin"
    code, _, errors = run(tmp_path / "run", f"--config.data_dir={data_dir}", config=config)
    assert code == 2
    assert "did you mean 'cosine'" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_diverging_ends_in_one_line_and_code_3(tmp_path, data_dir, run):
    arguments = (f"--config.data_dir={data_dir}", *SMALL, "--config.optim.lr=1e30")
    code, _, errors = run(tmp_path, *arguments)
    assert code == 3
    assert re.search(r"main.py: (loss|grad_norm) is \S+ at step \d+; .*lower optim.lr", errors)
    assert "Traceback" not in errors
    assert not (tmp_path / "result.json").exists()
    code, _, errors = run(tmp_path, *arguments, "--mode=evaluate")
    assert code == 2
    assert "has no checkpoint yet; train first" in errors


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(tmp_path, data_dir):
    arguments = (f"--config.data_dir={data_dir}", *SMALL, "--config.total_steps=4000")
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(workdir, *arguments, "--config.checkpoint_every_steps=0"),
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: (workdir / "metrics.jsonl").exists() and metrics(workdir), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 75
    step = int(re.search(r"stopped at step ([\d,]+)", errors).group(1).replace(",", ""))
    assert (workdir / "checkpoints" / str(step)).is_dir()
