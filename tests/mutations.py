"""Measures how many wrong programs the default tests notice: 40 mutations of the package.

    python tests/mutations.py            # about 25 minutes on two cores
    python tests/mutations.py --only 3 17

Each mutation is a mistake that a hand could make and that changes numbers, or what a run keeps. It
is made in a copy of the package, where the tests of the rooms that it names then run until one
fails. Written down from the sources alone, before the tests were looked at.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = ("fixed_head_jax", "configs", "tests", "main.py", "pyproject.toml", "docs")
WANTED = 38  # of all of them
SURVIVED = "NOT NOTICED"
LIMIT = 900  # seconds of tests for a mutation; a hang is noticed too


class Mutation(NamedTuple):
    """One mistake: `old`, which stands once in `file`, becomes `new`."""

    file: str
    tests: str  # under tests/, that are to notice: folders, files or tests by their ids
    old: str
    new: str


MUTATIONS = (
    # The step and the loop.
    Mutation("training/step.py", "training/test_loop.py tasks/test_supervised.py",
             "scale = optim.plateau_scale(state.opt_state)",
             "scale = optim.plateau_scale(state.opt_state) ** 0"),
    Mutation("training/step.py", "training/test_loop.py tasks/test_supervised.py",
             "(1 + state.step) / (10 + state.step)",
             "(2 + state.step) / (10 + state.step)"),
    Mutation("training/step.py", "training/test_loop.py tasks/test_supervised.py",
             "averaged(params, model_state), ema, 1 - decay",
             "averaged(state.params, model_state), ema, 1 - decay"),
    Mutation("training/step.py", "training/test_loop.py tasks/test_supervised.py",
             "first = lax.axis_index(parallel.AXIS) * local_batch_size",
             "first = 0 * local_batch_size"),
    Mutation("training/loop.py", "training/test_loop.py",
             "config.seed, config.batch_size, step, run.total_steps - step",
             "config.seed, config.batch_size, 0, run.total_steps - step"),
    Mutation("training/loop.py", "training/test_loop.py",
             "state = _observe(config, state, metrics)\n                save",
             "save"),
    Mutation("training/loop.py", "training/test_loop.py",
             'metrics = host["metrics"]',
             "metrics = {}"),
    # How parameters change.
    Mutation("optim/optimizer.py", "optim/test_optim.py",
             "return [optax.scale_by_adam(rule.b1, rule.b2, rule.eps), *decay]",
             "return [*decay, optax.scale_by_adam(rule.b1, rule.b2, rule.eps)]"),
    Mutation("optim/optimizer.py", "optim/test_optim.py",
             "eps_in_sqrt=False",
             "eps_in_sqrt=True"),
    Mutation("optim/transforms.py", "optim/test_optim.py optim/test_transfer_plan.py",
             "trust_coefficient * norm_p / (norm_g + weight_decay * norm_p",
             "trust_coefficient * norm_p / (norm_g + norm_p"),
    Mutation("optim/transforms.py", "optim/test_optim.py optim/test_transfer_plan.py",
             "u + strength * (w - start)",
             "u + 2 * strength * (w - start)"),
    Mutation("optim/plateau.py", "optim/test_plateau.py",
             "plateau.patience + 1",
             "plateau.patience"),
    Mutation("optim/schedules.py", "optim/test_schedules.py",
             "(step + 1, warmup_steps)",
             "(step, warmup_steps)"),
    Mutation("optim/transfer/plan.py", "optim/test_transfer_plan.py optim/test_layer_groups.py",
             "depth > num_layers - dials.new_layers",
             "depth >= num_layers - dials.new_layers"),
    Mutation("optim/transfer/plan.py", "optim/test_transfer_plan.py optim/test_layer_groups.py",
             "beta = 0.0 if alpha else weight_decay",
             "beta = weight_decay"),
    # Which images, in which order.
    Mutation("data/sampling.py", "data/test_sampling.py data/test_orders.py",
             "divmod(first, length)",
             "(first // length, first % (length - 1))"),
    Mutation("data/sampling.py", "data/test_sampling.py data/test_orders.py",
             "step * count, count), repeats",
             "step * batch_size, count), repeats"),
    Mutation("data/sampling.py", "data/test_sampling.py data/test_orders.py",
             "math.ceil(exact * num_examples / batch_size)",
             "math.floor(exact * num_examples / batch_size)"),
    Mutation("data/crops.py", "data/test_crops.py",
             "counter=[0, 0, 0, 2]",
             "counter=[0, 0, 0, 0]"),
    Mutation("data/selection.py", "data/test_orders.py data/test_sources.py data/test_labels.py",
             "max(1, round(fraction * len(members)))",
             "max(1, int(fraction * len(members)))"),
    # What a run keeps.
    Mutation("storage/checkpoint.py", "training/test_loop.py",
             "keep_checkpoints_without_metrics=False",
             "keep_checkpoints_without_metrics=True"),
    Mutation("storage/checkpoint.py", "training/test_loop.py",
             '**state["model_state"], **state["ema"]',
             '**state["ema"], **state["model_state"]'),
    Mutation("storage/files.py", "storage studies/test_sweep.py",
             "        partial.replace(path)\n    finally",
             "    finally"),
    # Heads.
    Mutation("heads/fixed.py", "heads",
             "num_classes**-0.5 if self.init_scale is None",
             "dim**-0.5 if self.init_scale is None"),
    Mutation("heads/fixed.py", "heads",
             'start = dim - self.num_classes if self.take == "last" else 0',
             "start = 0"),
    Mutation("heads/cosine.py", "heads",
             "logits = t_vmf(jnp.clip(logits, -1.0, 1.0), self.kappa)",
             "logits = t_vmf(logits, -self.kappa / 2)"),
    Mutation("heads/frames/sylvester.py", "heads",
             "rows & columns) & 1",
             "rows | columns) & 1"),
    # Losses and tasks.
    Mutation("losses/self_classifier.py", "losses/test_self_classifier_loss.py",
             "& (is_global[:, None] | is_global)",
             "& (is_global[:, None] & is_global)"),
    Mutation("losses/self_classifier.py", "losses/test_self_classifier_loss.py",
             "num_images *= lax.axis_size(axis_name)",
             "num_images *= 1"),
    Mutation("tasks/neighbor_queue.py", "tasks/test_neighbor_queue.py",
             "jnp.where(is_own, best[:, 1], best[:, 0])",
             "best[:, 0]"),
    Mutation("tasks/neighbor_queue.py", "tasks/test_neighbor_queue.py",
             "queue.is_full | (end >= size)",
             "queue.is_full | (end > size)"),
    Mutation("tasks/supervised.py", "tasks/test_supervised.py",
             "jnp.argmax(targets, axis=-1)",
             "jnp.argmin(targets, axis=-1)"),
    # What is measured.
    Mutation("evaluators/knn.py", "evaluators/test_knn.py",
             "start + jnp.arange(block.shape[0]) < bank_size",
             "start + jnp.arange(block.shape[0]) <= bank_size"),
    Mutation("evaluators/passes.py", "evaluators/test_passes.py",
             'kept = outputs.pop("mask") > 0',
             'kept = outputs.pop("mask") >= 0'),
    Mutation("evaluators/long_tail.py", "evaluators/test_long_tail.py",
             "counts > MANY_SHOT_ABOVE",
             "counts >= MANY_SHOT_ABOVE"),
    Mutation("evaluators/neural_collapse.py", "evaluators/test_neural_collapse.py",
             "center = means.mean(0)",
             'center = np.asarray(sums["features"]).sum(0) / examples.sum()'),
    # What is done to images.
    Mutation("augment/mix.py", "augment/test_mix.py",
             "blend(targets, shares.mean().reshape(1, 1))",
             "blend(targets, shares.max().reshape(1, 1))"),
    Mutation("augment/mix.py", "augment/test_mix.py",
             "[(i, last - i) for i in range(last + 1)]",
             "[(i, i) for i in range(last + 1)]"),
    Mutation("augment/geometry.py", "augment/test_geometry.py",
             "0, 2 * padding + 1",
             "0, 2 * padding"),
    Mutation("augment/color.py", "augment/test_color.py augment/test_pipeline.py",
             "return (images - mean) / std",
             "return images / std - mean"),
)  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", help="numbers of mutations, from 1")
    options = parser.parse_args(arguments)
    for number, mutation in enumerate(MUTATIONS, start=1):
        count = source_of(ROOT, mutation).read_text().count(mutation.old)
        if count != 1:
            parser.error(f"mutation {number} stands {count} times in {mutation.file}; mend it")
    numbers = options.only or range(1, len(MUTATIONS) + 1)
    with tempfile.TemporaryDirectory(prefix="mutations_") as folder:
        copy_to(Path(folder))
        survivors = [n for n in numbers if not notices(Path(folder), n, MUTATIONS[n - 1])]
    caught = len(numbers) - len(survivors)
    print(f"noticed {caught} of {len(numbers)}; not: {survivors or 'none'}")
    return int(not options.only and caught < WANTED)


def copy_to(folder):
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=ignore)
        else:
            shutil.copy(path, folder / name)


def source_of(folder, mutation):
    return folder / "fixed_head_jax" / mutation.file


def notices(folder, number, mutation):
    """Returns whether a test fails where the mutation is made, and says so in a line."""
    file = source_of(folder, mutation)
    right = file.read_text()
    file.write_text(right.replace(mutation.old, mutation.new))
    start = time.perf_counter()
    try:
        outcome = run_tests(folder, mutation.tests.split())
    finally:
        file.write_text(right)
    seconds = time.perf_counter() - start
    print(f"{number:3} {seconds:4.0f} s  {mutation.file}: {outcome}", flush=True)
    return outcome != SURVIVED


def run_tests(folder, rooms):
    """Returns `SURVIVED` where the default tests of these rooms pass, or what noticed."""
    command = [sys.executable, "-m", "pytest", "-x", "--no-header", "-p", "no:cacheprovider"]
    command += [str(folder / "tests" / room) for room in rooms]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "a test hangs"
    if done.returncode == 0:
        return SURVIVED
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if not failed:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return failed.group(1)


if __name__ == "__main__":
    sys.exit(main())
