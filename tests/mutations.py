"""Measures how many of 40 bugs, put into a copy of the package one at a time, the tests catch.

    python tests/mutations.py              # the tests named are first run without any bug
    python tests/mutations.py --list
    python tests/mutations.py --only 3 17 --skip-baseline

The bugs were written from the source alone, each of a kind that changes numbers or guarantees and
raises no error. They are put into a copy in a temporary folder; the working tree is not touched.
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

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("fixed_head_jax", "tests", "main.py", "pyproject.toml")
ENOUGH = 38
TIME_LIMIT = 300  # seconds; a bug that makes the tests hang is noticed
_BASELINE_TIME_LIMIT = 3600

# Loaded after conftest.py, whose compilation cache ends with its session: here one serves all runs.
_PLUGIN = """
import jax

def pytest_sessionstart(session):
    jax.config.update("jax_compilation_cache_dir", {cache!r})
"""


class Mutation(NamedTuple):
    """One bug.

    Attributes:
        file: path in the package.
        old: text that occurs there exactly once.
        new: what stands in its place.
        tests: files of tests that should notice.
        what: the bug in one line.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    what: str


_LOOP = ("training/test_step.py", "training/test_loop.py")
_CHECKPOINT = ("storage/test_checkpoint.py", "training/test_loop.py")
_OPTIM = ("optim/test_optim.py",)
_PLAN = ("optim/test_optim.py", "optim/test_layer_groups.py", "optim/test_transfer_plan.py")
_ORDERS = ("data/test_sampling.py", "data/test_orders.py")
_READERS = ("data/test_crops.py", "data/test_readers.py")
_WORKDIR = ("storage/test_workdir.py",)
_LOSS = ("losses/test_self_classifier_loss.py",)
_COSINE = ("heads/test_cosine.py", "heads/test_margins.py")
_MIX = ("augment/test_mix.py",)

