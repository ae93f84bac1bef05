"""A search's study: Optuna's database of trials, shared by processes through file locks.

A trial belongs to the process that holds its lock file. Whatever way that process ends, the system
frees the lock, and the next one to look for work goes on with that trial, its dials and its folder.
"""

import contextlib
import json
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# The locks have a folder of their own: whoever lists probes or trials finds runs alone.
DATABASE, LOCKS = "search.db", "locks"
LOCK = f"{LOCKS}/search"
STARTUP_TRIALS = 6  # drawn at random, the starts among them, before the sampler draws on them


def load_optuna() -> Any:
    """Imports Optuna; raises ValueError if it is missing."""
    try:
        import optuna
    except ImportError:
        raise ValueError("--mode=search needs Optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextlib.contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock that the system frees when this process ends; yields whether it was free.

    Like SQLite it needs a file system, or a network's, that has file locks.
    """
    import fcntl  # here, as Windows has none and the rest of the package works there

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        is_mine = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_mine = False
        yield is_mine


def open_study(space: Mapping[str, Any], workdir: Path) -> Any:
    """Returns the study in `workdir`, a new one if there is none.

    Raises:
        ValueError: if it is a study of another space, or Optuna is missing.
    """
    optuna = load_optuna()
    from sqlalchemy.pool import NullPool

    # A path in a URL would end at its first "?"; connections are closed at once: a process that
    # a run forks must not inherit one.
    connect = partial(sqlite3.connect, str((workdir / DATABASE).absolute()), timeout=60)
    engine = {"creator": connect, "poolclass": NullPool}
    with lock(workdir / LOCK):
        storage = optuna.storages.RDBStorage("sqlite://", engine)
        study = optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True
        )
        here = json.loads(json.dumps({name: dict(dial) for name, dial in space.items()}))
        if "space" not in study.user_attrs:
            study.set_user_attr("space", here)
        there = study.user_attrs["space"]
    differing = [
        f"{name} ({there.get(name)} there, {here.get(name)} here)"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise ValueError(
            f"workdir {str(workdir)!r} holds the search of another space: {'; '.join(differing)}; "
            "choose another workdir"
        )
    return study


def claim(
    space: Mapping[str, Any],
    study: Any,
    workdir: Path,
    budget: int,
    seed: int,
    held: contextlib.ExitStack,
) -> Any:
    """Returns a trial that is this process's while `held` is open, None where none is left."""
    optuna = load_optuna()
    with lock(workdir / LOCK):
        trials = study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state.name == "RUNNING"]
        num_finished = len(finished(trials))
        if num_finished >= budget:
            return None
        for left in running:  # by another process, unless that one has ended
            if held.enter_context(lock(_trial_lock(workdir, left.number), wait=False)):
                study.sampler = _sampler(seed, left.number)
                trial = optuna.trial.Trial(study, left._trial_id)
                break
        else:
            if num_finished + len(running) >= budget:
                return None
            study.sampler = _sampler(seed, len(trials))
            trial = study.ask()
            held.enter_context(lock(_trial_lock(workdir, trial.number)))
        for name, dial in space.items():  # what the trial has already stays as it is
            if "choices" in dial:
                trial.suggest_categorical(name, dial["choices"])
            else:
                trial.suggest_float(name, dial["low"], dial["high"], log=dial.get("log", False))
    return trial


def _sampler(seed, number):
    """Returns a sampler whose draws belong to the trial's number.

    So no two processes draw the same point, and a resumed search draws what it would have drawn.
    """
    optuna = load_optuna()
    with warnings.catch_warnings():  # both options were experimental before Optuna 5
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS,
            multivariate=True,
            constant_liar=True,
            seed=(1000 * seed + number) % 2**32,
        )


def _trial_lock(workdir, number):
    return workdir / LOCKS / f"{number:04d}"


def trial_folder(number: int) -> str:
    """Returns the folder of a trial, in that of the search."""
    return f"trials/{number:04d}"


def finished(trials: list) -> list:
    """Returns the trials that count in the budget: complete ones and those that diverged."""
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]


def importances(study: Any) -> dict[str, float]:
    """Returns every dial's share of the accuracies' variance, {} where they are all the same."""
    importance = load_optuna().importance
    try:
        return importance.get_param_importances(
            study, evaluator=importance.FanovaImportanceEvaluator(seed=0)
        )
    except RuntimeError:  # all accuracies are the same
        return {}
