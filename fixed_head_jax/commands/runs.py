"""One run: trained or gone on with, and measured again."""

import contextlib
import datetime
import importlib.metadata
import platform
import shlex
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fixed_head_jax.configs import common
from fixed_head_jax.optim.transfer import FROM_SCRATCH
from fixed_head_jax.reports import write_report
from fixed_head_jax.reports.page import pictures_of
from fixed_head_jax.storage import workdir as folders
from fixed_head_jax.storage.checkpoint import last_step
from fixed_head_jax.storage.files import write_text
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.trackers import open_trackers


class BadInput(ValueError):
    """The user's mistake, in one line."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Makes what the checks inside it raise the user's mistake."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(error) from error


def train(
    config: ConfigDict, workdir: str | Path, stop_requested: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Trains a config, or goes on with the run that is in the workdir; prints as the program does.

    Args:
        config: of `load_config`; every key of `configs/common.py`.
        workdir: its folder; see README for what it holds afterwards.
        stop_requested: asked after every dispatch; once true, the run saves and raises
            `loop.Stopped`.

    Returns:
        The metrics of the last evaluation, `params` and `fixed`, as in result.json.

    Raises:
        ValueError: on a wrong config, or a folder that holds another run, before anything is
            compiled.
        NonFiniteLossError: if training diverges.
    """
    run = _build(config, Path(workdir))
    is_main = jax.process_index() == 0
    if is_main:
        folders.add_session(workdir, _session(run, last_step(workdir) or 0))
    if is_main and run.groups:
        print(run.groups)
        write_text(Path(workdir) / "groups.md", run.groups)
    result = loop.train(run, workdir, stop_requested)
    if is_main and config.report:
        report(workdir, partial(_track_report, run, Path(workdir), result["step"]))
    return result


def _track_report(run: experiment.Run, workdir: Path, step: int, page: Path) -> None:
    """Gives the report of a run to its trackers."""
    pictures = pictures_of(page.read_text(encoding="utf-8"))
    for tracker in open_trackers(run.config.trackers, workdir, run.record, step):
        with contextlib.closing(tracker):
            tracker.add_page(step, page, pictures)


def report(workdir: str | Path, use: Callable[[Path], None] = lambda page: None) -> None:
    """Writes the report of what has just ended, and says where; a fault in it ends nothing.

    Args:
        workdir: of a run, or of several.
        use: called with the path of the page.
    """
    try:
        page = write_report(workdir)
        print(f"report      {page}", flush=True)
        use(page)
    except Exception as error:  # what was trained is saved, and a sweep goes on
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"report      not finished: {reason}", flush=True)


def _session(run: experiment.Run, step: int) -> dict[str, Any]:
    """Returns what is to be known of this start of a run."""
    names = ("fixed_head_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "step": step,
        "devices": f"{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}",
        "versions": {"python": platform.python_version(), **versions},
    }


def evaluate(
    workdir: str | Path, overrides: Mapping[str, Any] | None = None
) -> dict[int, dict[str, float]]:
    """Measures the best and the last checkpoint of a run again, by the config kept with it.

    Args:
        workdir: of the run.
        overrides: other values of keys that cannot change what a checkpoint gives, such as
            `{"evaluators": ("knn",), "data.eval_split": "validation"}`.

    Returns:
        Step -> metrics, as in `evaluation_<step>.json`, which is written.

    Raises:
        ValueError: if there is no run in the folder, or a value is wrong.
    """
    with user_errors():
        config = common.from_record(folders.read_config(workdir))
        config = common.override(config, dict(overrides or {}))
    return evaluate_config(config, workdir)


def evaluate_config(config: ConfigDict, folder: str | Path) -> dict[int, dict[str, float]]:
    """Measures the kept checkpoints of the run of a config, or the weights it is to start from."""
    has_weights = config.init_from not in ("", FROM_SCRATCH)
    with user_errors():
        is_new = last_step(folder) is None
        trained = {} if has_weights and is_new else folders.read_config(folder)
        run = experiment.build(config, has_weights and is_new, needs_head=True)
        if is_new and not run.initial:
            raise BadInput(f"workdir {str(folder)!r} has no checkpoint yet; train first")
        _claim(run, folder, common.EVALUATION_MAY_DIFFER, is_kept=True)
    split = run.config.data.eval_split
    is_own = split == trained.get("data.eval_split", split)
    return loop.evaluate(run, folder, "" if is_own else "_" + urllib.parse.quote(split, safe=""))


def evaluate_all(folder: Path, overrides: Mapping[str, Any]) -> None:
    """Prints every metric of the runs in a folder: one, or those of stages or of a sweep."""
    with user_errors():
        found = folders.find_runs(folder)
    for run_folder in found:
        name = "" if run_folder == folder else run_folder.relative_to(folder).as_posix()
        print_metrics(name, evaluate(run_folder, overrides))


def report_all(folder: Path) -> None:
    """Writes the reports of the runs in a folder, and that of the folder if they are several."""
    with user_errors():
        found = folders.find_runs(folder)
        for run_folder in dict.fromkeys([*found, folder]):
            print(write_report(run_folder))


def print_metrics(name: str, results: Mapping[int, Mapping[str, float]]) -> None:
    """Prints metrics by step, a line each, behind the name of their run."""
    for step, metrics in results.items():
        for metric, value in metrics.items():
            print(f"{name} step {step:,} {metric} {value:.6g}".lstrip())


def _build(config, folder):
    """Checks the config and claims its folder for training, before anything is compiled."""
    with user_errors():
        step = last_step(folder)
        run = experiment.build(config, read_weights=step is None)
        # What a stage starts from is in its plan: the folder of all stages may move.
        may_differ = (*common.may_differ(config), *(("init_from",) if step is not None else ()))
        if step is not None and step > run.total_steps:
            raise BadInput(
                f"workdir {str(folder)!r} holds step {step:,} of a run that is to end at step "
                f"{run.total_steps:,}; raise total_epochs or total_steps"
            )
        _claim(run, folder, may_differ, why_not=common.why_not(config))
    return run


def _claim(run, folder, may_differ, **options):
    """Claims a folder for a run; keys that an older version's record lacks had their defaults."""
    keys = common.KEYS
    data = {key: run.record[key] for key in run.record if key not in keys}
    assumed = {**{name: key.default for name, key in keys.items()}, **data}
    folders.claim(folder, run.record, may_differ, assumed=assumed, **options)
