"""Batches read from disk while training, by Grain's threads.

One thread reads one whole batch; Grain hands them out in order, so the batches do not depend on
the number of threads.
"""

from collections.abc import Callable, Iterator

import grain
import numpy as np

from fixed_head_jax.data import sampling
from fixed_head_jax.data.sources import Source


def disk_batches(
    source: Source,
    order: Callable,
    batch_size: int,
    start_step: int,
    num_steps: int,
    num_threads: int,
    shard: tuple[int, int] = (0, 1),
    draws: Callable | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over the training batches of steps `start_step ... start_step + num_steps - 1`.

    Args:
        source: examples.
        order: step -> indices [B] of its examples.
        batch_size: B, of all processes together.
        start_step: first step; resuming needs no other state.
        num_steps: number of batches.
        num_threads: batches read at the same time, >= 1.
        shard: (process index, process count): which slice b of the batch to read.
        draws: step -> what the random resized crops [B] need; None for central ones.

    Returns:
        Batches {image uint8 [b,H,W,C], label int32 [b], index int32 [b], mask float32 [b]}.

    Raises:
        ValueError: if an argument is out of range, or from the iterator on a bad record.
    """
    part = sampling.shard_slice(batch_size, shard)

    def read(step: int) -> dict[str, np.ndarray]:
        index = order(step)[part]
        drawn = None if draws is None else draws(step)[part]
        return _read(source, index, np.ones(len(index), np.float32), drawn)

    return _batches(read, start_step, num_steps, num_threads)


def disk_eval_batches(
    source: Source, batch_size: int, num_threads: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over batches that hold every example once; `mask` is 0 where padded.

    Args and Returns as in `disk_batches`.
    """
    sampling.check_sizes(len(source), batch_size)
    part = sampling.shard_slice(batch_size, shard)

    def read(step: int) -> dict[str, np.ndarray]:
        index, mask = sampling.eval_indices(step, batch_size, len(source))
        return _read(source, index[part], mask[part])

    num_steps = sampling.num_eval_steps(len(source), batch_size)
    return _batches(read, 0, num_steps, num_threads)


def _read(
    source: Source, index: np.ndarray, mask: np.ndarray, draws: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    images, labels = source.read(index, draws)
    return {"image": images, "label": labels, "index": index, "mask": mask}


def _batches(
    read: Callable, start_step: int, num_steps: int, num_threads: int
) -> Iterator[dict[str, np.ndarray]]:
    if start_step < 0 or num_steps < 0:
        raise ValueError(f"start_step and num_steps must be >= 0, got {start_step} and {num_steps}")
    if num_threads < 1:
        raise ValueError(f"num_threads must be >= 1, got {num_threads}")
    if num_steps == 0:
        return iter(())
    # One batch in the making per thread and one finished batch waiting for each.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    steps = grain.MapDataset.range(start_step, start_step + num_steps)
    return iter(steps.map(read).to_iter_dataset(options))
