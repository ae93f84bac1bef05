"""Datasets: a source, where its images are kept, and the batches of every step."""

import functools
import math
import os
from collections.abc import Callable
from typing import NamedTuple

from fixed_head_jax.data import crops, loader, resident, sampling, sources
from fixed_head_jax.lookup import check_choice

PLACEMENTS = ("auto", "resident", "disk")
SAMPLERS = ("shuffled", "class_aware")
CROPS = ("center", "random_resized")


class Dataset(NamedTuple):
    """One split, ready to be iterated over; the batches do not depend on the placement.

    Attributes:
        source: name, split, num_classes, class_names, image_shape, length.
        labels: `() -> labels [N]`, numpy; scans the split when first called.
        arrays: `() -> {image [N,H,W,C], label [N]}`, numpy, to be put on the device once; reads
            the whole split. `{}` on disk.
        fetch: `(arrays, batch) -> {image, label, index, mask}`, pure, to be called in the step.
        train_batches: `(seed, batch_size, start_step, num_steps, shard=(0, 1)) -> iterator`.
        eval_batches: `(batch_size, shard=(0, 1)) -> iterator`, every example once.
    """

    source: sources.Source
    labels: Callable
    arrays: Callable
    fetch: Callable
    train_batches: Callable
    eval_batches: Callable


def open_dataset(
    name: str,
    split: str,
    data_dir: str = "",
    first_classes: int = 0,
    image_size: int = 0,
    resize_size: int = 0,
    train_crop: str = "center",
    placement: str = "auto",
    num_threads: int = 0,
    sampler: str = "shuffled",
    per_class: int = 4,
    memory_limit: int = 2**31,
) -> Dataset:
    """Opens a split; images are read when `arrays` is called or the batches are iterated over.

    Args:
        name: dataset, as are `split`, `data_dir`, `first_classes`, `image_size` and
            `resize_size`, of `sources.open_source`.
        train_crop: of the training batches: "center", or "random_resized", drawn anew for every
            batch (`crops.random_box`), which reads from disk.
        placement: "resident" keeps all images on the device, "disk" reads each batch, "auto" is
            resident where they take at most `memory_limit`.
        num_threads: threads that read; 0 for one per CPU.
        sampler: order of the training batches: "shuffled", every example once per epoch, or
            "class_aware", every class equally often; both as in `sampling`.
        per_class: consecutive examples of one class in "class_aware", >= 1.
        memory_limit: bytes of uint8 images.

    Raises:
        ValueError: if an argument does not fit.
    """
    check_choice("placement", placement, PLACEMENTS)
    check_choice("sampler", sampler, SAMPLERS)
    check_choice("train_crop", train_crop, CROPS)
    if train_crop == "random_resized" and (placement == "resident" or not image_size):
        raise ValueError(
            "train_crop='random_resized' needs image_size > 0 and placement 'auto' or 'disk', got "
            f"image_size={image_size} and placement={placement!r}"
        )
    if per_class < 1:
        raise ValueError(f"per_class must be >= 1, got {per_class}")
    if num_threads < 0:
        raise ValueError(f"num_threads must be >= 0 (0 for one per CPU), got {num_threads}")
    num_threads = num_threads or os.cpu_count() or 1
    source = sources.open_source(name, split, data_dir, first_classes, image_size, resize_size)
    labels = functools.cache(source.read_labels)
    order = _class_aware(labels, per_class) if sampler == "class_aware" else _shuffled(len(source))
    size = len(source) * math.prod(source.image_shape)
    if train_crop == "random_resized":
        return _disk(source, labels, order, num_threads, crops.draw)
    if placement == "resident" or (placement == "auto" and size <= memory_limit):
        return _resident(source, labels, order, num_threads)
    return _disk(source, labels, order, num_threads)


def _shuffled(num_examples: int) -> Callable:
    """Returns `(seed, batch_size) -> order`, with `order(step)` the indices of a batch."""

    def order(seed, batch_size):
        sampling.check_sizes(num_examples, batch_size, seed)
        return functools.partial(
            sampling.train_indices, seed, batch_size=batch_size, num_examples=num_examples
        )

    return order


def _class_aware(labels: Callable, per_class: int) -> Callable:
    """Returns what `_shuffled` does, for classes that take turns."""

    def order(seed, batch_size):
        members = sampling.class_members(labels())
        sampling.check_sizes(len(members), batch_size, seed)
        return functools.partial(
            sampling.class_aware_indices,
            seed, batch_size=batch_size, members=members, per_class=per_class,
        )  # fmt: skip

    return order


def _resident(
    source: sources.Source, labels: Callable, order: Callable, num_threads: int
) -> Dataset:
    def arrays():
        images, labels = resident.load(source, num_threads)
        return {"image": images, "label": labels}

    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        indices = order(seed, batch_size)
        return resident.index_batches(indices, batch_size, start_step, num_steps, shard)

    def eval_batches(batch_size, shard=(0, 1)):
        return resident.index_eval_batches(batch_size, len(source), shard)

    return Dataset(source, labels, arrays, resident.gather, train_batches, eval_batches)


def _disk(
    source: sources.Source,
    labels: Callable,
    order: Callable,
    num_threads: int,
    draw: Callable | None = None,
) -> Dataset:
    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        indices = order(seed, batch_size)
        draws = draw and functools.partial(draw, seed, batch_size=batch_size)
        return loader.disk_batches(
            source, indices, batch_size, start_step, num_steps, num_threads, shard, draws
        )

    def eval_batches(batch_size, shard=(0, 1)):
        return loader.disk_eval_batches(source, batch_size, num_threads, shard)

    return Dataset(source, labels, dict, _identity, train_batches, eval_batches)


def _identity(arrays: dict, batch: dict) -> dict:
    return batch
