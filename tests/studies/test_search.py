"""The search: probes, starts, budget, what is resumed by whom, and its reports."""

import json
import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixed_head_jax.studies.search import check_search, run_search, search_report
from fixed_head_jax.studies.search import summary as reports
from fixed_head_jax.training.interval_log import NonFiniteLossError

pytest.importorskip("optuna")

SPACE = {
    "lr": {"low": 0.001, "high": 1.0, "log": True},
    "layers": {"choices": (1, 2, 3, 4)},
    "decay": {"low": 0.0, "high": 1.0},
}
DEFAULT = {"lr": 0.5, "layers": 1, "decay": 0.5}
NEAR = {"lr": 0.01, "layers": 2, "decay": 0.5}
SPLITS = {"data.eval_split": "validation"}
PROBES = {
    "scratch": {"init_from": "none", "optim.lr": 0.1},
    "frozen": {"model.frozen_backbone": True, "optim.lr": 0.1},
}


def shorten_reports(set_attribute=setattr):
    """Leaves out of the reports what takes half a second."""
    set_attribute(reports, "search_chart", lambda *_: None)
    set_attribute(reports, "importances", lambda study: {})


@pytest.fixture(autouse=True)
def short_reports(monkeypatch):
    shorten_reports(monkeypatch.setattr)


def overrides(dials):
    pair = (dials["decay"], "it's")
    return {
        "optim.lr": dials["lr"], "transfer.new_layers": dials["layers"], "optim.pair": pair,
        "transfer.lr_head": None,
    }  # fmt: skip


def starts(difference):
    return [DEFAULT, NEAR] if difference < 0 else [DEFAULT]


def make_search(**changes):
    search = {
        "space": SPACE, "overrides": overrides, "splits": SPLITS, "probes": PROBES,
        "starts": starts,
    }  # fmt: skip
    return search | changes


def accuracy_of(values):
    """The best is 90, at lr 0.0316 and 3 layers; of the probes, frozen features do better."""
    if "init_from" in values:
        return 60.0
    if "model.frozen_backbone" in values:
        return 68.5
    off = math.log10(values["optim.lr"]) + 1.5
    return 90 - 10 * off**2 - (values["transfer.new_layers"] - 3) ** 2 - values["optim.pair"][0]


class Runs:
    """Stands in for training; each visit to a folder leaves a line with its values there."""

    def __init__(self, raises=None):
        self.calls = []
        self.raises = raises or {}

    def __call__(self, values, folder):
        name = folder.relative_to(folder.parents[1]).as_posix()
        self.calls.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "visits").open("a") as file:
            file.write(json.dumps(values) + "\n")
        if name in self.raises:
            raise self.raises[name]
        return {"accuracy": accuracy_of(values)}


def visits(folder):
    return [json.loads(line) for line in (folder / "visits").read_text().splitlines()]


def trials_of(summary):
    """Returns what the sampler and the runs decide of every trial, by number."""
    trials = sorted(summary["trials"], key=lambda trial: trial["number"])
    return [(trial["dials"], trial["accuracy"], trial["state"]) for trial in trials]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten_reports(monkeypatch.setattr)
        summary = run_search(make_search(), Runs(), tmp_path_factory.mktemp("search"), budget=5)
    return trials_of(summary)


def test_finds_near_the_optimum(tmp_path):
    best = run_search(make_search(), Runs(), tmp_path, budget=15)["best"]
    assert best["accuracy"] == accuracy_of(overrides(best["dials"])) > 88


def test_probes_come_first_then_the_starts_in_order(tmp_path, capsys):
    given = []

    def recorded(difference):
        given.append(difference)
        return starts(difference)

    runs = Runs()
    summary = run_search(make_search(starts=recorded), runs, tmp_path, budget=3)
    trials = ["trials/0000", "trials/0001", "trials/0002"]
    assert runs.calls == ["probes/scratch", "probes/frozen", *trials]
    assert given[-1] == summary["difference"] == 60.0 - 68.5
    assert [trial["dials"] for trial in summary["trials"][:2]] == [DEFAULT, NEAR]
    for name in PROBES:
        assert visits(tmp_path / "probes" / name) == [SPLITS | PROBES[name]]
    printed = capsys.readouterr().out
    assert f"search trial 3/3: {tmp_path / 'trials' / '0002'}\n" in printed
    assert "search trial 1/3: accuracy 71.12 % (best 71.12 %, trial 0)" in printed
    assert printed.endswith((tmp_path / "search.md").read_text())


