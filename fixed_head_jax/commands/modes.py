"""What each mode does, and the exit code and the line that it ends in."""

import signal
import threading

import jax
from absl import logging

from fixed_head_jax.commands import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    EXIT_STOPPED,
    experiments,
    runs,
)
from fixed_head_jax.commands.arguments import CommandLine
from fixed_head_jax.commands.runs import BadInput, user_errors
from fixed_head_jax.data.records import BadRecordError
from fixed_head_jax.devices import compiler
from fixed_head_jax.evaluators.predictions import PredictionsError
from fixed_head_jax.inference import load
from fixed_head_jax.inference.predict import predict_files
from fixed_head_jax.storage import workdir
from fixed_head_jax.storage.checkpoint import DamagedCheckpointError, UnsavedCheckpointError
from fixed_head_jax.training import loop
from fixed_head_jax.training.interval_log import NonFiniteLossError

ENDINGS = {
    BadInput: EXIT_BAD_INPUT,
    BadRecordError: EXIT_BAD_INPUT,
    DamagedCheckpointError: EXIT_BAD_INPUT,
    UnsavedCheckpointError: EXIT_BAD_INPUT,
    PredictionsError: EXIT_BAD_INPUT,
    NonFiniteLossError: EXIT_NON_FINITE,
    loop.Stopped: EXIT_STOPPED,
}


def run_mode(line: CommandLine) -> tuple[int, object]:
    """Runs what a command line asks for; returns the exit code and what to say at the end."""
    logging.use_absl_handler()
    try:
        _run_mode(line)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED, "interrupted; the last checkpoint is kept"
    except tuple(ENDINGS) as error:
        return next(code for kind, code in ENDINGS.items() if isinstance(error, kind)), error
    return 0, ""


def _run_mode(line):
    flags = line.flags
    compiler.keep_compiled()
    if flags.distributed:
        join_cluster()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with user_errors():
        folder = workdir.local_folder(flags.workdir)
    if line.mode == "predict":
        return predict(line)
    if line.mode == "report":
        return runs.report_all(folder)
    if not line.config_file:
        return runs.evaluate_all(folder, line.overrides)
    experiment = experiments.read(line.config, line.config_file, stop.is_set)
    if line.mode == "evaluate":
        experiments.evaluate(experiment, folder)
    elif line.mode == "search":
        experiments.run_search(experiment, folder, flags.budget)
    elif flags.sweep:
        experiments.run_sweep(experiment, folder, flags.sweep_index)
    elif flags.seeds:
        experiments.run_seeds(experiment, folder, flags.seeds)
    else:
        experiments.train(experiment, folder)


def predict(line: CommandLine) -> None:
    """Classifies the photographs that a command line names, by the run in its workdir."""
    flags = line.flags
    with user_errors():
        predictor = load(flags.workdir, flags.which)
        predict_files(
            predictor, flags.images, flags.out, top_k=flags.top_k, features=flags.features,
            maps=flags.maps,
        )  # fmt: skip


def join_cluster() -> None:
    """Connects to the other processes of a cluster that JAX knows how to find."""
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(
            f"--distributed finds no cluster ({reason}); start under SLURM, Open MPI, Kubernetes "
            "or on Cloud TPU, or leave it out"
        ) from error
