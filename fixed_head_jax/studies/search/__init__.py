"""Searches the dials of transfer, each trial guided by those before it, and leaves a report."""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fixed_head_jax.storage.files import finite_or_none
from fixed_head_jax.studies.search.study import (
    DATABASE,
    LOCK,
    LOCKS,
    claim,
    load_optuna,
    lock,
    open_study,
    trial_folder,
)
from fixed_head_jax.studies.search.summary import PROBES, difference, search_report, write_summary
from fixed_head_jax.studies.time_left import TimeLeft
from fixed_head_jax.training.interval_log import NonFiniteLossError

KEYS = ("space", "overrides", "splits", "probes", "starts")

RunTrial = Callable[[dict[str, Any], Path], Mapping[str, Any]]


def run_search(
    search: Mapping[str, Any],
    run_trial: RunTrial,
    workdir: str | os.PathLike,
    budget: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Looks for the dials of the highest validation accuracy, going on with what is in `workdir`.

    First come two probes, which measure the paper's rule of thumb (accuracy trained from scratch
    minus that of a classifier on frozen pre-trained features), then the starts that it suggests,
    then what Optuna's TPE draws. Any number of processes may share a workdir. A trial belongs to
    the process that holds its lock file; whatever way that process ends, the system frees the
    lock, and the next one to look for work goes on with that trial, its dials and its folder.

    Args:
        search: {"space": dial -> {"choices": values} or {"low", "high", "log" (optional)},
            "overrides": dials' values by name -> config values by dotted key, "splits": config
            values of all runs, which hold out the images to tune on, "probes": {"scratch": config
            values, "frozen": config values}, "starts": the probes' difference (points) -> list of
            dials' values to try first}.
        run_trial: takes config values and a folder, trains there or goes on with it and returns at
            least "accuracy" (validation, %). A trial that raises NonFiniteLossError has diverged,
            and counts; all else that it raises ends the search, to be taken up by the next call.
        workdir: folder of `search.db`, of the reports search.md, search.json and search.png, and of
            the runs probes/<name> and trials/<number>.
        budget: trials in all, diverged ones included, whichever process runs them.
        seed: of the sampler.

    Returns:
        "best" ("number", "accuracy", "dials", "overrides", "folder"; None without one), "probes",
        "difference", "importances" (share of each dial, {} below `MIN_COMPLETE` trials) and
        "trials", as search.json holds it.

    Raises:
        ValueError: as `check_search` says, or a run returns no accuracy.
        NonFiniteLossError: a probe diverged; there is nothing to take the rule of thumb from.
    """
    workdir = Path(workdir)
    check_search(search, workdir, budget)
    study = open_study(search["space"], workdir)
    _run_probes(search, run_trial, study, workdir)
    with lock(workdir / LOCK):
        if "starts" not in study.user_attrs:
            starts = [dict(start) for start in search["starts"](difference(study))]
            _check_starts(search["space"], starts)
            for start in starts:
                study.enqueue_trial(start, skip_if_exists=True)
            study.set_user_attr("starts", starts)
    left = TimeLeft(budget)
    while _run_next(search, run_trial, study, workdir, budget, seed, left):
        pass
    with lock(workdir / LOCK):
        summary = write_summary(search, study, workdir)
    print("\n" + search_report(summary).rstrip())
    if len(summary["trials"]) < budget:
        print(f"other processes run what is left of {budget} trials", flush=True)
    return summary


def check_search(search: Mapping[str, Any], workdir: str | os.PathLike, budget: int) -> None:
    """Raises ValueError unless the arguments are as `run_search` describes them.

    Also where Optuna is missing, or `workdir` holds the search of another space.
    """
    if budget < 1:
        raise ValueError(f"budget={budget} must be at least 1, the number of trials in all")
    if set(search) != set(KEYS):
        raise ValueError(f"search needs the keys {', '.join(KEYS)}; it has {', '.join(search)}")
    if set(search["probes"]) != set(PROBES):
        raise ValueError(
            f"search probes must be {', '.join(PROBES)}; they are {', '.join(search['probes'])}"
        )
    if not search["space"]:
        raise ValueError("search space is empty; give at least one dial its choices or its range")
    for name, dial in search["space"].items():
        _check_dial(name, dial)
    for points in (-10.0, 10.0):  # a mistake in the starts shows before the probes are run
        _check_starts(search["space"], search["starts"](points))
    load_optuna()
    if (Path(workdir) / DATABASE).exists():
        open_study(search["space"], Path(workdir))


def _check_dial(name, dial):
    if set(dial) == {"choices"}:
        choices = dial["choices"]
        if not choices or any(not isinstance(each, str | int | float | None) for each in choices):
            raise ValueError(f"search dial {name!r} has choices {choices}; give plain values")
        if len(set(choices)) < len(choices):
            raise ValueError(f"search dial {name!r} has choices {choices}; give each one once")
    elif set(dial) - {"log"} != {"low", "high"}:
        raise ValueError(f"search dial {name!r} is {dict(dial)}; give choices, or low and high")
    elif not dial["low"] < dial["high"] or not all(math.isfinite(dial[k]) for k in ("low", "high")):
        raise ValueError(f"search dial {name!r} is {dict(dial)}; low must be less than high")
    elif dial.get("log") and dial["low"] <= 0:
        raise ValueError(f"search dial {name!r} is {dict(dial)}; with log, low must be above 0")


def _check_starts(space, starts):
    for start in starts:
        if set(start) != set(space):
            raise ValueError(f"search start {dict(start)} must set the dials {', '.join(space)}")
        for name, dial in space.items():
            choices = dial.get("choices")
            value = start[name]
            if value not in choices if choices else not dial["low"] <= value <= dial["high"]:
                raise ValueError(f"search start has {name}={value!r}, which is not in {dict(dial)}")


def _run_probes(search, run_trial, study, workdir):
    """Runs the probes that no process has run; waits for those that others are running."""
    for wait in (False, True):
        for name in PROBES:
            folder = workdir / "probes" / name
            with lock(workdir / LOCKS / name, wait) as is_mine:
                if name in study.user_attrs:
                    continue
                if not is_mine:
                    print(f"search probe {name}: another process runs it", flush=True)
                    continue
                print(f"search probe {name}: {folder}", flush=True)
                values = {**search["splits"], **search["probes"][name]}
                accuracy = _accuracy(run_trial(values, folder), folder)
                with lock(workdir / LOCK):
                    study.set_user_attr(name, accuracy)
            print(f"search probe {name}: accuracy {accuracy:.2f} %", flush=True)


def _accuracy(metrics, folder):
    accuracy = metrics.get("accuracy")
    if accuracy is None or not math.isfinite(accuracy):
        raise ValueError(f"the result of {folder} needs a finite accuracy: {dict(metrics)}")
    return float(accuracy)


def _run_next(search, run_trial, study, workdir, budget, seed, left):
    """Runs a trial, or goes on with one; returns False where this process has no more to do."""
    with contextlib.ExitStack() as held:
        trial = claim(search["space"], study, workdir, budget, seed, held)
        if trial is None:
            return False
        title = f"search trial {trial.number + 1}/{budget}"
        folder = workdir / trial_folder(trial.number)
        print(f"{title}: {folder}", flush=True)
        dials = {name: trial.params[name] for name in search["space"]}
        reason = None
        try:
            metrics = run_trial({**search["splits"], **search["overrides"](dials)}, folder)
            if finite_or_none(metrics.get("accuracy", 0.0)) is None:
                reason = "its accuracy is not finite"
        except NonFiniteLossError as error:
            reason = str(error) or "its loss is not finite"
        with lock(workdir / LOCK):
            if reason is None:
                study.tell(trial, _accuracy(metrics, folder))
            else:
                trial.set_user_attr("reason", reason)
                study.tell(trial, state=load_optuna().trial.TrialState.PRUNED)
            summary = write_summary(search, study, workdir)
    result = f"diverged: {reason}" if reason else f"accuracy {_accuracy(metrics, folder):.2f} %"
    best = summary["best"]
    so_far = f" (best {best['accuracy']:.2f} %, trial {best['number']})" if best else ""
    print(f"{title}: {result}{so_far} ({left.after(trial.number + 1)})", flush=True)
    return True
