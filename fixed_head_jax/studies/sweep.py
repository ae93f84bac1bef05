"""Runs the rows of a sweep, seed by seed, and leaves one table."""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fixed_head_jax.display.charts import sweep_chart
from fixed_head_jax.evaluators.predictions import (
    PREDICTIONS_FILE,
    average,
    measure,
    write_predictions,
)
from fixed_head_jax.storage.files import finite_or_none, write_json, write_text
from fixed_head_jax.studies.report import DEFAULT_METRIC, sweep_rows, sweep_table
from fixed_head_jax.studies.time_left import TimeLeft
from fixed_head_jax.training.interval_log import NonFiniteLossError

RESULT_FILE = "result.json"
RUN_KEYS = ("accuracy", "params", "fixed")
DIVERGED = "diverged"  # key of the result of a run whose loss was not finite: why


def run_sweep(
    sweep: Mapping[str, Any],
    run_row: Callable[[dict[str, Any], Path], Mapping[str, Any]],
    workdir: str | os.PathLike,
    is_main: bool = True,
    row_index: int | None = None,
    needed: Sequence[str | os.PathLike] = (),
) -> list[dict[str, Any]]:
    """Runs every row of a sweep with every seed, leaving out the runs that are finished.

    Seeds are the outer loop, so that a sweep stopped early has still compared all heads. A run is
    finished when its directory `workdir/<name>/seed<seed>` holds a result.json with "accuracy",
    "params" and "fixed"; one that was stopped half-way is given to `run_row` again, which resumes
    it. One that diverges is finished too: the others run, and its row says so. After each run
    `sweep.md` and `sweep.csv` in `workdir` hold the table so far, of whatever processes have
    finished; at the end it is printed, and drawn in `sweep.png`. Sweeps that name their table
    differently can share a workdir, and the runs of rows of the same name.

    Args:
        sweep: {"baseline": a row's name, "seeds": integers, "rows": [{"name": directory and table
            name, "overrides": config values by dotted key, "published": accuracy (%) or None,
            "baseline": a row's name, where it is not the sweep's}], "table": stem of the table's
            files (optional), "metric": which of a run's (%) is compared, `DEFAULT_METRIC` if not
            given}. A row may have "members" instead of overrides, names of rows before
            it: it is their ensemble, seed by seed, and needs `save_predictions` in the config.
        run_row: takes the overrides, "seed" among them, and the run's directory; returns at
            least "accuracy" (the metric, %), "params" (trained) and "fixed" (stored fixed
            parameters).
        workdir: the sweep's directory.
        is_main: whether this process writes files and prints; the others run the rows with it.
        row_index: runs this row alone (from 0), so that a job array can share the sweep.
        needed: files in its directory that a run leaves, beside result.json.

    Returns:
        One dict per finished run, seed by seed: "name", "seed" and the run's result; of one that
        diverged "diverged", the reason, with None for the other keys. An accuracy that is not
        finite is None.

    Raises:
        ValueError: the sweep has no such baseline or row, a name twice, no seeds or a key missing.
    """
    check_sweep(sweep, row_index)
    workdir, rows = Path(workdir), sweep["rows"]
    if row_index is not None:
        rows = rows[row_index : row_index + 1]
    total, count = len(sweep["seeds"]) * len(rows), 0
    say = partial(print, flush=True) if is_main else lambda text: None
    left = TimeLeft(total)
    for seed in sweep["seeds"]:
        for row in rows:
            run_dir, count = workdir / row["name"] / f"seed{seed}", count + 1
            result, note = _read_result(run_dir), "finished before"
            if result is None or not _is_whole(run_dir, result, needed):
                say(f"\nsweep run {count}/{total}: {row['name']}, seed {seed}, in {run_dir}")
                result = _finish(row, seed, run_row, workdir, is_main)
                note = left.after(count)
            if result is None:
                left_out = "left out, its members are not finished or diverged"
                say(f"sweep run {count}/{total}: {left_out}")
                continue
            outcome = _outcome(result, _metric_name(sweep), run_dir)
            say(f"sweep run {count}/{total}: {row['name']} seed {seed} {outcome} ({note})")
            if is_main:
                write_tables(sweep, read_results(sweep, workdir), workdir)
    results = read_results(sweep, workdir)
    if is_main:
        chart = workdir / f"{_stem(sweep)}.png"
        sweep_chart(sweep_rows(sweep, results), chart, _metric_name(sweep))
    say("\n" + sweep_table(sweep, results).rstrip())
    return results


def _finish(row, seed, run_row, workdir, is_main):
    """Runs a row with a seed; returns None for an ensemble whose members are not finished."""
    run_dir = workdir / row["name"] / f"seed{seed}"
    if "members" in row:
        result = _ensemble(row, seed, workdir, is_main)
    else:
        try:
            result = dict(run_row({**row["overrides"], "seed": seed}, run_dir))
        except NonFiniteLossError as error:
            result = {**dict.fromkeys(RUN_KEYS), DIVERGED: str(error)}
    if result is not None:
        _check_result(result, run_dir)
        result["accuracy"] = finite_or_none(result["accuracy"])
        if is_main:
            write_json(run_dir / RESULT_FILE, result)
    return result