# fmt: off
MUTATIONS = (
    # training
    Mutation("training/step.py", "lax.axis_index(parallel.AXIS) * local_batch_size", "0",
             _LOOP, "every device draws the randomness of the first one's examples"),
    Mutation("training/step.py", "jax.random.key(seed), state.step",
             "jax.random.key(0), state.step",
             _LOOP, "the seed has no part in the randomness of a step"),
    Mutation("training/step.py", "averaged(params, model_state), ema",
             "averaged(state.params, model_state), ema",
             _LOOP, "the averages follow the parameters from before the update"),
    Mutation("training/step.py",
             "x.reshape(x.shape[0] // hands, hands, *x.shape[1:]).swapaxes(0, 1)",
             "x.reshape(hands, x.shape[0] // hands, *x.shape[1:])",
             _LOOP, "micro-batches are runs of examples: who is in one depends on the devices"),
    Mutation("training/loop.py",
             "state = _observe(config, state, standing.metrics)\n                save(standing.m",
             "save(standing.metrics)\n                state = _observe(config, state, standing.m",
             _LOOP, "a resumed run forgets what the plateau learned at its checkpoint"),
    Mutation("training/loop.py", '{"partial": log.partial(), ', '{"partial": [], ',
             _LOOP, "a resumed run logs the mean of the rest of an interval as that of all of it"),
    # optim
    Mutation("optim/optimizer.py", "[optax.scale_by_adam(rule.b1, rule.b2, rule.eps), *decay]",
             "[*decay, optax.scale_by_adam(rule.b1, rule.b2, rule.eps)]",
             _OPTIM, "AdamW's weight decay goes through Adam's rule: plain L2"),
    Mutation("optim/transforms.py", "(norm_g + weight_decay * norm_p + eps)", "(norm_g + eps)",
             _OPTIM, "LARC's factor does not know of the weight decay"),
    Mutation("optim/plateau.py", "plateau.factor, plateau.patience + 1",
             "plateau.factor, plateau.patience",
             ("optim/test_plateau.py",), "the rate drops an evaluation too early"),
    Mutation("optim/schedules.py", "else total_steps - first  #", "else total_steps  #",
             ("optim/test_schedules.py",), "after warm-up the decay never reaches its last rate"),
    Mutation("optim/transfer/plan.py", "lambda trained, no: trained and not no",
             "lambda trained, no: trained",
             _PLAN, "optim.no_decay is ignored: biases and norms decay"),
    # data
    Mutation("data/sampling.py", "return math.ceil(exact", "return math.floor(exact",
             _ORDERS, "an epoch starts a step early, in the batch that still reads the last one"),
    Mutation("data/sampling.py", "Philox(key=[seed, epoch], counter=[0, 0, *stream])",
             "Philox(key=[seed, 0], counter=[0, 0, *stream])",
             _ORDERS, "every epoch has the order of the first"),
    Mutation("data/sampling.py", "np.tile(read_stream(", "np.repeat(read_stream(",
             _ORDERS, "the copies of an example stand side by side, on one device"),
    Mutation("data/class_sampling.py", "turn // len(members) * per_class, per_class",
             "turn // len(members), per_class",
             _ORDERS, "a class's list advances by one in a turn, which takes per_class of it"),
    Mutation("data/loader.py", "rows[part] for name, rows", "rows[: len(index)] for name, rows",
             _READERS, "every process draws the crops of the first one's examples"),
    # storage
    Mutation("storage/checkpoint.py", "lambda metrics: metrics[metric] if metrics",
             "lambda metrics: -metrics[metric] if metrics",
             _CHECKPOINT, "the worst checkpoint is kept for the best"),
    Mutation("storage/checkpoint.py", '**state["model_state"], **state["ema"]}',
             '**state["model_state"]}',
             _CHECKPOINT, "a run starts from the last parameters of another, not their averages"),
    Mutation("storage/workdir.py", "sorted(theirs.keys() | ours.keys())",
             "sorted(theirs.keys() & ours.keys())",
             _WORKDIR, "a key that only one of two configs has does not tell their runs apart"),
    Mutation("storage/workdir.py", "{**json.loads(json.dumps(dict(assumed))), **stored}",
             "{**stored, **json.loads(json.dumps(dict(assumed)))}",
             _WORKDIR, "values assumed for old records replace those of new ones"),
    # heads
    Mutation("heads/fixed.py", "uniform(num_classes**-0.5), (num_classes,)",
             "uniform(dim**-0.5), (num_classes,)",
             ("heads/test_fixed.py",), "the bias of the Hadamard head is drawn by D, not by K"),
    Mutation("heads/cosine.py", "cosine - self.margin * math.sin(self.margin)",
             "cosine - math.sin(self.margin)",
             _COSINE, "ArcFace past pi - margin is not the published line"),
    Mutation("heads/polytope.py", "radius = (self.num_classes / (self.num_classes - 1)) ** 0.5",
             "radius = ((self.num_classes - 1) / self.num_classes) ** 0.5",
             ("heads/test_polytope.py",), "the projected simplex's vertices are not of unit norm"),
    Mutation("heads/projection.py", "jnp.argmin(self.losses.value)",
             "jnp.argmax(self.losses.value)",
             ("tasks/test_self_classifier_model.py",), "the worst classifier is evaluated"),
    Mutation("heads/frames/drawn.py", "jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]",
             "jnp.where(jnp.diagonal(r) < 0, 1.0, 1.0)[None, :]",
             ("heads/test_frames.py",), "orthogonal frames are not uniformly distributed"),
    # losses and tasks
    Mutation("losses/self_classifier.py", "(is_global[:, None] | is_global)", "is_global[:, None]",
             _LOSS, "local views are no targets for the global ones"),
    Mutation("losses/self_classifier.py", "num_images *= lax.axis_size(axis_name)",
             "num_images *= 1",
             _LOSS, "over several devices the prior is that of one device's images"),
    Mutation("tasks/supervised.py", "training_logits = model.training_logits(logits, labels)",
             "training_logits = logits",
             ("tasks/test_supervised.py", "heads/test_margins.py"), "margins are not trained with"),
    Mutation("tasks/neighbor_queue.py", "queue.is_full | (end >= size)",
             "queue.is_full | (end > size)",
             ("tasks/test_neighbor_queue.py",), "the queue is full one batch late"),
    # evaluators
    Mutation("evaluators/knn.py", "weights[:, first:last], neighbor_labels[:, first:last]",
             "weights[:, :last], neighbor_labels[:, :last]",
             ("evaluators/test_knn.py",), "the nearest neighbours vote again for every larger k"),
    Mutation("evaluators/clustering.py", "logits.shape[1]) * valid[:, None]", "logits.shape[1])",
             ("evaluators/test_clustering.py",), "padding counts as examples"),
    Mutation("evaluators/passes.py", "return total if part is None else fetch(part)",
             "return fetch(part) if total is None else total",
             ("evaluators/test_passes.py",), "batches after the last sixteen are left out"),
    Mutation("evaluators/long_tail.py",
             "[:, None] + jnp.sum(class_means**2, axis=1)[None, :]", "[:, None]",
             ("evaluators/test_long_tail.py",), "the nearest mean is that of the largest product"),
    Mutation("evaluators/neural_collapse.py", "center = means.mean(0)",
             "center = np.average(means, axis=0, weights=examples[is_present])",
             ("evaluators/test_neural_collapse.py",), "large classes pull the centre of the means"),
    Mutation("evaluators/predictions.py", "sums.get(key, 0.0) + float(value)", "float(value)",
             ("evaluators/test_ensemble.py",), "an ensemble is scored on its last 4096 examples"),
    # augment
    Mutation("augment/mix.py", "[(i, last - i) for i in", "[(i, i) for i in",
             _MIX, "images are mixed with those of their own device alone"),
    Mutation("augment/color.py", "_where_drawn(rngs, streams.RANDOM_GREY,",
             "_where_drawn(rngs, streams.SOLARIZE,",
             ("augment/test_color.py",), "the images that turn grey are those that are solarized"),
    Mutation("augment/geometry.py",
             "jnp.round(jnp.sqrt(area) * root), jnp.round(jnp.sqrt(area) / root)",
             "jnp.round(jnp.sqrt(area) / root), jnp.round(jnp.sqrt(area) * root)",
             ("augment/test_geometry.py",), "the aspect of a crop is height over width"),
    Mutation("augment/views.py",
             "jax.random.fold_in(jax.random.fold_in(rng, streams.VIEW), view)",
             "jax.random.fold_in(rng, streams.VIEW)",
             ("augment/test_views.py",), "all local views of an image are the same"),
    Mutation("augment/policies.py", "jax.random.bernoulli(rngs[3], 0.5, turns), 1.0, -1.0",
             "jax.random.bernoulli(rngs[1], 0.5, turns), 1.0, -1.0",
             ("augment/test_policies.py",), "what RandAugment does has the same sign every time"),
)
# fmt: on


