"""Datasets: a source, where its images are kept, and the batches of every step."""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from fixed_head_jax.data import class_sampling, loader, resident, sampling, sources
from fixed_head_jax.data.crops import RandomCrop
from fixed_head_jax.data.crops import check as check_crop
from fixed_head_jax.data.options import Options


class Dataset(NamedTuple):
    """One split, ready to be iterated over; the batches do not depend on the placement.

    Attributes:
        source: name, split, num_classes, class_names, image_shape, labels, length.
        arrays: `() -> {image [N,H,W,C], label [N]}`, numpy, to be put on the device once; reads
            the whole split. `{}` on disk.
        fetch: `(arrays, batch) -> {image, label, index, mask}`, pure, to be called in the step.
        train_batches: `(seed, batch_size, start_step, num_steps, shard=(0, 1)) -> iterator`.
        eval_batches: `(batch_size, shard=(0, 1)) -> iterator`, every example once.
        num_bytes: of `arrays`.
    """

    source: sources.Source
    arrays: Callable
    fetch: Callable
    train_batches: Callable
    eval_batches: Callable
    num_bytes: int


def open_dataset(
    name: str,
    split: str,
    data_dir: str = "",
    *,
    first_classes: int = 0,
    skip_classes: int = 0,
    fraction: float = 1.0,
    list_file: str = "",
    image_size: int = 0,
    resize_size: int = 0,
    interpolation: str = "bilinear",
    crops: Mapping[str, RandomCrop] | None = None,
    placement: str = "auto",
    num_threads: int = 0,
    sampler: str = "shuffled",
    per_class: int = 4,
    repeats: int = 1,
    memory_limit: int = 2**31,
    unlabelled: bool = False,
    channels: int = 0,
) -> Dataset:
    """Opens a split; images are read when `arrays` is called or the batches are iterated over.

    Args:
        name: dataset, as are all arguments up to `interpolation`, of `sources.open_source`.
        crops: random crops of the training images under their names, drawn anew for every batch
            and read from disk: `{"image": RandomCrop(224)}`, or several of one decoded image for
            methods that compare views; None for the whole image as evaluation sees it.
        placement: "resident" keeps all images on the device, "disk" reads each batch, "auto" is
            resident where they take at most `memory_limit` and there are no `crops`.
        num_threads: threads that read; 0 for one per CPU.
        sampler: order of the training batches: "shuffled", every example once per epoch;
            "class_aware", classes in turn, `per_class` examples each; "class_balanced", class
            and example drawn at random.
        per_class: consecutive examples of one class in "class_aware", >= 1.
        repeats: how often "shuffled" has an example in its batch, >= 1; an epoch is still as many
            images.
        memory_limit: bytes of uint8 images.
        unlabelled: whether the split's labels are not known (stored as -1); they are given as -1.
            Not for `first_classes`, `skip_classes`, a `fraction` below 1 or sampling by class.
        channels: of `sources.open_source`.

    Raises:
        ValueError: if an argument does not fit.
    """
    Options(  # refuses what its keys may not be
        num_threads=num_threads, placement=placement, sampler=sampler, per_class=per_class,
        repeats=repeats, unlabelled=unlabelled,
    )  # fmt: skip
    if crops is not None and placement == "resident":
        raise ValueError(
            "random crops on the host need placement 'auto' or 'disk', got 'resident'; "
            "use augment.crop_scale to crop on the device"
        )
    for crop in (crops or {}).values():
        check_crop(crop)
    num_threads = num_threads or os.cpu_count() or 1
    source = sources.open_source(
        name, split, data_dir, first_classes, skip_classes, fraction, list_file,
        image_size, resize_size, interpolation, num_threads, unlabelled=unlabelled,
        channels=channels,
    )  # fmt: skip
    order = _make_order(source, sampler, per_class, repeats)
    size = len(source) * math.prod(source.image_shape)
    fits = placement == "auto" and size <= memory_limit and crops is None
    if placement == "resident" or fits:
        return _resident(source, order, num_threads)
    return _disk(source, order, num_threads, crops)


def _make_order(source, sampler, per_class, repeats):
    """Returns `(seed, batch_size) -> order`, with `order(step)` the indices of a batch."""
    indices: dict[str, Callable] = {
        "shuffled": partial(sampling.train_indices, num_examples=len(source), repeats=repeats),
        "class_aware": partial(class_sampling.class_aware_indices, per_class=per_class),
        "class_balanced": class_sampling.class_balanced_indices,
    }

    def order(seed, batch_size):
        sampling.check_sizes(len(source), batch_size, seed, repeats)
        options = {}
        if sampler != "shuffled":
            options["members"] = class_sampling.class_members(source.labels)
        return partial(indices[sampler], seed, batch_size=batch_size, **options)

    return order


def _resident(source: sources.Source, order: Callable, num_threads: int) -> Dataset:
    def arrays():
        images, labels = resident.load(source, num_threads)
        return {"image": images, "label": labels}

    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        indices = order(seed, batch_size)
        return resident.index_batches(indices, batch_size, start_step, num_steps, shard)

    def eval_batches(batch_size, shard=(0, 1)):
        return resident.index_eval_batches(batch_size, len(source), shard)

    size = len(source) * (math.prod(source.image_shape) + 4)
    return Dataset(source, arrays, resident.gather, train_batches, eval_batches, size)


def _disk(
    source: sources.Source,
    order: Callable,
    num_threads: int,
    crops: Mapping[str, RandomCrop] | None,
) -> Dataset:
    def train_batches(seed, batch_size, start_step, num_steps, shard=(0, 1)):
        indices = order(seed, batch_size)
        return loader.disk_batches(
            source, indices, batch_size, start_step, num_steps, num_threads, shard, crops, seed
        )

    def eval_batches(batch_size, shard=(0, 1)):
        return loader.disk_eval_batches(source, batch_size, num_threads, shard)

    return Dataset(source, dict, _identity, train_batches, eval_batches, 0)


def _identity(arrays: dict, batch: dict) -> dict:
    return batch
