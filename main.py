"""Trains, evaluates or searches one config, or sweeps over the rows it lists. See README.md."""

import contextlib
import importlib.util
import signal
import sys
import threading
import urllib.parse
from pathlib import Path

EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_STOPPED, EXIT_INTERRUPTED = 2, 3, 75, 130

try:  # takes seconds
    import jax
    from absl import app, flags, logging

    from fixed_head_jax.configs import common
    from fixed_head_jax.configs.common import (
        EVALUATION_MAY_DIFFER,
        KEYS,
        MAY_DIFFER,
        override,
        settle,
    )
    from fixed_head_jax.data.records import BadRecordError
    from fixed_head_jax.evaluators.predictions import PREDICTIONS_FILE, PredictionsError
    from fixed_head_jax.optim.transfer import FROM_SCRATCH
    from fixed_head_jax.settings import config_flag
    from fixed_head_jax.settings.schema import flatten
    from fixed_head_jax.storage import workdir
    from fixed_head_jax.storage.checkpoint import (
        DamagedCheckpointError,
        UnsavedCheckpointError,
        last_step,
    )
    from fixed_head_jax.storage.files import write_text
    from fixed_head_jax.studies import search, stages, sweep
    from fixed_head_jax.training import experiment, loop
    from fixed_head_jax.training.interval_log import NonFiniteLossError
except KeyboardInterrupt:
    print("main.py: interrupted before it began", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)

FLAGS = flags.FLAGS

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; what is in it goes on.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "search"], "What to do.")
_BUDGET = flags.DEFINE_integer("budget", 20, "With --mode=search: trials in the whole study.")
_SWEEP = flags.DEFINE_bool("sweep", False, "Runs every row of the config's get_sweep().")
_SWEEP_INDEX = flags.DEFINE_integer("sweep_index", None, "With --sweep: this row alone, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Joins the other processes of a cluster.")


class BadInput(Exception):
    """The user's mistake, in one line."""


@contextlib.contextmanager
def user_errors():
    """Makes what the checks inside it raise the user's mistake."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(error) from error


def build(config, folder):
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
        claim(run, folder, may_differ, why_not=common.why_not(config))
    return run


def claim(run, folder, may_differ, **options):
    """Claims a folder for a run; keys that an older version's record lacks had their defaults."""
    data = {key: run.record[key] for key in run.record if key not in KEYS}
    assumed = {**{name: key.default for name, key in KEYS.items()}, **data}
    workdir.claim(folder, run.record, may_differ, assumed=assumed, **options)


def train_one(config, folder, stop_requested):
    """Trains in `folder`, says where things are and returns the result."""
    run = build(config, folder)
    if run.groups and jax.process_index() == 0:
        print(run.groups)
        write_text(Path(folder) / "groups.md", run.groups)
    result = loop.train(run, folder, stop_requested)
    if jax.process_index() == 0:
        split, metric = run.eval_data.source.split, config.best_metric
        print(
            f"\n{split} {metric} {result[f'eval/{metric}']:.2f} % on {result['eval/examples']:,.0f}"
        )
        print(f"trained parameters {result['params']:,}, stored fixed {result['fixed']:,}")
        for name in ("result.json", "metrics.jsonl", "tensorboard", "checkpoints"):
            print(f"{name:14} {Path(folder) / name}")
    return result


def train_all(config, folder, stop_requested, experiment_file):
    """Trains every stage that the config's file lists, or the config itself."""
    plan = plan_stages(experiment_file, folder)
    if plan is None:
        return train_one(config, folder, stop_requested)
    with user_errors():
        configs = check_stages(config, plan)
        workdir.claim(folder, flatten_all(config, plan), MAY_DIFFER)

    def run_stage(stage):
        return train_one(configs[stage.name], stage.folder, stop_requested)

    return stages.run_stages(plan, run_stage, folder, jax.process_index() == 0)


def check_stages(config, plan):
    """Returns the config of every stage, checked, so that a mistake in the last shows at once."""
    configs = {stage.name: override(config, stage.overrides) for stage in plan}
    for stage_config in configs.values():
        experiment.build(stage_config, read_weights=False)
    return configs


def evaluate(config, folder, experiment_file):
    """Prints and writes every metric of the kept checkpoints of `folder`, stage by stage.

    Without a checkpoint, those of the weights that `init_from` names.
    """
    has_weights = config.init_from not in ("", FROM_SCRATCH)
    for stage in plan_stages(experiment_file, folder) or [stages.Stage("", folder, {})]:
        with user_errors():
            stage_config = override(config, stage.overrides)
            is_new = last_step(stage.folder) is None
            trained = {} if has_weights and is_new else workdir.read_config(stage.folder)
            run = experiment.build(stage_config, read_weights=has_weights and is_new)
            if is_new and not run.initial:
                raise BadInput(f"workdir {str(stage.folder)!r} has no checkpoint yet; train first")
            claim(run, stage.folder, EVALUATION_MAY_DIFFER, is_kept=True)
        split = stage_config.data.eval_split
        is_own = split == trained.get("data.eval_split", split)
        mark = "" if is_own else "_" + urllib.parse.quote(split, safe="")
        for step, metrics in loop.evaluate(run, stage.folder, mark).items():
            for name, value in metrics.items():
                print(f"{stage.name} step {step:,} {name} {value:.6g}".lstrip())