def test_budget_is_of_the_study(tmp_path, uninterrupted):
    run_search(make_search(), Runs(), tmp_path, budget=3)
    again, more = Runs(), Runs()
    for budget in (3, 2):
        run_search(make_search(), again, tmp_path, budget)
    assert again.calls == []
    resumed = run_search(make_search(), more, tmp_path, budget=5)
    assert more.calls == ["trials/0003", "trials/0004"]
    assert trials_of(resumed) == uninterrupted


@pytest.mark.parametrize("name", ["lr?=1", "50%", "{a}", "a#b c", "file:x?mode=memory"])
def test_a_workdir_of_any_name_has_its_own_study(tmp_path, name):
    runs = Runs()
    for folder in (tmp_path / name, tmp_path / f"{name}2"):
        run_search(make_search(), runs, folder, budget=1)
        assert (folder / "search.db").is_file()
    assert runs.calls == ["probes/scratch", "probes/frozen", "trials/0000"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}2"}


def test_probes_and_trials_are_folders_of_runs_alone(tmp_path):
    run_search(make_search(), Runs(), tmp_path, budget=2)
    listed = [*(tmp_path / "probes").iterdir(), *(tmp_path / "trials").iterdir()]
    assert len(listed) == 4 and all((folder / "visits").exists() for folder in listed)


def test_seed_decides_what_is_drawn(tmp_path):
    one, other = (
        run_search(make_search(), Runs(), tmp_path / str(seed), 3, seed=seed) for seed in (0, 1)
    )
    assert trials_of(one)[:2] == trials_of(other)[:2]  # the starts
    assert trials_of(one)[2:] != trials_of(other)[2:]


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
    code = f"import sys, test_search; test_search.{call}(*sys.argv[1:])"
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


def test_diverged_trial_is_reported_and_counts(tmp_path, capsys):
    diverges = Runs({"trials/0001": NonFiniteLossError("loss is nan at step 7")})
    summary = run_search(make_search(), diverges, tmp_path, budget=4)
    assert len(diverges.calls) == 2 + 4
    diverged = summary["trials"][1]
    assert (diverged["state"], diverged["accuracy"]) == ("diverged", None)
    assert diverged["reason"] == "loss is nan at step 7"
    assert "search trial 2/4: diverged: loss is nan at step 7 (best 71" in capsys.readouterr().out
    report = (tmp_path / "search.md").read_text()
    assert "Trial 1 diverged: loss is nan at step 7" in report
    assert report.splitlines()[-3].startswith("| 1 ")  # the last row


def test_search_that_only_diverges_has_no_best(tmp_path):
    diverges = {f"trials/000{number}": NonFiniteLossError() for number in range(2)}
    summary = run_search(make_search(), Runs(diverges), tmp_path, budget=2)
    assert summary["best"] is None and summary["importances"] == {}
    assert summary["trials"][0]["reason"] == "its loss is not finite"
    assert "Best" not in (tmp_path / "search.md").read_text()


def test_diverged_probe_ends_the_search(tmp_path):
    runs = Runs({"probes/frozen": NonFiniteLossError("loss is nan at step 7")})
    with pytest.raises(NonFiniteLossError, match="step 7"):
        run_search(make_search(), runs, tmp_path, budget=4)
    assert runs.calls == ["probes/scratch", "probes/frozen"]


def test_reports_name_the_best(tmp_path, monkeypatch):
    run_search(make_search(), Runs(), tmp_path, budget=6)
    monkeypatch.undo()  # the whole reports
    summary = run_search(make_search(), Runs(), tmp_path, budget=7)
    assert json.loads((tmp_path / "search.json").read_text()) == summary
    best = summary["best"]
    assert best["accuracy"] == max(trial["accuracy"] for trial in summary["trials"])
    ran = visits(tmp_path / best["folder"])
    assert ran == [SPLITS | best["overrides"]]
    assert sum(summary["importances"].values()) == pytest.approx(1)
    assert set(summary["importances"]) == set(SPACE)
    report = (tmp_path / "search.md").read_text()
    assert f"Best: trial {best['number']}, {best['accuracy']:.2f} %, in {best['folder']}" in report
    assert "Negative: the pre-trained features suit the data." in report and "-8.50" in report
    (line,) = [line for line in report.splitlines() if "--config." in line]
    arguments = shlex.split(line)
    assert f"--config.optim.lr={best['dials']['lr']}" in arguments
    assert f"--config.optim.pair={tuple(best['overrides']['optim.pair'])}" in arguments
    assert not any("lr_head" in argument or "split" in argument for argument in arguments)
    table = report[report.index("| trial ") :].splitlines()[2:]
    accuracies = [float(line.split("|")[2]) for line in table]
    assert accuracies == sorted(accuracies, reverse=True) and len(accuracies) == 7
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_rule_of_thumb_where_features_do_not_fit():
    summary = {"best": None, "probes": {"scratch": 80.0, "frozen": 51.5}, "difference": 28.5}
    report = search_report(summary | {"importances": {}, "trials": []})
    assert "+28.50" in report and "Not negative: the pre-trained features suit" in report
    assert report.endswith("No trial has finished yet.\n")


