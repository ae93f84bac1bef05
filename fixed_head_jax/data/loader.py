"""Batches read from disk while training, by threads that decode straight into the batch.

Decoders release Python's lock, so threads do what processes would, and nothing is copied between
processes. A batch is read in small pieces by all threads together: few batches are in memory at a
time, however many threads there are, and the batches do not depend on their number.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures

import numpy as np

from fixed_head_jax.data import sampling
from fixed_head_jax.data.crops import RandomCrop, draw, random_crops
from fixed_head_jax.data.sources import Source

_AHEAD = 2  # batches in the making while the training step has one
# Pixels that a thread reads at a time: many small images (reading records by 16 takes three times
# as long as by 128), or few large ones, so that all threads work on one batch.
_PIECE_BYTES = 2**21


def disk_batches(
    source: Source,
    order: Callable,
    batch_size: int,
    start_step: int,
    num_steps: int,
    num_threads: int,
    shard: tuple[int, int] = (0, 1),
    crops: Mapping[str, RandomCrop] | None = None,
    seed: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over the training batches of steps `start_step ... start_step + num_steps - 1`.

    Args:
        source: examples.
        order: step -> indices [B] of its examples.
        batch_size: B, of all processes together.
        start_step: first step; resuming needs no other state.
        num_steps: number of batches.
        num_threads: threads that read, >= 1.
        shard: (process index, process count): which slice b of the batch to read.
        crops: random crops of every image, under their names; None for `image`, the whole image
            as `source.fit` makes it.
        seed: of the crops.

    Returns:
        Batches {image uint8 [b,H,W,C], label int32 [b], index int32 [b], mask float32 [b]}; a crop
        with views is [b,V,H,W,C].

    Raises:
        ValueError: if an argument is out of range.
        BadRecordError: from the iterator.
    """
    part = sampling.shard_slice(batch_size, shard)

    def begin(step: int) -> tuple[dict, Callable]:
        index = order(step)[part]
        mask = np.ones(len(index), np.float32)
        if crops is None:
            return _begin_whole(source, index, mask)
        draws = {name: rows[part] for name, rows in draw(seed, step, batch_size, crops).items()}
        return _begin_crops(source, index, mask, crops, draws)

    if start_step < 0 or num_steps < 0:
        raise ValueError(f"start_step and num_steps must be >= 0, got {start_step} and {num_steps}")
    return _batches(source, begin, range(start_step, start_step + num_steps), num_threads)


def disk_eval_batches(
    source: Source, batch_size: int, num_threads: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over batches that hold every example once; `mask` is 0 where padded.

    Args and Returns as in `disk_batches`.
    """
    sampling.check_sizes(len(source), batch_size)
    part = sampling.shard_slice(batch_size, shard)

    def begin(step: int) -> tuple[dict, Callable]:
        index, mask = sampling.eval_indices(step, batch_size, len(source))
        return _begin_whole(source, index[part], mask[part])

    steps = range(sampling.num_eval_steps(len(source), batch_size))
    return _batches(source, begin, steps, num_threads)


def _begin_whole(source, index, mask):
    """Returns an empty batch and `write(i, encoded)`, which fills in the image of example i."""
    batch = _empty(index, mask, {"image": source.image_shape})
    return batch, lambda i, encoded: source.write_image(encoded, batch["image"][i])


def _begin_crops(source, index, mask, crops, draws):
    """Returns what `_begin_whole` does, for random crops."""
    channels = source.image_shape[-1]
    views = {name: (crop.views,) if crop.views else () for name, crop in crops.items()}
    shapes = {name: (*views[name], crop.size, crop.size, channels) for name, crop in crops.items()}
    batch = _empty(index, mask, shapes)

    def write(i, encoded):
        rows = {name: draws[name][i] for name in crops}
        random_crops(encoded, channels, crops, rows, {name: batch[name][i] for name in crops})

    return batch, write


def _empty(index, mask, shapes):
    images = {name: np.empty((len(index), *shape), np.uint8) for name, shape in shapes.items()}
    return {**images, "label": np.empty(len(index), np.int32), "index": index, "mask": mask}


def _batches(
    source: Source, begin: Callable, steps: Iterable[int], num_threads: int
) -> Iterator[dict[str, np.ndarray]]:
    if num_threads < 1:
        raise ValueError(f"num_threads must be >= 1, got {num_threads}")
    return _read_ahead(source, begin, steps, num_threads)


def _read_ahead(source, begin, steps, num_threads):
    size = max(16, _PIECE_BYTES // math.prod(source.image_shape))

    def read(batch, write, start):
        piece = slice(start, start + size)
        source.read_each(
            batch["index"][piece], batch["label"][piece], lambda i, image: write(start + i, image)
        )

    def finish(batch, pieces):
        for piece in pieces:
            piece.result()  # raises what the thread did
        return batch

    pool = futures.ThreadPoolExecutor(num_threads, thread_name_prefix="reader")
    try:
        waiting: deque = deque()
        for step in steps:
            batch, write = begin(step)
            starts = range(0, len(batch["index"]), size)
            waiting.append((batch, [pool.submit(read, batch, write, start) for start in starts]))
            if len(waiting) > _AHEAD:
                yield finish(*waiting.popleft())
        while waiting:
            yield finish(*waiting.popleft())
    finally:  # also where the iterator is left early
        pool.shutdown(cancel_futures=True)
