"""What is resumed of a search, by whom, and two processes that share one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixed_head_jax.studies.search import run_search
from tests.studies.searches import Runs, make_search, shorten_reports, trials_of, visits

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("short_reports")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_reports(monkeypatch.setattr)
        summary = run_search(make_search(), Runs(), tmp_path_factory.mktemp("search"), budget=5)
    return trials_of(summary)


def test_budget_is_of_the_study(tmp_path, uninterrupted):
    run_search(make_search(), Runs(), tmp_path, budget=3)
    again, more = Runs(), Runs()
    for budget in (3, 2):
        run_search(make_search(), again, tmp_path, budget)
    assert again.calls == []
    resumed = run_search(make_search(), more, tmp_path, budget=5)
    assert more.calls == ["trials/0003", "trials/0004"]
    assert trials_of(resumed) == uninterrupted


@pytest.mark.parametrize(
    "name, error",
    [
        ("probes/frozen", RuntimeError("stopped")),
        ("trials/0000", RuntimeError("stopped")),
        ("trials/0003", KeyboardInterrupt()),
        ("trials/0003", SystemExit(75)),
    ],
)
def test_interrupted_run_is_taken_up(tmp_path, uninterrupted, name, error):
    """And the search ends as if it had not been interrupted."""
    with pytest.raises(type(error)):
        run_search(make_search(), Runs({name: error}), tmp_path, budget=5)
    runs = Runs()
    summary = run_search(make_search(), runs, tmp_path, budget=5)
    assert runs.calls[0] == name
    first, second = visits(tmp_path / name)
    assert first == second
    assert trials_of(summary) == uninterrupted
    assert not list(tmp_path.rglob("*.partial"))


def in_a_process(call, *arguments):
    """Calls a function of this file, by name, in a process of its own."""
    code = f"import sys, test_search_resumption; test_search_resumption.{call}(*sys.argv[1:])"
    here = Path(__file__).parent
    paths = {"PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | paths, stdout=subprocess.PIPE, text=True)


def die_at(workdir, name):
    class Dies(Runs):
        def __call__(self, values, folder):
            result = super().__call__(values, folder)
            if self.calls[-1] == name:
                os._exit(9)  # as by SIGKILL: nothing is tidied up
            return result

    shorten_reports()
    run_search(make_search(), Dies(), workdir, budget=5)


def search_beside_another(workdir):
    def run_trial(values, folder):
        time.sleep(0.1)
        return Runs()(values, folder)

    shorten_reports()
    workdir = Path(workdir)
    (workdir / f"{os.getpid()}.ready").touch()
    while len(list(workdir.glob("*.ready"))) < 2:
        time.sleep(0.01)
    run_search(make_search(), run_trial, workdir, budget=6)


def test_killed_trial_is_taken_up_at_once(tmp_path, uninterrupted):
    killed = in_a_process("die_at", tmp_path, "trials/0002")
    killed.communicate(timeout=60)
    assert killed.returncode == 9
    runs = Runs()
    summary = run_search(make_search(), runs, tmp_path, budget=5)
    assert runs.calls == ["trials/0002", "trials/0003", "trials/0004"]
    first, second = visits(tmp_path / "trials" / "0002")
    assert first == second
    assert trials_of(summary) == uninterrupted


def test_two_processes_share_a_search(tmp_path):
    """They end with exactly the budget, each run of it once: claims are made one by one."""
    processes = [in_a_process("search_beside_another", tmp_path) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all("search trial" in text for text in printed), "one of them has run nothing"
    runs = Runs()
    summary = run_search(make_search(), runs, tmp_path, budget=6)
    assert runs.calls == []
    assert [trial["number"] for trial in summary["trials"]] == list(range(6))
    names = [f"trials/{number:04d}" for number in range(6)] + ["probes/scratch", "probes/frozen"]
    assert all(len(visits(tmp_path / name)) == 1 for name in names)
    assert len({trial["dials"]["lr"] for trial in summary["trials"]}) == 6


def test_trial_that_runs_elsewhere_is_left_alone(tmp_path):
    """The one process claims while the other is in the middle of a trial."""
    seen = []

    def run_trial(values, folder):
        if folder.name == "0001":
            runs = Runs()
            run_search(make_search(), runs, tmp_path, budget=3)
            seen.extend(runs.calls)
        return Runs()(values, folder)

    run_search(make_search(), run_trial, tmp_path, budget=3)
    assert seen == ["trials/0002"]
    assert len(visits(tmp_path / "trials" / "0001")) == 1
