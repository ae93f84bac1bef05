"""Runs the rows of a sweep, seed by seed, and leaves one table."""

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fixed_head_jax.report import sweep_rows, sweep_table

RESULT_FILE = "result.json"
RUN_KEYS = ("accuracy", "params", "fixed")


def run_sweep(
    sweep: Mapping[str, Any],
    run_row: Callable[[dict[str, Any], Path], Mapping[str, Any]],
    workdir: str | os.PathLike,
    is_main: bool = True,
) -> list[dict[str, Any]]:
    """Runs every row of a sweep with every seed, leaving out the runs that are finished.

    Seeds are the outer loop, so that a sweep stopped early has still compared all heads. A run is
    finished when its directory `workdir/<name>/seed<seed>` holds a result.json with "accuracy",
    "params" and "fixed"; one that was stopped half-way is given to `run_row` again, which resumes
    it. After each run `sweep.md` and `sweep.csv` in `workdir` hold the table so far; at the end it
    is printed.

    Args:
        sweep: {"baseline": a row's name, "seeds": integers, "rows": [{"name": directory and table
            name, "overrides": config values by dotted key, "published": accuracy (%) or None}]}.
        run_row: takes the overrides, "seed" among them, and the run's directory; returns at
            least "accuracy" (test, %), "params" (trained) and "fixed" (stored fixed parameters).
        workdir: the sweep's directory.
        is_main: whether this process writes files and prints; the others run the rows with it.

    Returns:
        One dict per run, in the order run: "name", "seed" and the run's result.

    Raises:
        ValueError: the sweep has no such baseline, a name twice, no seeds or a key missing.
    """
    check_sweep(sweep)
    workdir = Path(workdir)
    total = len(sweep["seeds"]) * len(sweep["rows"])
    results: list[dict[str, Any]] = []
    say = partial(print, flush=True) if is_main else lambda text: None
    for seed in sweep["seeds"]:
        for row in sweep["rows"]:
            run_dir = workdir / row["name"] / f"seed{seed}"
            result = _read_result(run_dir)
            note = "finished before"
            if result is None:
                say(f"sweep run {len(results) + 1}/{total}: {run_dir}")
                result = dict(run_row({**row["overrides"], "seed": seed}, run_dir))
                _check_result(result, run_dir)
                if is_main:
                    _write(run_dir / RESULT_FILE, json.dumps(result, indent=2) + "\n")
                note = "done"
            results.append({**result, "name": row["name"], "seed": seed})
            say(
                f"sweep run {len(results)}/{total}: {row['name']} seed {seed} "
                f"accuracy {result['accuracy']:.2f} % ({note})"
            )
            if is_main:
                write_tables(sweep, results, workdir)
    say("\n" + sweep_table(sweep, results).rstrip())
    return results


def check_sweep(sweep: Mapping[str, Any]) -> None:
    """Raises ValueError unless `sweep` is as `run_sweep` describes it."""
    missing = [key for key in ("baseline", "seeds", "rows") if not sweep.get(key)]
    if missing:
        raise ValueError(f"sweep lacks {', '.join(missing)}; it has {sorted(sweep)}")
    for row in sweep["rows"]:
        if not row.get("name") or "overrides" not in row:
            raise ValueError(f"sweep row {row} needs a name and overrides")
        if Path(row["name"]).name != row["name"]:
            raise ValueError(f"sweep row name {row['name']!r} must be usable as a directory's name")
        if "seed" in row["overrides"]:
            raise ValueError(f"sweep row {row['name']!r} overrides seed; list it in seeds instead")
    names = [row["name"] for row in sweep["rows"]]
    for argument, values in (("row names", names), ("seeds", list(sweep["seeds"]))):
        if len(set(values)) < len(values):
            raise ValueError(f"sweep {argument} must differ from one another, got {values}")
    if sweep["baseline"] not in names:
        raise ValueError(f"sweep baseline {sweep['baseline']!r} is not among the rows {names}")


def write_tables(
    sweep: Mapping[str, Any], results: Sequence[Mapping[str, Any]], workdir: Path
) -> None:
    """Writes `sweep.md` (the table) and `sweep.csv` (its unrounded numbers) under `workdir`."""
    _write(workdir / "sweep.md", sweep_table(sweep, results))
    rows = sweep_rows(sweep, results)
    partial = workdir / "sweep.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    os.replace(partial, workdir / "sweep.csv")


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


def _write(path: Path, text: str) -> None:
    """Writes a file so that a killed process leaves the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
