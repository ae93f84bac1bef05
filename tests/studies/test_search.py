"""The search: probes, starts, budget, what diverges, and its reports."""

import json
import shlex
import sys

import pytest

from fixed_head_jax.studies.search import check_search, run_search, search_report
from fixed_head_jax.training.interval_log import NonFiniteLossError
from tests.studies.searches import (
    DEFAULT,
    NEAR,
    PROBES,
    SPACE,
    SPLITS,
    Runs,
    accuracy_of,
    make_search,
    overrides,
    starts,
    trials_of,
    visits,
)

pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("short_reports")


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
