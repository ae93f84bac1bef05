"""The loop, one for every task: trains or resumes a run, evaluates, saves and logs."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fixed_head_jax import optim
from fixed_head_jax.devices import memory, parallel
from fixed_head_jax.display.class_grids import draw_class_grids, members_table
from fixed_head_jax.evaluators import EVAL, TRAIN
from fixed_head_jax.evaluators.clustering import assign_clusters, contingency_matrix
from fixed_head_jax.evaluators.predictions import PREDICTIONS_FILE, write_predictions
from fixed_head_jax.settings.schema import read
from fixed_head_jax.storage.checkpoint import Checkpoints, Restored
from fixed_head_jax.storage.files import write_json, write_text
from fixed_head_jax.storage.workdir import MODEL, RECORD, local_folder
from fixed_head_jax.training.experiment import Run
from fixed_head_jax.training.interval_log import IntervalLog, check_evaluation
from fixed_head_jax.training.screen import describe, size_of, summarize
from fixed_head_jax.training.step import TrainState
from fixed_head_jax.training.trackers import open_trackers
from fixed_head_jax.training.writer import Writer

RESULT = "result.json"


class Stopped(Exception):
    """The run was asked to stop, saved its state and can be resumed by the same command."""


class Programs(NamedTuple):
    """The compiled training step of a run, and the data it has on the devices."""

    train_step: Callable
    arrays: dict  # of the training split
    eval_arrays: dict  # by split, as evaluators name them


def _compile(run: Run, for_training: bool) -> Programs:
    def train_steps(state, arrays, batches):
        return parallel.fold(
            lambda state, batch: run.train_step(state, run.train_data.fetch(arrays, batch)),
            state, batches,
        )  # fmt: skip

    is_same = run.fit_data is run.train_data
    reads_train = for_training or (run.evaluates_train and is_same)
    train = parallel.replicate(run.train_data.arrays() if reads_train else {}, run.mesh)
    fit = train
    if not is_same:
        fit = parallel.replicate(run.fit_data.arrays() if run.evaluates_train else {}, run.mesh)
    evaluated = parallel.replicate(run.eval_data.arrays(), run.mesh)
    spec = parallel.state_specs(jax.eval_shape(run.create_state))
    program = parallel.pmap_step(
        train_steps, run.mesh, parallel.SPLIT_PER_STEP, donate=True, state_spec=spec,
        out_spec=(spec, parallel.REPLICATED),
    )  # fmt: skip
    return Programs(program, train, {TRAIN: fit, EVAL: evaluated})


def _models(state: TrainState) -> dict[str, dict]:
    """Returns what is evaluated, by name: the parameters, and their averages if kept."""
    models = {"eval": {"params": state.params, **state.model_state}}
    if state.ema:
        models["eval_ema"] = {**models["eval"], **state.ema}
    return models


def _save_predictions(run: Run, path: Path, programs: Programs, state: TrainState) -> None:
    """Writes the class probabilities of the evaluation split, if the config asks for them."""
    if not run.config.save_predictions:
        return
    predictions = run.predict(_models(state), programs.eval_arrays[EVAL])
    if jax.process_index() == 0:
        write_predictions(path, {"split": run.eval_data.source.full_name, **predictions})


def _draw_classes(run: Run, folder: Path, programs: Programs, state: TrainState) -> None:
    """Draws what the model puts into each class, if the config asks for it."""
    if not run.config.class_grids:
        return
    models = {"eval": _models(state)["eval"]}
    outputs = run.predict(models, programs.eval_arrays[EVAL])
    if jax.process_index() != 0:
        return
    source, labels = run.eval_data.source, outputs["label"]
    predictions, num_clusters = outputs["eval"].argmax(1), outputs["eval"].shape[1]
    assigned = np.full(num_clusters, -1)
    if source.num_classes:
        shape = num_clusters, source.num_classes
        assigned = assign_clusters(contingency_matrix(predictions, labels, shape))
    draw_class_grids(
        folder, predictions, assigned, labels, lambda index: source.read(index)[0],
        source.class_names, run.config.class_grids, run.config.class_grid_images,
    )  # fmt: skip
    members = members_table(predictions, labels, source.names, source.class_names)
    write_text(folder / "members.csv", members)


def train(run: Run, workdir: str | Path, stop_requested: Callable = lambda: False) -> dict:
    """Trains to the end, going on from the last checkpoint in `workdir` if there is one.

    Args:
        run: from `build`; a `workdir` that holds another run must not be given, see
            `workdir.claim`.
        workdir: folder for checkpoints, metrics.jsonl, tensorboard/ and result.json.
        stop_requested: asked after every dispatch; once true, the run saves and raises `Stopped`.

    Returns:
        The last evaluation's metrics, `params` and `fixed` (numbers of trained and of stored fixed
        values), `step`, `best` (of `config.best_metric`, at any evaluation) and `best_step` (of its
        checkpoint), as written to result.json.

    Raises:
        NonFiniteLossError: with the step; checkpoints are those from before it.
        DamagedCheckpointError: if the one to go on from cannot be read.
        Stopped: see `stop_requested`.
        ValueError: if checkpoints in `workdir` could not be read back.
    """
    folder = local_folder(workdir)
    if jax.process_index() == 0:
        _write_records(run, folder)
    with contextlib.closing(Checkpoints(folder, f"eval/{run.config.best_metric}")) as checkpoints:
        result = _loop(run, checkpoints, folder, stop_requested)
    write_json(folder / RESULT, result)
    if jax.process_index() == 0:
        print(summarize(run, folder, result), flush=True)
    return result


class Standing(NamedTuple):
    """What the evaluations so far have come to; kept with every checkpoint.

    Attributes:
        metrics: of the last one.
        best: of `config.best_metric`, the best so far; None before the first.
        bad_evals: evaluations since then.
    """

    metrics: dict[str, float]
    best: float | None = None
    bad_evals: int = 0

    def after(self, metrics: dict[str, float], value: float) -> "Standing":
        """Returns the standing after another evaluation, which gave `value` of the best metric."""
        is_better = self.best is None or value > self.best
        return Standing(metrics, *((value, 0) if is_better else (self.best, self.bad_evals + 1)))


def _write_records(run: Run, folder: Path) -> None:
    """Writes the config, if `workdir.claim` has not, and what the model takes and tells apart."""
    if not (folder / RECORD).exists():
        write_json(folder / RECORD, run.record)
    source = run.train_data.source
    described = {"image_shape": source.image_shape, "class_names": source.class_names}
    write_json(folder / MODEL, described)


def _start(run: Run, checkpoints: Checkpoints) -> Restored:
    if checkpoints.last_step is None:
        state = parallel.place_state(jax.jit(run.create_state)(run.initial), run.mesh)
        return Restored(0, state, {"partial": [], "metrics": {}})
    return checkpoints.restore(checkpoints.last_step, jax.eval_shape(run.create_state), run.mesh)


def _is_over(run: Run, step: int, standing: Standing) -> bool:
    patience = run.config.stop_after_bad_evals
    return step >= run.total_steps or bool(patience) and standing.bad_evals >= patience


def _loop(run, checkpoints, workdir, stop_requested):
    config, is_main = run.config, jax.process_index() == 0
    step, state, host = _start(run, checkpoints)
    standing = Standing(*(host.get(key, default) for key, default in _FRESH.items()))
    is_over = _is_over(run, step, standing)
    if is_main:
        print(describe(run, workdir, step, is_over), flush=True)
        if not is_over:
            print("compiling ...", flush=True)
    programs = _compile(run, for_training=not is_over)
    batches = iter(())
    if not is_over:
        (workdir / RESULT).unlink(missing_ok=True)  # of a run that is longer now
        batches = run.train_data.train_batches(
            config.seed, config.batch_size, step, run.total_steps - step, parallel.process_shard()
        )
    opened = open_trackers(config.trackers, workdir, run.record, step) if is_main else []
    with Writer(workdir, run.total_steps, step, is_main=is_main, trackers=opened) as writer:
        write = partial(_write, writer, len(run.train_data.source), config.batch_size)
        log = IntervalLog(
            config.log_every_steps, run.total_steps, write, config.batch_size, host["partial"]
        )

        def save(metrics_here):
            log.flush()
            host = {"partial": log.partial(), **standing._asdict()}
            checkpoints.save(step, state, host, metrics_here)

        previous = None
        while not is_over:
            start = time.perf_counter()
            size = _dispatch_size(config, step, run)
            batch = _stack([next(batches) for _ in range(size)])
            waited = time.perf_counter() - start
            batch = parallel.shard_batch(batch, run.mesh, parallel.SPLIT_PER_STEP)
            state, step_metrics = programs.train_step(state, programs.arrays, batch)
            step += size
            # The device keeps one dispatch queued; further ahead, a stop signal would wait.
            jax.block_until_ready(previous)
            previous = step_metrics
            log.add(step, step_metrics, waited)
            writer.progress(step)
            if step in run.eval_steps:
                log.flush()
                start = time.perf_counter()
                standing = _evaluate(run, programs, step, state, standing)
                is_over = _is_over(run, step, standing)
                seconds = time.perf_counter() - start
                write(step, {**standing.metrics, **_resources(run, seconds)})
                state = _observe(config, state, standing.metrics)
                save(standing.metrics)
                log.exclude(time.perf_counter() - start)
            elif config.checkpoint_every_steps and step % config.checkpoint_every_steps == 0:
                save(None)
            if not is_over and parallel.any_process(stop_requested()):
                save(None)
                raise Stopped(f"stopped at step {step:,} of {run.total_steps:,}; state saved")
    _save_predictions(run, workdir / PREDICTIONS_FILE, programs, state)
    _draw_classes(run, workdir / "classes", programs, state)
    fixed = state.model_state.get("fixed", {})
    counts = {"params": size_of(state.params, run.is_trained), "fixed": size_of(fixed)}
    best = {"best_step": checkpoints.best_step, "best": checkpoints.best_value}
    return {**standing.metrics, **counts, **best, "step": step}


_FRESH = {"metrics": {}, **Standing._field_defaults}


def _evaluate(run, programs, step, state, standing):
    """Returns the standing after the evaluation of a step, with all that is for the last one."""
    metric = f"eval/{run.config.best_metric}"

    def evaluate(evaluate_run):
        metrics = evaluate_run(_models(state), programs.eval_arrays)
        check_evaluation(step, metrics)
        return standing.after(metrics, metrics[metric])

    if step == run.total_steps:
        return evaluate(run.final_evaluate)
    after = evaluate(run.evaluate)
    stops_early = _is_over(run, step, after) and run.final_evaluate is not run.evaluate
    return evaluate(run.final_evaluate) if stops_early else after


def _resources(run, seconds):
    """Returns what a run has needed so far, as metrics."""
    peaks = memory.peaks(run.mesh.devices.flat[0])
    values = {"timing/evaluation_seconds": seconds}
    return values | {f"timing/{name}_peak_gib": peak for name, peak in peaks.items()}


def _write(writer, num_examples, batch_size, step, values):
    values = {"epoch": round(step * batch_size / num_examples, 4), **values}
    if "timing/images_per_second" in values:
        values["timing/seconds_per_epoch"] = num_examples / values["timing/images_per_second"]
    writer.write(step, values)


def _observe(config, state, metrics):
    if config.optim.schedule != "plateau":
        return state
    value = metrics[f"eval/{config.best_metric}"]
    opt_state = optim.observe(state.opt_state, value, read(optim.Plateau, config))
    return state.replace(opt_state=opt_state)


def _dispatch_size(config, step, run):
    """Returns how many steps to run at once: all of a dispatch, or one near the next event."""
    steps = config.steps_per_dispatch or (1 if jax.default_backend() == "cpu" else 10)
    every = [config.log_every_steps, config.checkpoint_every_steps]
    events = [step + size - step % size for size in every if size]
    events.append(min(event for event in run.eval_steps if event > step))
    return steps if step + steps <= min(events) else 1


def _stack(batches):
    return {key: np.stack([batch[key] for batch in batches]) for key in batches[0]}


def evaluate(run: Run, workdir: str | Path, mark: str = "") -> dict[int, dict[str, float]]:
    """Evaluates the kept checkpoints of `workdir`, or without any the weights to start from.

    Args:
        run: from `build`.
        workdir: folder of the run; `evaluation_<step><mark>.json` there gets the metrics.
        mark: tells evaluations of a step apart.

    Returns:
        Step -> metrics; empty where there are neither checkpoints nor weights.

    Raises:
        DamagedCheckpointError: if a checkpoint cannot be read.
    """
    folder = local_folder(workdir)
    programs, abstract_state = _compile(run, for_training=False), jax.eval_shape(run.create_state)
    results = {}

    def evaluate_state(step, state):
        results[step] = run.final_evaluate(_models(state), programs.eval_arrays)
        _save_predictions(run, folder / f"evaluation_{step}{mark}.npz", programs, state)
        _draw_classes(run, folder / f"classes_{step}{mark}", programs, state)
        if jax.process_index() == 0:
            evaluated = {"split": run.eval_data.source.full_name, **results[step]}
            write_json(folder / f"evaluation_{step}{mark}.json", evaluated)

    with contextlib.closing(Checkpoints(folder, f"eval/{run.config.best_metric}")) as checkpoints:
        kept = (checkpoints.best_step, checkpoints.last_step)
        steps = sorted({step for step in kept if step is not None})
        for step in steps:
            evaluate_state(step, checkpoints.restore(step, abstract_state, run.mesh).state)
    if not steps and run.initial:
        initial = jax.jit(run.create_state)(run.initial)
        evaluate_state(0, parallel.place_state(initial, run.mesh))
    return results
