"""Trains or evaluates one config, or sweeps over the rows it lists. See README.md."""

import importlib.util
import signal
import sys
import threading
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from configs.common import MAY_DIFFER, flatten
from fixed_head_jax import experiment, sweep, train, workdir
from fixed_head_jax.checkpoint import has_checkpoint
from fixed_head_jax.interval_log import NonFiniteLossError

EXIT_BAD_INPUT, EXIT_NON_FINITE, EXIT_STOPPED = 2, 3, 75

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/x.py or configs/x.py:variant")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; what is in it goes on.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do with the run.")
_SWEEP = flags.DEFINE_bool("sweep", False, "Runs every row of the config's get_sweep().")
_SWEEP_INDEX = flags.DEFINE_integer("sweep_index", None, "With --sweep: this row alone, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Joins the other processes of a cluster.")


class BadInput(Exception):
    """The user's mistake, in one line."""


def build(config, folder, for_training):
    """Checks the config and claims its folder, before anything is compiled."""
    try:
        is_new = for_training and not has_checkpoint(folder)
        run = experiment.build(config, read_weights=is_new)
        workdir.claim(folder, flatten(config), MAY_DIFFER)
        return run
    except (ValueError, OSError) as error:
        raise BadInput(error) from error


def train_one(config, folder, stop_requested):
    """Trains in `folder`, says where things are and returns the result."""
    result = train.train(build(config, folder, True), folder, stop_requested)
    if jax.process_index() == 0:
        print(f"\ntest accuracy {result['eval/accuracy']:.2f} % on {result['eval/examples']:,.0f}")
        print(f"trained parameters {result['params']:,}, stored fixed {result['fixed']:,}")
        for name in ("result.json", "metrics.jsonl", "tensorboard", "checkpoints"):
            print(f"{name:14} {Path(folder) / name}")
    return result


def evaluate(config, folder):
    """Prints every metric of the kept checkpoints of `folder`."""
    try:
        workdir.read_config(folder)
    except ValueError as error:
        raise BadInput(error) from error
    results = train.evaluate(build(config, folder, False), folder)
    if not results:
        raise BadInput(f"workdir {folder!r} has no checkpoint yet; train first")
    for step, metrics in results.items():
        for name, value in metrics.items():
            print(f"step {step:,} {name} {value:.6g}")


def sweep_all(config, folder, stop_requested):
    """Runs the rows that the config's file lists, each in a folder of its own."""
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    spec = importlib.util.spec_from_file_location("sweep_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_sweep"):
        raise BadInput(f"{path} has no get_sweep(); run it without --sweep")
    rows = module.get_sweep()
    try:
        sweep.check_sweep(rows, _SWEEP_INDEX.value)
        workdir.claim(folder, flatten(config), MAY_DIFFER)
    except ValueError as error:
        raise BadInput(error) from error

    def run_row(overrides, row_folder):
        row = config.copy_and_resolve_references()
        row.update_from_flattened_dict(overrides)
        result = train_one(row.lock(), row_folder, stop_requested)
        return {**result, "accuracy": result["eval/accuracy"]}

    sweep.run_sweep(rows, run_row, folder, jax.process_index() == 0, _SWEEP_INDEX.value)


def main(_):
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes
    for name, flag in (("config", _CONFIG), ("workdir", _WORKDIR)):
        if flag.value is None:
            raise BadInput(f"--{name}=... is required; see README.md")
    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    config, folder = _CONFIG.value, _WORKDIR.value
    if _MODE.value == "evaluate":
        evaluate(config, folder)
    elif _SWEEP.value:
        sweep_all(config, folder, stop.is_set)
    else:
        train_one(config, folder, stop.is_set)


def parse_flags(argv):
    """Parses the command line; a misspelt flag, config key or variant is bad input."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]
        lines = [line for line in str(error.args[0] if error.args else error).split("\n") if line]
        message = ". ".join(lines) if isinstance(error, KeyError) else lines[-1].strip()
        raise BadInput(message) from error


def run():
    """Runs main; what a user can mend ends in one line and the documented exit code."""
    try:
        app.run(main, flags_parser=parse_flags)
    except BadInput as error:
        code, message = EXIT_BAD_INPUT, error
    except NonFiniteLossError as error:
        code, message = EXIT_NON_FINITE, error
    except train.Stopped as error:
        code, message = EXIT_STOPPED, error
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    run()
