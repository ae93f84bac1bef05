"""The sweep: order, what is skipped, what is resumed, and the numbers of its table."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from fixed_head_jax.evaluators.predictions import PREDICTIONS_FILE, average, write_predictions
from fixed_head_jax.studies.report import sweep_rows, sweep_table
from fixed_head_jax.studies.sweep import run_sweep
from fixed_head_jax.training.interval_log import NonFiniteLossError

ACCURACIES = {("linear", 0): 98.25, ("linear", 1): 97.5, ("linear", 2): 98.9}
ACCURACIES |= {("identity", 0): 99.0, ("identity", 1): 97.75, ("identity", 2): 98.0}


def make_sweep(**changes):
    sweep = {
        "baseline": "linear",
        "seeds": (0, 1, 2),
        "rows": [
            {"name": "linear", "overrides": {"model.head": "linear"}, "published": None},
            {"name": "identity", "overrides": {"model.head": "identity"}, "published": None},
        ],
    }
    return sweep | changes


class Runs:
    """Stands in for training; stops, as SIGTERM does, at the given run."""

    def __init__(self, stop_at=None):
        self.calls = []
        self.stop_at = stop_at

    def __call__(self, overrides, run_dir):
        run = (overrides["model.head"], overrides["seed"])
        self.calls.append(run)
        assert run_dir.parts[-2:] == (run[0], f"seed{run[1]}")
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "half_done").touch()
        if run == self.stop_at:
            raise SystemExit(75)
        return {"accuracy": ACCURACIES[run], "params": 1234567, "fixed": 640}


def all_results():
    return [
        {"name": name, "seed": seed, "accuracy": accuracy, "params": 1234567, "fixed": 640}
        for (name, seed), accuracy in ACCURACIES.items()
    ]


def test_seeds_are_the_outer_loop(tmp_path, capsys):
    runs = Runs()
    results = run_sweep(make_sweep(), runs, tmp_path)
    assert runs.calls == [(name, seed) for seed in (0, 1, 2) for name in ("linear", "identity")]
    assert [(r["name"], r["seed"]) for r in results] == runs.calls
    assert {(r["name"], r["seed"]): r["accuracy"] for r in results} == ACCURACIES
    printed = capsys.readouterr().out
    assert "sweep run 6/6: identity seed 2 accuracy 98.00 % (done)" in printed
    assert printed.endswith((tmp_path / "sweep.md").read_text())
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_resume_skips_finished_runs_and_repeats_the_half_done_one(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_sweep(make_sweep(), Runs(stop_at=("linear", 1)), tmp_path)
    assert (tmp_path / "linear" / "seed1" / "half_done").exists()
    assert not (tmp_path / "linear" / "seed1" / "result.json").exists()
    assert "(n=1)" in (tmp_path / "sweep.md").read_text()
    runs = Runs()
    resumed = run_sweep(make_sweep(), runs, tmp_path)
    assert runs.calls == [("linear", 1), ("identity", 1), ("linear", 2), ("identity", 2)]
    assert "linear seed 0 accuracy 98.25 % (finished before)" in capsys.readouterr().out
    assert resumed == run_sweep(make_sweep(), Runs(), tmp_path / "uninterrupted")
    for name in ("sweep.md", "sweep.csv"):
        uninterrupted = tmp_path / "uninterrupted" / name
        assert (tmp_path / name).read_bytes() == uninterrupted.read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_finished_runs_that_lack_a_needed_file_run_again(tmp_path):
    class Predicts(Runs):
        def __call__(self, overrides, run_dir):
            result = super().__call__(overrides, run_dir)
            (run_dir / PREDICTIONS_FILE).touch()
            return result

    first = run_sweep(make_sweep(), Runs(), tmp_path)
    (tmp_path / "linear" / "seed1" / PREDICTIONS_FILE).touch()
    runs = Predicts()
    assert run_sweep(make_sweep(), runs, tmp_path, needed=[PREDICTIONS_FILE]) == first
    assert len(runs.calls) == 5 and ("linear", 1) not in runs.calls
    run_sweep(make_sweep(), runs, tmp_path, needed=[PREDICTIONS_FILE])
    assert len(runs.calls) == 5


def test_a_row_that_diverges_stands_in_the_table_and_the_others_run(tmp_path, capsys):
    class Diverges(Runs):
        def __call__(self, overrides, run_dir):
            result = super().__call__(overrides, run_dir)
            if overrides["seed"] == 1 and overrides["model.head"] == "identity":
                raise NonFiniteLossError("loss is nan at step 7")
            return result | {"accuracy": np.nan} if overrides["seed"] == 2 else result

    members = {"name": "both", "members": ["linear", "identity"]}
    sweep = make_sweep()
    runs, rows = Diverges(), [*sweep["rows"], members]
    results = run_sweep(make_sweep(rows=rows, seeds=(1, 2)), runs, tmp_path)
    assert runs.calls == [("linear", 1), ("identity", 1), ("linear", 2), ("identity", 2)]
    assert [result["accuracy"] for result in results] == [97.5, None, None, None]
    assert results[1]["diverged"] == "loss is nan at step 7"
    printed = capsys.readouterr().out
    assert "identity seed 1 diverged: loss is nan at step 7; remove" in printed
    assert "linear seed 2 accuracy is not finite (done, about" in printed
    assert "sweep run 3/6: left out, its members are not finished or diverged" in printed
    table = (tmp_path / "sweep.md").read_text().splitlines()
    assert "97.50 (n=1, 1 null)" in table[2] and "1 diverged, 1 null" in table[3]
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["runs"], line["diverged"], line["null"]) for line in lines] == [
        ("1", "0", "1"), ("0", "1", "1"), ("0", "0", "0"),
    ]  # fmt: skip
    assert lines[1]["accuracy"] == "" and lines[1]["params"] == "1234567"
    # Repeated, it trains nothing again, unless a folder is removed.
    again = Runs()
    assert run_sweep(sweep | {"seeds": (1, 2)}, again, tmp_path) == results
    assert not again.calls
    (tmp_path / "identity" / "seed1" / "result.json").unlink()
    run_sweep(sweep | {"seeds": (1, 2)}, again, tmp_path)
    assert again.calls == [("identity", 1)]


def test_only_the_main_process_writes_and_prints(tmp_path, capsys):
    runs = Runs()
    run_sweep(make_sweep(), runs, tmp_path, is_main=False)
    assert len(runs.calls) == 6
    assert not [path for path in tmp_path.rglob("*.*") if path.is_file()]
    assert capsys.readouterr().out == ""


def test_rows_run_by_two_processes_make_one_table(tmp_path):
    for index, name in enumerate(("linear", "identity")):
        runs = Runs()
        run_sweep(make_sweep(), runs, tmp_path, row_index=index)
        assert runs.calls == [(name, seed) for seed in (0, 1, 2)]
    run_sweep(make_sweep(), Runs(), tmp_path / "alone")
    assert (tmp_path / "sweep.md").read_bytes() == (tmp_path / "alone" / "sweep.md").read_bytes()
    for index in (-1, 2):
        with pytest.raises(ValueError, match=f"sweep_index={index} must be a row's number, 0 to 1"):
            run_sweep(make_sweep(), Runs(), tmp_path, row_index=index)


def test_a_row_of_members_is_their_ensemble_seed_by_seed(tmp_path, capsys):
    ensemble = {"name": "both", "members": ("linear", "identity"), "published": 99.0}
    rows = make_sweep(rows=[*make_sweep()["rows"], ensemble])
    labels = np.array([0, 1, 1, 2])
    right, wrong = np.eye(3)[labels], np.eye(3)[[1, 2, 0, 0]]
    shares = {"linear": (0.9, 0.6, 0.2, 0.7), "identity": (0.4, 0.3, 0.7, 0.6)}

    class Predict(Runs):
        def __call__(self, overrides, run_dir):
            result = super().__call__(overrides, run_dir)
            share = np.array(shares[overrides["model.head"]])[:, None]
            predictions = {"label": labels, "eval": share * right + (1 - share) * wrong}
            write_predictions(run_dir / PREDICTIONS_FILE, {"split": "'test'", **predictions})
            return result

    run_sweep(rows, Predict(), tmp_path, row_index=2)  # before the runs that it takes
    assert "left out, its members are not finished" in capsys.readouterr().out
    results = run_sweep(rows, Predict(), tmp_path)
    both = [result for result in results if result["name"] == "both"]
    assert [result["seed"] for result in both] == [0, 1, 2]
    assert both[0]["accuracy"] == both[0]["eval/accuracy"] == 50  # 0.65, 0.45, 0.45, 0.65
    assert (both[0]["params"], both[0]["fixed"]) == (2 * 1234567, 2 * 640)
    assert "| both" in (tmp_path / "sweep.md").read_text()
    members = [tmp_path / name / "seed0" for name in ("linear", "identity")]
    for runs in ([tmp_path / "both" / "seed0"], [*members, tmp_path / "both" / "seed0"]):
        np.testing.assert_allclose(average(runs)["eval"], average(members)["eval"])


def test_broken_result_names_the_file(tmp_path):
    path = tmp_path / "linear" / "seed0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"accu')
    with pytest.raises(ValueError, match="remove it"):
        run_sweep(make_sweep(), Runs(), tmp_path)


def test_result_without_the_sweep_keys_is_not_finished(tmp_path):
    path = tmp_path / "linear" / "seed0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"eval/accuracy": 98.25, "params": 1234567, "fixed": 640}))
    runs = Runs()
    run_sweep(make_sweep(), runs, tmp_path)
    assert runs.calls[0] == ("linear", 0)
    assert json.loads(path.read_text())["accuracy"] == 98.25


def test_row_that_returns_too_little_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="lacks fixed"):
        run_sweep(make_sweep(), lambda *_: {"accuracy": 1.0, "params": 2}, tmp_path)


ROWS = make_sweep()["rows"]
INVALID = [
    ({"baseline": "cosine"}, "baseline 'cosine'"),
    ({"rows": [ROWS[0], ROWS[0]]}, "row names must differ"),
    ({"seeds": ()}, "lacks seeds"),
    ({"seeds": (1, 1)}, "seeds must differ"),
    ({"rows": []}, "lacks rows"),
    ({"rows": [{"name": "linear"}]}, "needs a name, and overrides or members"),
    (
        {"rows": [{"name": "linear", "members": ("linear",)}]},
        "member 'linear' of sweep row 'linear' is no row before it",
    ),
    ({"rows": [{"name": "../linear", "overrides": {}}]}, "directory's name"),
    ({"rows": [{"name": "linear", "overrides": {"seed": 3}}]}, "overrides seed"),
]


@pytest.mark.parametrize("changes, message", INVALID)
def test_invalid_sweep_runs_nothing(tmp_path, changes, message):
    runs = Runs()
    with pytest.raises(ValueError, match=message):
        run_sweep(make_sweep(**changes), runs, tmp_path)
    assert runs.calls == []


def test_rows_against_numpy():
    linear, identity = sweep_rows(make_sweep(), all_results())
    accuracies = np.array(list(ACCURACIES.values())).reshape(2, 3)
    mean, std = accuracies.mean(axis=1), accuracies.std(axis=1, ddof=1)
    np.testing.assert_allclose([linear["accuracy"], identity["accuracy"]], mean, rtol=1e-12)
    np.testing.assert_allclose([linear["std"], identity["std"]], std, rtol=1e-12)
    np.testing.assert_allclose([linear["gap"], identity["gap"]], mean - mean[0], atol=1e-12)
    assert linear["runs"] == identity["runs"] == 3


def test_gap_is_paired_by_seed_with_its_interval():
    """Against scipy's paired test; a seed that one of the two has not finished is left out."""
    results = all_results() + [{**all_results()[0], "seed": 7, "accuracy": 0.0}]
    _, identity = sweep_rows(make_sweep(seeds=(0, 1, 2, 7)), results)
    accuracies = np.array(list(ACCURACIES.values())).reshape(2, 3)
    interval = stats.ttest_rel(accuracies[1], accuracies[0]).confidence_interval(0.95)
    assert identity["gap"] == pytest.approx(np.mean(accuracies[1] - accuracies[0]))
    assert (identity["gap_low"], identity["gap_high"]) == pytest.approx(tuple(interval))
    _, single = sweep_rows(make_sweep(), all_results()[::3])
    assert single["gap"] == 0.75 and single["gap_low"] is None


