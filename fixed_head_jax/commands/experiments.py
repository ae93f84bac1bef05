"""An experiment: a config with the stages, sweeps and searches that its file lists."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fixed_head_jax.commands import runs
from fixed_head_jax.commands.runs import BadInput, user_errors
from fixed_head_jax.configs import load_file
from fixed_head_jax.configs.common import MAY_DIFFER, override
from fixed_head_jax.evaluators.predictions import PREDICTIONS_FILE
from fixed_head_jax.settings.schema import flatten
from fixed_head_jax.storage import workdir
from fixed_head_jax.studies import search, stages, sweep
from fixed_head_jax.training.experiment import build
from fixed_head_jax.training.interval_log import NonFiniteLossError


class Experiment(NamedTuple):
    """A config and what its file lists.

    Attributes:
        config: as the command line left it.
        name: of the config, with its variant: "digits:hadamard".
        listed: name of a function of the file -> what it gives for the variant; None without it.
        stop_requested: see `runs.train`.
    """

    config: ConfigDict
    name: str
    listed: Callable[[str], Any]
    stop_requested: Callable[[], bool]


def read(config: ConfigDict, file: str, stop_requested: Callable[[], bool]) -> Experiment:
    """Reads the file of a config, "path.py" or "path.py:variant"."""
    module, variant = load_file(file)

    def listed(function):
        with user_errors():
            return getattr(module, function, lambda variant: None)(variant)

    name = ":".join(filter(None, (Path(file.partition(":")[0]).stem, variant)))
    return Experiment(config, name, listed, stop_requested)


def train(experiment: Experiment, folder: Path) -> Mapping[str, Any]:
    """Trains every stage of an experiment, or the config itself where it has none."""
    plan = _plan_stages(experiment, folder)
    if plan is None:
        return runs.train(experiment.config, folder, experiment.stop_requested)
    with user_errors():
        configs = _check_stages(experiment.config, plan)
        workdir.claim(folder, _flatten_all(experiment.config, plan), MAY_DIFFER)

    def run_stage(stage):
        return runs.train(configs[stage.name], stage.folder, experiment.stop_requested)

    result = stages.run_stages(plan, run_stage, folder, _is_main())
    _report(experiment, folder)
    return result


def evaluate(experiment: Experiment, folder: Path) -> None:
    """Prints every metric of the kept checkpoints of an experiment, stage by stage.

    Without a checkpoint, those of the weights that `init_from` names.
    """
    for stage in _plan_stages(experiment, folder) or [_the_run(folder)]:
        with user_errors():
            config = override(experiment.config, stage.overrides)
        runs.print_metrics(stage.name, runs.evaluate_config(config, stage.folder))


def run_sweep(experiment: Experiment, folder: Path, row_index: int | None) -> None:
    """Runs the rows that the config's file lists, or one, each in a folder of its own."""
    rows = experiment.listed("get_sweep")
    if rows is None:
        raise BadInput(f"{experiment.name} has no get_sweep(); omit --sweep")
    run_rows(experiment, folder, rows, row_index)


def run_seeds(experiment: Experiment, folder: Path, count: int) -> None:
    """Trains a config with several seeds, from its own on, and leaves the table of a sweep."""
    first, name = experiment.config.seed, experiment.name.replace(":", "_").replace(",", "_")
    row: dict[str, Any] = {"name": name, "overrides": {}, "published": None}
    rows = {"baseline": name, "seeds": tuple(range(first, first + count)), "rows": [row]}
    run_rows(experiment, folder, rows)


