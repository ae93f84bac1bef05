"""What a search found: a summary as JSON, a report as Markdown and a chart."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixed_head_jax.display.charts import search_chart
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.storage.files import write_json, write_text
from fixed_head_jax.studies.search.study import finished, importances, trial_folder

PROBES = {"scratch": "trained from scratch", "frozen": "classifier on frozen features"}
MIN_COMPLETE = 4  # trials that importances are taken from


def difference(study: Any) -> float:
    """Returns the rule of thumb: accuracy from scratch minus that on frozen features, in points."""
    return study.user_attrs["scratch"] - study.user_attrs["frozen"]


def write_summary(search: Mapping[str, Any], study: Any, workdir: Path) -> dict[str, Any]:
    """Writes search.md, search.json and search.png; returns what the second one holds."""
    trials = [
        {
            "number": trial.number,
            "state": "complete" if trial.state.name == "COMPLETE" else "diverged",
            "accuracy": trial.value,
            "dials": {name: trial.params[name] for name in search["space"]},
            "reason": trial.user_attrs.get("reason"),
        }
        for trial in finished(study.get_trials(deepcopy=False))
    ]
    complete, best = [trial for trial in trials if trial["state"] == "complete"], None
    if complete:
        highest = max(complete, key=lambda trial: trial["accuracy"])
        best = {key: highest[key] for key in ("number", "accuracy", "dials")}
        best["folder"] = trial_folder(best["number"])
        best["overrides"] = dict(search["overrides"](best["dials"]))
    summary = {
        "best": best,
        "probes": {name: study.user_attrs[name] for name in PROBES},
        "difference": difference(study),
        "importances": importances(study) if len(complete) >= MIN_COMPLETE else {},
        "trials": trials,
    }
    summary = json.loads(json.dumps(summary))  # as a reader of the file gets it
    write_json(workdir / "search.json", summary)
    write_text(workdir / "search.md", search_report(summary))
    accuracies = {trial["number"]: trial["accuracy"] for trial in trials}
    probes = {name: value for name, value in summary["probes"].items() if value is not None}
    search_chart(accuracies, summary["importances"], workdir / "search.png", probes)
    return summary


def search_report(summary: Mapping[str, Any]) -> str:
    """Formats a search as Markdown: the rule of thumb, the best trial, and all trials.

    Args:
        summary: of `run_search`.

    Returns:
        The text, its lines ended by newlines.
    """
    cells = [["rule of thumb", "validation accuracy (%)"]]
    cells += [[PROBES[name], f"{accuracy:.2f}"] for name, accuracy in summary["probes"].items()]
    cells.append(["difference", f"{summary['difference']:+.2f}"])
    advice = (
        "Negative: the pre-trained features suit the data. Pull to them (L2-SP), and consider "
        "drawing more layers anew.\n"
        if summary["difference"] < 0
        else "Not negative: the pre-trained features suit the data badly. Leave L2-SP out, with "
        "ordinary weight decay.\n"
    )
    parts = [markdown(cells), advice]
    if summary["best"]:
        parts.append(_best_text(summary["best"], summary["importances"]))
    parts.append(_trials_text(summary["trials"]))
    return "\n".join(parts)


def _best_text(best, importances):
    dials = sorted(best["dials"], key=lambda name: -importances.get(name, 0.0))
    shares = {name: f"{share:.2f}" for name, share in importances.items()}
    cells = [["dial", "best", "importance"]]
    cells += [[name, _text(best["dials"][name]), shares.get(name, "-")] for name in dials]
    flags = " ".join(
        # A config has tuples, of which JSON made lists.
        shlex.quote(f"--config.{key}={tuple(value) if isinstance(value, list) else value}")
        for key, value in best["overrides"].items()
        if value is not None  # which a config has where nothing sets it
    )
    return (
        f"Best: trial {best['number']}, {best['accuracy']:.2f} %, in {best['folder']}\n\n"
        f"{markdown(cells)}\nOn the command line:\n\n    {flags}\n"
    )


def _trials_text(trials):
    """Returns the table of trials, the best first, and why those that diverged did."""
    if not trials:
        return "No trial has finished yet.\n"
    complete = [trial for trial in trials if trial["state"] == "complete"]
    diverged = [trial for trial in trials if trial["state"] == "diverged"]
    ranked = sorted(complete, key=lambda trial: -trial["accuracy"]) + diverged
    cells = [["trial", "accuracy (%)", "state", *trials[0]["dials"]]]
    for trial in ranked:
        accuracy = f"{trial['accuracy']:.2f}" if trial in complete else "-"
        dials = map(_text, trial["dials"].values())
        cells.append([str(trial["number"]), accuracy, trial["state"], *dials])
    reasons = [f"\nTrial {t['number']} diverged: {t['reason']}\n" for t in diverged]
    return markdown(cells) + "".join(reasons)


def _text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