def test_importances_need_trials_that_differ(tmp_path, monkeypatch):
    def run_trial(values, folder):
        return {"accuracy": 90.0 if folder.name == "0004" else 70.0}

    run_search(make_search(), run_trial, tmp_path, budget=2)
    monkeypatch.undo()  # the whole reports
    importances = [
        run_search(make_search(), run_trial, tmp_path, budget)["importances"]
        for budget in (3, 4, 5)
    ]
    assert importances[:2] == [{}, {}] and importances[2]


def test_changed_space_is_refused(tmp_path):
    run_search(make_search(), Runs(), tmp_path, budget=1)
    changed = {**SPACE, "layers": {"choices": (1, 2)}, "scale": {"low": 0.0, "high": 1.0}}
    changed.pop("decay")
    search = make_search(space=changed, starts=lambda difference: [])
    message = r"another space: decay \(.* there, None here\); layers .*; scale .*; choose another"
    for check in (check_search, lambda *a: run_search(a[0], Runs(), *a[1:])):
        with pytest.raises(ValueError, match=message):
            check(search, tmp_path, 1)
    reordered = dict(reversed(SPACE.items()))
    run_search(make_search(space=reordered), Runs(), tmp_path, budget=2)


def dial(**keys):
    return {"space": {"lr": keys}}


INVALID = [
    ({"space": {}}, "space is empty"),
    ({"probes": {"scratch": {}}}, "probes must be scratch, frozen; they are scratch"),
    ({"goal": 1}, "needs the keys space, overrides, splits, probes, starts; .*goal"),
    (dial(), "'lr' is {}; give choices, or low and high"),
    (dial(low=0.1), "give choices, or low and high"),
    (dial(low=0.1, high=1.0, step=0.1), "give choices, or low and high"),
    (dial(choices=()), r"'lr' has choices \(\); give plain values"),
    (dial(choices=((1, 2),)), "give plain values"),
    (dial(choices=(1, 1)), "give each one once"),
    (dial(low=1.0, high=1.0), "low must be less than high"),
    (dial(low=0.0, high=float("inf")), "low must be less than high"),
    (dial(low=0.0, high=1.0, log=True), "low must be above 0"),
    ({"starts": lambda d: [{"lr": 0.1}]}, "must set the dials lr, layers, decay"),
    ({"starts": lambda d: [DEFAULT | {"lr": 2.0}]}, "start has lr=2.0, which is not in"),
    ({"starts": lambda d: [DEFAULT | {"layers": 7}] if d > 0 else []}, "start has layers=7"),
]


@pytest.mark.parametrize("changes, message", INVALID)
def test_invalid_search_runs_nothing(tmp_path, changes, message):
    runs = Runs()
    with pytest.raises(ValueError, match=message):
        run_search(make_search(**changes), runs, tmp_path, budget=1)
    assert runs.calls == [] and not list(tmp_path.iterdir())


def test_invalid_budget(tmp_path):
    with pytest.raises(ValueError, match="budget=0 must be at least 1"):
        run_search(make_search(), Runs(), tmp_path, budget=0)


@pytest.mark.parametrize("metrics", [{}, {"accuracy": float("nan")}])
def test_run_without_accuracy_is_an_error(tmp_path, metrics):
    with pytest.raises(ValueError, match="scratch needs a finite accuracy"):
        run_search(make_search(), lambda *_: metrics, tmp_path, budget=1)


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"^--mode=search needs Optuna: pip install -e '.\[sear"):
        run_search(make_search(), Runs(), tmp_path, budget=1)