def run_rows(
    experiment: Experiment, folder: Path, rows: Mapping[str, Any], row_index: int | None = None
) -> None:
    """Runs a sweep, see `sweep.run_sweep`; raises NonFiniteLossError at the end if a run did."""
    with user_errors():
        sweep.check_sweep(rows, row_index)
        has_ensembles = any("members" in row for row in rows["rows"])
        if has_ensembles and not experiment.config.save_predictions:
            raise BadInput("the sweep has ensembles; they need --config.save_predictions=True")
        plan = _plan_stages(experiment, folder) or []
        chosen = rows["rows"] if row_index is None else rows["rows"][row_index : row_index + 1]
        _check_rows(experiment.config, chosen, rows["seeds"], plan)
        workdir.claim(folder, _flatten_all(experiment.config, plan), MAY_DIFFER)

    def run_row(overrides, row_folder):
        row = override(experiment.config, overrides)
        result = train(experiment._replace(config=row), row_folder)
        metric = rows.get("metric", sweep.DEFAULT_METRIC)
        if metric not in result:
            raise BadInput(f"the sweep's metric {metric!r} is none of a run: {', '.join(result)}")
        return {**result, "accuracy": result[metric]}

    predictions = Path(plan[-1].name if plan else "") / PREDICTIONS_FILE
    results = sweep.run_sweep(
        rows, run_row, folder, _is_main(), row_index,
        [predictions] if experiment.config.save_predictions else [],
    )  # fmt: skip
    _report(experiment, folder)
    diverged = [f"{run['name']} seed {run['seed']}" for run in results if sweep.DIVERGED in run]
    if diverged:
        raise NonFiniteLossError(f"runs of the sweep that diverged: {', '.join(diverged)}")


def run_search(experiment: Experiment, folder: Path, budget: int) -> None:
    """Searches the dials that the config's file lists, every trial in a folder of its own."""
    dials, config = experiment.listed("get_search"), experiment.config
    if dials is None:
        raise BadInput(f"{experiment.name} has no get_search(); nothing to search")
    if jax.process_count() > 1:
        raise BadInput("--mode=search takes no --distributed; start it several times instead")
    with user_errors():
        search.check_search(dials, folder, budget)
        for overrides in dials["probes"].values():  # a mistake shows before the first trial
            build(override(config, {**dials["splits"], **overrides}))
        workdir.claim(folder, flatten(config), MAY_DIFFER)

    def run_trial(overrides, trial_folder):
        trial = experiment._replace(config=override(config, overrides))
        result = train(trial, trial_folder)
        return {**result, "accuracy": result["eval/accuracy"]}

    search.run_search(dials, run_trial, folder, budget, config.seed)
    _report(experiment, folder)


def _report(experiment: Experiment, folder: Path) -> None:
    """Writes the report of several runs, if the config asks for it."""
    if experiment.config.report and _is_main():
        runs.report(folder)


def _check_rows(
    config: ConfigDict, rows: Sequence[Mapping], seeds: Sequence[int], plan: Sequence[stages.Stage]
) -> None:
    """Raises ValueError, naming the row, on a mistake in any row of a sweep."""
    for row in rows:
        try:
            for seed in seeds:
                row_config = override(config, {**row.get("overrides", {}), "seed": seed})
            _check_stages(row_config, plan or [_the_run("")])
        except ValueError as error:
            raise ValueError(f"sweep row {row['name']!r}: {error}") from error


def _check_stages(config: ConfigDict, plan: Sequence[stages.Stage]) -> dict[str, ConfigDict]:
    """Returns the config of every stage, checked, so that a mistake in the last shows at once."""
    configs = {stage.name: override(config, stage.overrides) for stage in plan}
    for stage_config in configs.values():
        build(stage_config, read_weights=False)
    return configs


def _plan_stages(experiment: Experiment, folder: str | Path) -> list[stages.Stage] | None:
    """Returns the plan of the config's stages, or None where it has none."""
    listed = experiment.listed("get_stages")
    with user_errors():
        return None if listed is None else stages.plan_stages(listed, folder)


def _the_run(folder: str | Path) -> stages.Stage:
    """Returns the only stage of an experiment without any."""
    return stages.Stage("", Path(folder), {})


def _flatten_all(config: ConfigDict, plan: Sequence[stages.Stage]) -> dict[str, Any]:
    """Returns a config and how its stages differ, as a workdir of all of them records it."""
    stage_overrides = {
        f"{stage.name}: {key}": value
        for stage in plan
        for key, value in stage.overrides.items()
        if key != "init_from"  # a path in this workdir, which may move
    }
    return {**flatten(config), **stage_overrides}


def _is_main() -> bool:
    return jax.process_index() == 0