class Outcome(NamedTuple):
    """What a run of tests said: "caught", "survived" or "error", and its words for it."""

    verdict: str
    words: str


def main() -> int:
    """Runs the mutations that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", type=int, metavar="N", help="numbers, from --list")
    parser.add_argument("--list", action="store_true", help="list the mutations and stop")
    parser.add_argument(
        "--skip-baseline", action="store_true", help="do not run the tests without a bug first"
    )
    options = parser.parse_args()
    numbers = options.only or range(1, len(MUTATIONS) + 1)
    if not all(1 <= number <= len(MUTATIONS) for number in numbers):
        parser.error(f"mutations are numbered from 1 to {len(MUTATIONS)}")
    chosen = {number: MUTATIONS[number - 1] for number in numbers}
    if options.list:
        for number, mutation in chosen.items():
            print(f"{number:2d} {mutation.file}: {mutation.what}")
        return 0
    faults = [fault for mutation in chosen.values() for fault in _faults(mutation)]
    if faults:
        raise SystemExit("\n".join(faults))
    with tempfile.TemporaryDirectory(prefix="mutations_") as folder:
        copy = _copy(Path(folder))
        if not options.skip_baseline:
            _run_baseline(copy, chosen.values())
        outcomes = {number: _try(copy, number, chosen[number]) for number in chosen}
    return _report(chosen, outcomes)


def _faults(mutation):
    """Says why a mutation cannot be tried."""
    count = (ROOT / "fixed_head_jax" / mutation.file).read_text().count(mutation.old)
    faults = [] if count == 1 else [f"{mutation.file} has {mutation.old!r} {count} times, not once"]
    missing = [name for name in mutation.tests if not (ROOT / "tests" / name).exists()]
    return faults + [f"tests/{name} does not exist" for name in missing]


def _copy(folder):
    """Copies what the tests need; returns where to."""
    copy = folder / "copy"
    copy.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    (folder / "cache").mkdir()
    (copy / "shared_cache.py").write_text(_PLUGIN.format(cache=str(folder / "cache")))
    return copy


def _run_baseline(copy, mutations):
    """Stops unless the tests pass without a bug: "caught" would say nothing."""
    start = time.perf_counter()
    names = list(dict.fromkeys(name for mutation in mutations for name in mutation.tests))
    verdict, words = _run_tests(copy, names, _BASELINE_TIME_LIMIT)
    if verdict != "survived":
        raise SystemExit(f"the tests fail without any bug: {words}")
    seconds = time.perf_counter() - start
    print(f"without a bug: {len(names)} files of tests pass, {seconds:.0f} s", flush=True)


def _try(copy, number, mutation):
    """Runs the tests of one mutation on the copy, which is then as it was."""
    path, start = copy / "fixed_head_jax" / mutation.file, time.perf_counter()
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        outcome = _run_tests(copy, mutation.tests, TIME_LIMIT)
    finally:
        path.write_text(text)
    seconds = time.perf_counter() - start
    print(f"{number:2d} {outcome.verdict}, {seconds:.0f} s: {mutation.what}", flush=True)
    return outcome


def _run_tests(copy, names, limit):
    """Runs files of tests until the first failure."""
    command = [
        sys.executable, "-B", "-m", "pytest", "-o", "addopts=", "-m", "not slow", "-x", "-q",
        "-n", "0", "-p", "no:cacheprovider", "-p", "shared_cache",
        "--jaxtyping-packages=fixed_head_jax,beartype.beartype",
        *(f"tests/{name}" for name in names),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, timeout=limit, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return Outcome("caught", f"it hangs: stopped after {limit} s")
    failed = re.search(r"^FAILED tests/(\S+)", run.stdout, re.MULTILINE)
    if run.returncode == 1 and failed:
        return Outcome("caught", failed.group(1))
    if run.returncode == 0:
        return Outcome("survived", "")
    return Outcome("error", (run.stdout + run.stderr)[-2000:])


def _report(chosen, outcomes):
    """Prints the table and the survivors; returns the exit status."""
    print(f"\n{'no':>2}  {'file':32}  {'verdict':8}  by")
    for number, (verdict, words) in outcomes.items():
        print(f"{number:2d}  {chosen[number].file:32}  {verdict:8}  {words}")
    caught = sum(outcome.verdict == "caught" for outcome in outcomes.values())
    print(f"\ncaught {caught} of {len(outcomes)}")
    for number, outcome in outcomes.items():
        if outcome.verdict != "caught":
            print(f"{outcome.verdict}: {number} {chosen[number].file}: {chosen[number].what}")
    return 0 if caught >= min(ENOUGH, len(outcomes)) else 1


if __name__ == "__main__":
    sys.exit(main())
