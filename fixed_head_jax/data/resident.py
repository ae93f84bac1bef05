"""Datasets kept whole in device memory: batches are indices, and the step gathers the images."""

from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from jaxtyping import Array, Int32, UInt8

from fixed_head_jax.data import sampling
from fixed_head_jax.data.sources import Source

_CHUNK = 512  # examples per read


def load(
    source: Source, num_threads: int
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    """Reads all images and labels of `source`, in order, with `num_threads` threads."""
    images = np.empty((len(source), *source.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)

    def read(start: int) -> None:
        stop = min(start + _CHUNK, len(source))
        images[start:stop], labels[start:stop] = source.read(np.arange(start, stop))

    with futures.ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(read, range(0, len(source), _CHUNK)))
    return images, labels


def gather(arrays: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
    """Looks up the examples of a batch, on the device.

    Args:
        arrays: {image [N,H,W,C], label [N]}.
        batch: {index [B], mask [B]}.

    Returns:
        {image [B,H,W,C], label [B], index [B], mask [B]}.
    """
    index = batch["index"]
    examples = {key: value.at[index].get(mode="clip") for key, value in arrays.items()}
    return {**examples, "index": index, "mask": batch["mask"]}


def index_batches(
    order: Callable,
    batch_size: int,
    start_step: int,
    num_steps: int,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over {index int32 [b], mask float32 [b]} of training steps from `start_step`.

    Arguments as in `loader.disk_batches`, whose batches hold the same examples.
    """
    part = sampling.shard_slice(batch_size, shard)
    if start_step < 0 or num_steps < 0:
        raise ValueError(f"start_step and num_steps must be >= 0, got {start_step} and {num_steps}")
    mask = np.ones(part.stop - part.start, np.float32)
    return (
        {"index": order(step)[part], "mask": mask}
        for step in range(start_step, start_step + num_steps)
    )


def index_eval_batches(
    batch_size: int, num_examples: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over {index, mask} of batches that hold every example exactly once."""
    part = sampling.shard_slice(batch_size, shard)
    batches = sampling.eval_batches(num_examples, batch_size)
    return ({"index": index[part], "mask": mask[part]} for index, mask in batches)
