"""Datasets: a source, where its images are kept, and the batches of every step."""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

from fixed_head_jax.data import loader, resident, sources

PLACEMENTS = ("auto", "resident", "disk")


class Dataset(NamedTuple):
    """One split, ready to be iterated over; the batches do not depend on the placement.

    Attributes:
        source: name, split, num_classes, class_names, image_shape, length.
        arrays: `() -> {image [N,H,W,C], label [N]}`, numpy, to be put on the device once; reads
            the whole split. `{}` on disk.
        fetch: `(arrays, batch) -> {image, label, index, mask}`, pure, to be called in the step.
        train_batches: `(seed, batch_size, start_step, num_steps, shard=(0, 1)) -> iterator`.
        eval_batches: `(batch_size, shard=(0, 1)) -> iterator`, every example once.
    """

    source: sources.Source
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
    placement: str = "auto",
    num_threads: int = 0,
    memory_limit: int = 2**31,
) -> Dataset:
    """Opens a split; images are read when `arrays` is called or the batches are iterated over.

    Args:
        name: dataset, as are `split`, `data_dir`, `first_classes` and `image_size`, of
            `sources.open_source`.
        placement: "resident" keeps all images on the device, "disk" reads each batch, "auto" is
            resident where they take at most `memory_limit`.
        num_threads: threads that read; 0 for one per CPU.
        memory_limit: bytes of uint8 images.

    Raises:
        ValueError: if an argument does not fit.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"unknown placement {placement!r}; use one of {', '.join(PLACEMENTS)}")
    if num_threads < 0:
        raise ValueError(f"num_threads must be >= 0 (0 for one per CPU), got {num_threads}")
    num_threads = num_threads or os.cpu_count() or 1
    source = sources.open_source(name, split, data_dir, first_classes, image_size)
    size = len(source) * math.prod(source.image_shape)
    if placement == "resident" or (placement == "auto" and size <= memory_limit):
        return _resident(source, num_threads)
    return _disk(source, num_threads)


def _resident(source: sources.Source, num_threads: int) -> Dataset:
    def arrays():
        images, labels = resident.load(source, num_threads)
        return {"image": images, "label": labels}

    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        return resident.index_batches(seed, batch_size, len(source), start_step, num_steps, shard)

    def eval_batches(batch_size, shard=(0, 1)):
        return resident.index_eval_batches(batch_size, len(source), shard)

    return Dataset(source, arrays, resident.gather, train_batches, eval_batches)


def _disk(source: sources.Source, num_threads: int) -> Dataset:
    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        return loader.disk_batches(
            source, seed, batch_size, start_step, num_steps, num_threads, shard
        )

    def eval_batches(batch_size, shard=(0, 1)):
        return loader.disk_eval_batches(source, batch_size, num_threads, shard)

    return Dataset(source, dict, _identity, train_batches, eval_batches)


def _identity(arrays: dict, batch: dict) -> dict:
    return batch