def sweep_all(config, folder, stop_requested, experiment_file):
    """Runs the rows that the config's file lists, each in a folder of its own."""
    rows = experiment_file("get_sweep")
    if rows is None:
        raise BadInput(f"{FLAGS['config'].config_filename} has no get_sweep(); omit --sweep")
    with user_errors():
        sweep.check_sweep(rows, _SWEEP_INDEX.value)
        if any("members" in row for row in rows["rows"]) and not config.save_predictions:
            raise BadInput("the sweep has ensembles; they need --config.save_predictions=True")
        plan = plan_stages(experiment_file, folder) or []
        check_rows(config, rows, plan)
        workdir.claim(folder, flatten_all(config, plan), MAY_DIFFER)

    def run_row(overrides, row_folder):
        row = override(config, overrides)
        result = train_all(row, row_folder, stop_requested, experiment_file)
        metric = rows.get("metric", sweep.DEFAULT_METRIC)
        if metric not in result:
            raise BadInput(f"the sweep's metric {metric!r} is none of a run: {', '.join(result)}")
        return {**result, "accuracy": result[metric]}

    predictions = Path(plan[-1].name if plan else "") / PREDICTIONS_FILE
    results = sweep.run_sweep(
        rows, run_row, folder, jax.process_index() == 0, _SWEEP_INDEX.value,
        [predictions] if config.save_predictions else [],
    )  # fmt: skip
    diverged = [f"{run['name']} seed {run['seed']}" for run in results if sweep.DIVERGED in run]
    if diverged:
        raise NonFiniteLossError(f"runs of the sweep that diverged: {', '.join(diverged)}")


def check_rows(config, rows, plan):
    """Raises ValueError, naming the row, on a mistake in any row of a sweep that is to run."""
    index = _SWEEP_INDEX.value
    for row in rows["rows"] if index is None else rows["rows"][index : index + 1]:
        try:
            for seed in rows["seeds"]:
                row_config = override(config, {**row.get("overrides", {}), "seed": seed})
            check_stages(row_config, plan or [stages.Stage("", "", {})])
        except ValueError as error:
            raise ValueError(f"sweep row {row['name']!r}: {error}") from error


def search_all(config, folder, stop_requested, experiment_file):
    """Searches the dials that the config's file lists, every trial in a folder of its own."""
    with user_errors():
        dials = experiment_file("get_search")
    if dials is None:
        raise BadInput(f"{FLAGS['config'].config_filename} has no get_search(); nothing to search")
    if jax.process_count() > 1:
        raise BadInput("--mode=search takes no --distributed; start it several times instead")
    with user_errors():
        search.check_search(dials, folder, _BUDGET.value)
        for overrides in dials["probes"].values():  # a mistake shows before the first trial
            experiment.build(override(config, {**dials["splits"], **overrides}))
        workdir.claim(folder, flatten(config), MAY_DIFFER)

    def run_trial(overrides, trial_folder):
        trial = override(config, overrides)
        result = train_all(trial, trial_folder, stop_requested, experiment_file)
        return {**result, "accuracy": result["eval/accuracy"]}

    search.run_search(dials, run_trial, folder, _BUDGET.value, config.seed)


def plan_stages(experiment_file, folder):
    """Returns the plan of the config's stages, or None where it has none."""
    listed = experiment_file("get_stages")
    with user_errors():
        return None if listed is None else stages.plan_stages(listed, folder)


def flatten_all(config, plan):
    """Returns a config and how its stages differ, as a workdir of all of them records it."""
    stage_overrides = {
        f"{stage.name}: {key}": value
        for stage in plan
        for key, value in stage.overrides.items()
        if key != "init_from"  # a path in this workdir, which may move
    }
    return {**flatten(config), **stage_overrides}


def join_cluster():
    """Connects to the other processes of a cluster that JAX knows how to find."""
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(
            f"--distributed finds no cluster ({reason}); start under SLURM, Open MPI, Kubernetes "
            "or on Cloud TPU, or leave it out"
        ) from error


def load_experiment_file():
    """Returns `name -> what the config file's function of that name gives`, None without it.

    The function is given the text behind the colon of `--config=file.py:text`, as get_config is.
    """
    path, _, argument = FLAGS["config"].config_filename.partition(":")
    spec = importlib.util.spec_from_file_location("experiment_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: getattr(module, name)(argument) if hasattr(module, name) else None


def main(_):
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes
    for name, flag in (("config", _CONFIG), ("workdir", _WORKDIR)):
        if flag.value is None:
            raise BadInput(f"--{name}=... is required; see README.md")
    if _DISTRIBUTED.value:
        join_cluster()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    config, experiment_file = _CONFIG.value, load_experiment_file()
    with user_errors():
        folder = workdir.local_folder(_WORKDIR.value)
        config = settle(config)
    if _MODE.value != "train" and _SWEEP.value:
        raise BadInput(
            f"--mode={_MODE.value} goes without --sweep; of a sweep, name a row's folder"
        )
    if _MODE.value == "evaluate":
        evaluate(config, folder, experiment_file)
    elif _MODE.value == "search":
        search_all(config, folder, stop.is_set, experiment_file)
    elif _SWEEP.value:
        sweep_all(config, folder, stop.is_set, experiment_file)
    else:
        train_all(config, folder, stop.is_set, experiment_file)


def parse_flags(argv):
    """Parses the command line; a misspelt flag, config key or variant is bad input."""
    with user_errors():
        return config_flag.parse(FLAGS, argv, KEYS)


CAN_BE_MENDED = (
    BadInput,
    BadRecordError,
    DamagedCheckpointError,
    UnsavedCheckpointError,
    PredictionsError,
)


def run():
    """Runs main; what a user can mend ends in one line and the documented exit code."""
    try:
        app.run(main, flags_parser=parse_flags)
    except CAN_BE_MENDED as error:
        code, message = EXIT_BAD_INPUT, error
    except NonFiniteLossError as error:
        code, message = EXIT_NON_FINITE, error
    except loop.Stopped as error:
        code, message = EXIT_STOPPED, error
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "interrupted; the last checkpoint is kept"
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    run()