def _ensemble(
    row: Mapping[str, Any], seed: int, workdir: Path, is_main: bool
) -> dict[str, Any] | None:
    """Makes the ensemble of a row's members; returns None where one of them is not finished."""
    folders = [workdir / name / f"seed{seed}" for name in row["members"]]
    found = [_read_result(folder) for folder in folders]
    results = [result for result in found if result and result["accuracy"] is not None]
    if len(results) < len(folders):
        return None
    predictions = average(folders)
    if is_main:
        folder = workdir / row["name"] / f"seed{seed}"
        write_predictions(folder / PREDICTIONS_FILE, predictions)
    metrics = measure(predictions)
    counts = {key: sum(result[key] for result in results) for key in ("params", "fixed")}
    return {**metrics, **counts, "accuracy": metrics["eval/accuracy"]}


def _is_whole(run_dir, result, needed):
    return DIVERGED in result or all((run_dir / file).exists() for file in needed)


def _outcome(result, metric, run_dir):
    if DIVERGED in result:
        return f"diverged: {result[DIVERGED]}; remove {run_dir} to run it again"
    if result["accuracy"] is None:
        return f"{metric} is not finite"
    return f"{metric} {result['accuracy']:.2f} %"


def read_results(sweep: Mapping[str, Any], workdir: Path) -> list[dict[str, Any]]:
    """Reads the runs that are finished, whichever process ran them: "name", "seed" and result."""
    results = []
    for seed in sweep["seeds"]:
        for row in sweep["rows"]:
            result = _read_result(workdir / row["name"] / f"seed{seed}")
            if result is not None:
                results.append({**result, "name": row["name"], "seed": seed})
    return results


def check_sweep(sweep: Mapping[str, Any], row_index: int | None = None) -> None:
    """Raises ValueError unless the arguments are as `run_sweep` describes them."""
    missing = [key for key in ("baseline", "seeds", "rows") if not sweep.get(key)]
    if missing:
        raise ValueError(f"sweep lacks {', '.join(missing)}; it has {sorted(sweep)}")
    for number, row in enumerate(sweep["rows"]):
        if not row.get("name") or ("overrides" in row) == bool(row.get("members")):
            raise ValueError(f"sweep row {row} needs a name, and overrides or members")
        before = [earlier["name"] for earlier in sweep["rows"][:number]]
        for member in row.get("members", ()):
            if member not in before:
                raise ValueError(
                    f"member {member!r} of sweep row {row['name']!r} is no row before it: {before}"
                )
        if Path(row["name"]).name != row["name"]:
            raise ValueError(f"sweep row name {row['name']!r} must be usable as a directory's name")
        if "seed" in row.get("overrides", {}):
            raise ValueError(f"sweep row {row['name']!r} overrides seed; list it in seeds instead")
    names = [row["name"] for row in sweep["rows"]]
    for argument, values in (("row names", names), ("seeds", list(sweep["seeds"]))):
        if len(set(values)) < len(values):
            raise ValueError(f"sweep {argument} must differ from one another, got {values}")
    for baseline in (sweep["baseline"], *(row.get("baseline") for row in sweep["rows"])):
        if baseline is not None and baseline not in names:
            raise ValueError(f"sweep baseline {baseline!r} is not among the rows {names}")
    if row_index is not None and not 0 <= row_index < len(names):
        raise ValueError(f"sweep_index={row_index} must be a row's number, 0 to {len(names) - 1}")


def write_tables(
    sweep: Mapping[str, Any], results: Sequence[Mapping[str, Any]], workdir: Path
) -> None:
    """Writes `sweep.md` (the table) and `sweep.csv` (its unrounded numbers) under `workdir`."""
    stem = _stem(sweep)
    write_text(workdir / f"{stem}.md", sweep_table(sweep, results))
    rows = sweep_rows(sweep, results)
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(workdir / f"{stem}.csv", text.getvalue())


def _metric_name(sweep: Mapping[str, Any]) -> str:
    return sweep.get("metric", DEFAULT_METRIC).rpartition("/")[2]


def _stem(sweep: Mapping[str, Any]) -> str:
    return sweep.get("table", "sweep")


def _read_result(run_dir: Path) -> dict[str, Any] | None:
    path = run_dir / RESULT_FILE
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); remove it to run the row again") from None
    # train's own result, before the sweep added to it: the row runs again, and ends at once.
    return result if all(key in result for key in RUN_KEYS) else None


def _check_result(result: Mapping[str, Any], run_dir: Path) -> None:
    missing = [key for key in RUN_KEYS if key not in result]
    if missing:
        raise ValueError(f"the result of {run_dir} lacks {', '.join(missing)}: {dict(result)}")
