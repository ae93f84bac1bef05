"""Runs models over whole splits, every example once: sums of evaluators, or outputs for each."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from fixed_head_jax.data import Dataset
from fixed_head_jax.devices import parallel
from fixed_head_jax.evaluators.evaluator import Evaluator, FeatureEvaluator

_QUEUED = 2  # batches that the device may be behind the host
_ON_DEVICE = 16  # batches that are added in float32 before they are fetched


class Round(NamedTuple):
    """The passes of several evaluators over one split that run together.

    Attributes:
        split: whose images.
        passes: by the evaluator's name.
        program: `(models, (arrays, kernels, contexts), batch) -> {model: {evaluator: sums}}`,
            compiled.
    """

    split: str
    passes: dict[str, Any]
    program: Callable


def make_evaluate(
    model,
    evaluators: Mapping[str, Evaluator | FeatureEvaluator],
    augment: Callable,
    datasets: Mapping[str, Dataset],
    batch_size: int,
    mesh: Mesh,
) -> Callable:
    """Returns `evaluate(models, arrays) -> {"model/metric": float}`; compiles when first called.

    Args:
        model: a classifier of `model.get_model`.
        evaluators: by name; passes of the same number over the same split share one look.
        augment: `images -> images`, pixels to what the model takes.
        datasets: split -> data; `arrays` in the call are theirs, split by split, on the devices.
        batch_size: images per batch, at most all, rounded up to a multiple of the devices.
        mesh: of `parallel.make_mesh`.
    """
    of_features = {k: e for k, e in evaluators.items() if isinstance(e, FeatureEvaluator)}
    collects = _make_collects(model, of_features, augment, datasets, batch_size, mesh)
    evaluators = {k: e for k, e in evaluators.items() if k not in of_features}
    rounds = _rounds(model, evaluators, augment, datasets, mesh)
    image_shape = next(iter(datasets.values())).source.image_shape
    class_vectors = jax.jit(partial(_class_vectors, model, augment, image_shape))
    reads_kernel = any(evaluator.needs.class_vectors for evaluator in evaluators.values())

    def evaluate(models: Mapping[str, Mapping], arrays: Mapping[str, Mapping]) -> dict[str, float]:
        kernels = {key: class_vectors(models[key]) if reads_kernel else None for key in models}
        totals: dict[str, dict] = {key: {name: [] for name in evaluators} for key in models}
        contexts: dict[str, dict] = {key: {name: [] for name in evaluators} for key in models}
        for split, passes, program in rounds:
            here = {
                key: {name: one.context(totals[key][name]) for name, one in passes.items()}
                for key in models
            }
            inputs = arrays[split], kernels, parallel.replicate(here, mesh)
            batches = _batches(datasets[split], batch_size, mesh)
            sums = _sum(
                program(models, inputs, parallel.shard_batch(batch, mesh, parallel.SPLIT))
                for batch in batches
            )
            for key in models:
                for name in passes:
                    totals[key][name].append(sums[key][name])
                    contexts[key][name].append(here[key][name])
        metrics: dict[str, float] = {}
        for key, kernel in jax.device_get(kernels).items():
            for name, evaluator in evaluators.items():
                values = evaluator.metrics(totals[key][name], contexts[key][name], kernel)
                metrics |= {f"{key}/{metric}": float(value) for metric, value in values.items()}
        return metrics | _measure(of_features, collects, models, arrays)

    return evaluate


def _measure(evaluators, collects, models, arrays):
    """Returns the metrics of the feature evaluators."""

    def measure(key):  # features are large: those of one model are freed before the next
        collected = {
            split: collect({key: models[key]}, arrays[split]) for split, collect in collects.items()
        }
        outputs = {split: {**x[key], "label": x["label"]} for split, x in collected.items()}
        values = [evaluator.metrics(outputs) for evaluator in evaluators.values()]
        return {f"{key}/{name}": float(v) for found in values for name, v in found.items()}

    return {name: value for key in models for name, value in measure(key).items()}


def _class_vectors(model, augment, image_shape, variables):
    """Returns the head's class vectors [D, K]."""

    def features(variables, images):
        return model.apply(variables, augment(images), train=False)["features"]

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    dim = jax.eval_shape(features, variables, images).shape[1]
    return model.class_vectors(variables, dim)


def _rounds(model, evaluators, augment, datasets, mesh):
    """Groups the first passes by split, then the second ones, and so on."""
    rounds = []
    for index in range(max((len(e.passes) for e in evaluators.values()), default=0)):
        for split, dataset in datasets.items():
            passes = {
                name: evaluator.passes[index]
                for name, evaluator in evaluators.items()
                if index < len(evaluator.passes) and evaluator.passes[index].split == split
            }
            if passes:
                step = _make_step(model, passes, augment, dataset.fetch)
                program = parallel.pmap_step(step, mesh, parallel.SPLIT, donate=False)
                rounds.append(Round(split, passes, program))
    return rounds


