"""Tables of results: rows side by side, published next to measured."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtrit

from fixed_head_jax.display.tables import markdown

COLUMNS = {
    "head": "row",
    "params": "trained parameters",
    "fixed": "stored fixed parameters",
    "accuracy": "accuracy (%)",
    "gap": "gap to {baseline}",
    "published": "published (%)",
}


DEFAULT_METRIC = "eval/accuracy"


# What else evaluators measure, in percent: of groups of classes, of clusters and of features.
MORE_COLUMNS = {
    "accuracy_many": "many-shot",
    "accuracy_medium": "medium-shot",
    "accuracy_few": "few-shot",
    "balanced_accuracy": "mean over classes",
    "nmi": "NMI",
    "ami": "AMI",
    "ari": "ARI",
    "acc": "ACC",
    "knn_20": "20-NN",
    "probe_accuracy": "linear probe",
}


STAGE_COLUMNS = {"accuracy": COLUMNS["accuracy"], **MORE_COLUMNS}


def sweep_rows(
    sweep: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Summarises the finished runs of a sweep, one dict per row of the sweep.

    Args:
        sweep: "baseline", "seeds" and "rows", see `sweep.run_sweep`.
        results: one dict per finished run with "name", "seed", "accuracy" (%), "params", "fixed",
            and "diverged" where it did. An accuracy of None is left out of all means.

    Returns:
        Per row: "head", "baseline" (the row's own, or the sweep's), "params", "fixed", "accuracy"
        (mean over seeds, %), "std" (sample standard deviation), "runs" (how many seeds),
        "diverged" and "null" (how many more did, or have an accuracy that is not finite), "gap"
        (mean over the shared seeds of the difference to the baseline), "gap_low" and "gap_high"
        (its 95 % interval, by Student's t over these pairs), "published", and the means over
        seeds of the `MORE_COLUMNS` that the results have beside the sweep's metric. None stands
        for what is not known: all of a row without runs, the spread of a single run.
    """
    prefix, _, metric = sweep.get("metric", DEFAULT_METRIC).rpartition("/")
    more = [
        name
        for name in MORE_COLUMNS
        if name != metric and any(f"{prefix}/{name}" in result for result in results)
    ]
    accuracies: dict[str, dict[int, float]] = {row["name"]: {} for row in sweep["rows"]}
    for result in results:
        if result["accuracy"] is not None:
            accuracies[result["name"]][result["seed"]] = result["accuracy"]
    rows = []
    for row in sweep["rows"]:
        each, baseline_name = accuracies[row["name"]], row.get("baseline", sweep["baseline"])
        baseline = accuracies[baseline_name]
        every = [result for result in results if result["name"] == row["name"]]
        here = [result for result in every if result["accuracy"] is not None]
        num_diverged = sum("diverged" in result for result in every)
        first = next((result for result in every if "diverged" not in result), {})
        gaps = [accuracy - baseline[seed] for seed, accuracy in each.items() if seed in baseline]
        low, high = _interval(gaps)
        rows.append(
            {
                "head": row["name"],
                "baseline": baseline_name,
                "params": first.get("params"),
                "fixed": first.get("fixed"),
                "accuracy": statistics.fmean(each.values()) if each else None,
                "std": statistics.stdev(each.values()) if len(each) > 1 else None,
                "runs": len(each),
                "diverged": num_diverged,
                "null": len(every) - len(here) - num_diverged,
                "gap": statistics.fmean(gaps) if gaps else None,
                "gap_low": low,
                "gap_high": high,
                "published": row.get("published"),
                **{name: _mean(result.get(f"{prefix}/{name}") for result in here) for name in more},
            }
        )
    return rows


def _mean(values):
    """Returns the mean, or None where there is nothing or a value is missing."""
    values = list(values)
    return statistics.fmean(values) if values and None not in values else None


def _interval(values):
    """Returns the 95 % interval of the mean of `values`, or (None, None) below two values."""
    if len(values) < 2:
        return None, None
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    reach = error * float(stdtrit(len(values) - 1, 0.975))
    return mean - reach, mean + reach


def sweep_table(sweep: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Formats the finished runs of a sweep as an aligned Markdown table.

    The accuracy, on the split that the runs were evaluated on, is the mean over seeds with the
    sample standard deviation and the number of runs; the gap is the mean difference to the baseline
    under the same seeds, with its 95 % interval in brackets. Runs that diverged, or whose accuracy
    is null, are counted beside. The published column is there if a row has one.

    Args:
        sweep: "baseline", "seeds" and "rows", see `sweep.run_sweep`.
        results: one dict per finished run with "name", "seed", "accuracy" (%), "params", "fixed".

    Returns:
        The table, its lines ended by newlines.
    """
    rows = sweep_rows(sweep, results)
    own = any("baseline" in row for row in sweep["rows"])
    baseline = "the row's baseline" if own else sweep["baseline"]
    metric = sweep.get("metric", DEFAULT_METRIC).rpartition("/")[2]
    columns = dict(COLUMNS, gap=COLUMNS["gap"].format(baseline=baseline))
    columns["accuracy"] = f"{STAGE_COLUMNS.get(metric, metric).removesuffix(' (%)')} (%)"
    if all(row["published"] is None for row in rows):
        del columns["published"]
    more = {name: MORE_COLUMNS[name] for name in rows[0] if name in MORE_COLUMNS}
    columns |= more
    cells = [list(columns.values())]
    for row in rows:
        text = {
            "head": row["head"],
            "params": _number(row["params"], ",d"),
            "fixed": _number(row["fixed"], ",d"),
            "accuracy": _accuracy(row),
            "gap": "-" if row["head"] == row["baseline"] else _gap(row),
            "published": _number(row["published"], ".2f"),
            **{name: _number(row[name], ".2f") for name in more},
        }
        cells.append([text[column] for column in columns])
    return markdown(cells)


def stage_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Formats what the stages of a run reached as an aligned Markdown table.

    Args:
        results: stage -> metrics; "eval/accuracy" and "eval/<method>/accuracy" each make a row,
            and with them what else `STAGE_COLUMNS` names.

    Returns:
        The table, its lines ended by newlines.
    """
    rows: dict[str, dict] = {}
    for stage, metrics in results.items():
        for key, value in metrics.items():
            group, _, metric = key.rpartition("/")
            if metric in STAGE_COLUMNS and group.partition("/")[0] == "eval":
                method = group.partition("/")[2]
                rows.setdefault(f"{stage}, {method}" if method else stage, {})[metric] = value
    shown = [name for name in STAGE_COLUMNS if any(name in row for row in rows.values())]
    cells = [["stage", *(STAGE_COLUMNS[name] for name in shown)]]
    cells += [[row, *(_number(rows[row].get(name), ".2f") for name in shown)] for row in rows]
    return markdown(cells)


def _number(value: float | int | None, spec: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, spec)


def _gap(row: Mapping[str, Any]) -> str:
    if row["gap"] is None:
        return "-"
    gap = f"{round(row['gap'], 2) + 0.0:+.2f}"  # + 0.0: never -0.00
    if row["gap_low"] is None:
        return gap
    return f"{gap} [{row['gap_low']:+.2f}, {row['gap_high']:+.2f}]"


def _accuracy(row: Mapping[str, Any]) -> str:
    failed = [f"{row[key]} {key}" for key in ("diverged", "null") if row[key]]
    if row["accuracy"] is None:
        return ", ".join(failed) or "-"
    spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
    counts = ", ".join([f"n={row['runs']}", *failed])
    return f"{row['accuracy']:.2f}{spread} ({counts})"