def test_table():
    assert sweep_table(make_sweep(), all_results()).splitlines() == [
        "| row      |   trained parameters |   stored fixed parameters |       accuracy (%) |"
        "        gap to linear |",
        "|:---------|---------------------:|--------------------------:|-------------------:|"
        "---------------------:|",
        "| linear   |            1,234,567 |                       640 | 98.22 ± 0.70 (n=3) |"
        "                    - |",
        "| identity |            1,234,567 |                       640 | 98.25 ± 0.66 (n=3) |"
        " +0.03 [-2.07, +2.14] |",
    ]


def test_a_row_may_have_its_own_baseline(tmp_path):
    sweep = make_sweep(rows=[ROWS[0], ROWS[1] | {"baseline": "identity"}])
    lines = sweep_table(sweep, all_results()).splitlines()
    assert "gap to the row's baseline" in lines[0] and lines[3].endswith(" - |")
    with pytest.raises(ValueError, match="sweep baseline 'cosine' is not among the rows"):
        run_sweep(make_sweep(rows=[ROWS[0] | {"baseline": "cosine"}]), Runs(), tmp_path)


def test_table_of_a_part_and_published_column():
    sweep = make_sweep(rows=[ROWS[0], ROWS[1] | {"published": 92.4}])
    first = {"name": "identity", "seed": 0, "accuracy": 99.0, "params": 12, "fixed": 0}
    lines = sweep_table(sweep, [first]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][-1] == "published (%)"
    assert cells[2] == ["linear", "-", "-", "-", "-", "-"]
    assert cells[3] == ["identity", "12", "0", "99.00 (n=1)", "-", "92.40"]
    assert len({len(line) for line in lines}) == 1


def test_a_sweep_may_compare_another_metric(tmp_path, capsys):
    """Also one of an earlier stage, with what else that stage measured beside it."""
    sweep = make_sweep(metric="pretrain/eval/acc")
    results = [
        {
            **result,
            "pretrain/eval/acc": result["accuracy"],
            "pretrain/eval/nmi": 50.0,
            "eval/ami": 1,
        }
        for result in all_results()
    ]
    header = sweep_table(sweep, results).splitlines()[0]
    assert "ACC (%)" in header and "NMI" in header
    assert "accuracy" not in header and "AMI" not in header
    run_sweep(sweep, Runs(), tmp_path)
    assert "linear seed 0 acc 98.25 %" in capsys.readouterr().out


def test_csv_holds_the_unrounded_numbers(tmp_path):
    run_sweep(make_sweep(), Runs(), tmp_path)
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["head"] for row in rows] == ["linear", "identity"]
    assert float(rows[1]["accuracy"]) == pytest.approx(np.mean([99.0, 97.75, 98.0]), rel=1e-12)
    assert rows[0]["published"] == ""