def _make_step(model, passes, augment, fetch):
    """Returns the step of one round on one device's shard, for several sets of variables."""

    def step(models, inputs, batch):
        arrays, kernels, contexts = inputs
        batch = fetch(arrays, batch)
        images = augment(batch["image"])
        sums = {}
        for key, variables in models.items():
            outputs = model.apply(variables, images, train=False)
            outputs["kernel"] = kernels[key]
            sums[key] = {
                name: one.sums(outputs, batch["label"], batch["mask"], contexts[key][name])
                for name, one in passes.items()
            }
        return lax.psum(sums, parallel.AXIS)

    return step


def make_collect(
    model, select: Callable, augment: Callable, dataset: Dataset, batch_size: int, mesh: Mesh
) -> Callable:
    """Returns `collect(models, arrays) -> {"label" [N], model: outputs [N, ...]}`, on the host.

    Args:
        model: a classifier of `model.get_model`.
        select: `(images, what the model returns) -> tree of arrays [B, ...]` to keep; the images
            are levels.
        augment: `images -> images`, pixels to what the model takes.
        dataset: whose N examples, in its order; `arrays` in the call are its own on the devices.
        batch_size: images per batch, at most all, rounded up to a multiple of the devices.
        mesh: of `parallel.make_mesh`.
    """

    def step(models, arrays, batch):
        batch = dataset.fetch(arrays, batch)
        images = augment(batch["image"])
        outputs = {key: batch[key] for key in ("label", "mask")}
        for key, variables in models.items():
            outputs[key] = select(batch["image"], model.apply(variables, images, train=False))
        return lax.all_gather(outputs, parallel.AXIS, tiled=True)

    program = parallel.pmap_step(step, mesh, parallel.SPLIT, donate=False)

    def empty(part):
        return np.empty((len(dataset.source), *part.shape[1:]), part.dtype)

    def collect(models: Mapping[str, Mapping], arrays: Mapping) -> dict[str, Any]:
        collected: dict[str, Any] = {}
        count = 0
        for batch in _batches(dataset, batch_size, mesh):
            batch = parallel.shard_batch(batch, mesh, parallel.SPLIT)
            outputs = jax.device_get(program(models, arrays, batch))
            kept = outputs.pop("mask") > 0
            if not collected:  # all of it at once: features may fill the memory
                collected = jax.tree.map(empty, outputs)
            rows = slice(count, count + int(kept.sum()))
            for whole, part in zip(*map(jax.tree.leaves, (collected, outputs)), strict=True):
                whole[rows] = part[kept]
            count = rows.stop
        return collected

    return collect


def _batches(dataset, batch_size, mesh):
    """Returns the batches of this process; none is larger than the whole split asks for."""
    batch_size = min(batch_size, len(dataset.source))
    batch_size = -(-batch_size // mesh.size) * mesh.size
    return dataset.eval_batches(batch_size, parallel.process_shard())


def select_probabilities(images, outputs):
    """Selects the class probabilities [B, K]; for `make_collect`."""
    del images
    return jax.nn.softmax(outputs["logits"].astype(jnp.float32))


def _select(names, images, outputs):
    """Selects what feature evaluators read."""
    found = {"features": outputs["features"], "pixels": images.reshape(len(images), -1)}
    return {name: found[name] for name in names}


def _make_collects(model, evaluators, augment, datasets, batch_size, mesh):
    """Returns `collect` by split, of all that the feature evaluators read."""
    if not evaluators:
        return {}
    select = partial(_select, sorted({evaluator.reads for evaluator in evaluators.values()}))
    return {
        split: make_collect(model, select, augment, dataset, batch_size, mesh)
        for split, dataset in datasets.items()
    }


_add = jax.jit(partial(jax.tree.map, jnp.add))


def _sum(results: Iterable) -> Any:
    """Adds up trees of arrays: a few on the device, then those in float64 on the host."""
    total, part = None, None
    queue: deque = deque()

    def fetch(result):
        # [()] makes a number of an array without axes.
        result = jax.tree.map(lambda x: np.asarray(x, np.float64)[()], jax.device_get(result))
        return result if total is None else jax.tree.map(np.add, total, result)

    for number, result in enumerate(results, start=1):
        part = result if part is None else _add(part, result)
        queue.append(part)
        if len(queue) > _QUEUED:
            jax.block_until_ready(queue.popleft())
        if number % _ON_DEVICE == 0:
            total, part = fetch(part), None
    return total if part is None else fetch(part)
