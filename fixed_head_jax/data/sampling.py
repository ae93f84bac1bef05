"""Index orders: which examples make up which batch, as pure functions of seed and step.

Training reads ONE continuous stream: position p belongs to epoch p // N, every epoch is a fresh
permutation of the N examples, and batch `step` is positions step * B ... step * B + B - 1. Batches
may straddle epochs, so each example is seen exactly once per epoch and none is dropped. With
repeats the stream has a step's share of B / repeats positions, and the batch holds each of them
that often. `class_sampling` has streams in which every class comes equally often.
"""

import functools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int32


def epoch_start(epoch: float | int, num_examples: int, batch_size: int) -> int:
    """Computes the number of steps after which `epoch` epochs are complete.

    `ceil(epoch * N / B)`, exactly: a float epoch stands for the nearest fraction with a
    denominator of at most a million, so that 0.1 is 1/10.

    Args:
        epoch: number of epochs, >= 0.
        num_examples: N.
        batch_size: B, of all devices together.

    Returns:
        The first step that reads nothing from before `epoch`.
    """
    check_sizes(num_examples, batch_size)
    exact = Fraction(epoch).limit_denominator(1_000_000)
    return math.ceil(exact * num_examples / batch_size)


def shuffle(seed: int, epoch: int, length: int, stream=(0, 0)) -> Int32[np.ndarray, " length"]:
    """Draws a permutation; those of different streams are independent."""
    bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, *stream])
    return np.random.Generator(bits).permutation(length).astype(np.int32)


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, length):
    order = shuffle(seed, epoch, length)
    order.flags.writeable = False  # the cache hands the same array to every caller
    return order


def read_stream(order: Callable, length: int, first: int, count: int) -> Int32[np.ndarray, " b"]:
    """Reads positions first ... first + count - 1 of order(0), order(1), ..., one after another."""
    pieces, last = [], first + count
    while first < last:
        epoch, offset = divmod(first, length)
        piece = order(epoch)[offset : offset + last - first]
        pieces.append(piece)
        first += len(piece)
    return np.concatenate(pieces)


def train_indices(
    seed: int, step: int, batch_size: int, num_examples: int, repeats: int = 1
) -> Int32[np.ndarray, " b"]:
    """Returns the examples of training batch `step`.

    Args:
        seed: seed of the order, >= 0.
        step: number of the batch, from 0 over the whole run.
        batch_size: B, of all devices together; may exceed `num_examples`.
        num_examples: N.
        repeats: how often each example is in its batch, a divisor of B; the copies are
            B / repeats places apart, on different devices: repeated augmentation.

    Returns:
        Indices into the source, each in 0 ... N - 1.

    Source: of the repeats, Hoffer et al. 2020, Augment your batch; Berman et al. 2019, MultiGrain.
    """
    count = batch_size // repeats
    order = functools.partial(_permutation, seed, length=num_examples)
    return np.tile(read_stream(order, num_examples, step * count, count), repeats)


def eval_batches(
    num_examples: int, batch_size: int
) -> Iterator[tuple[Int32[np.ndarray, " b"], Float32[np.ndarray, " b"]]]:
    """Iterates over (indices, mask) of batches that hold every example exactly once.

    The last batch is padded with index 0 and mask 0, so that all have one shape.
    """
    check_sizes(num_examples, batch_size)
    return (
        eval_indices(step, batch_size, num_examples)
        for step in range(num_eval_steps(num_examples, batch_size))
    )


def num_eval_steps(num_examples: int, batch_size: int) -> int:
    """Counts the batches of `eval_batches`."""
    return -(-num_examples // batch_size)


def eval_indices(
    step: int, batch_size: int, num_examples: int
) -> tuple[Int32[np.ndarray, " b"], Float32[np.ndarray, " b"]]:
    """Returns (indices, mask) of evaluation batch `step`; mask is 0 where padded."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    real = positions < num_examples
    return np.where(real, positions, 0).astype(np.int32), real.astype(np.float32)


def shard_slice(batch_size: int, shard: tuple[int, int]) -> slice:
    """Returns the contiguous slice of a global batch that process `shard[0]` of `shard[1]` reads.

    Raises:
        ValueError: if the batch does not divide evenly or there is no such process.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (index, count) with 0 <= index < count, got {shard}")
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"batch_size must be a positive multiple of the {count} processes, got {batch_size}"
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def check_sizes(num_examples: int, batch_size: int, seed: int = 0, repeats: int = 1) -> None:
    """Raises ValueError unless there is something to order."""
    if num_examples < 1:
        raise ValueError(f"num_examples must be >= 1, got {num_examples}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if repeats < 1 or batch_size % repeats:
        raise ValueError(f"repeats must be >= 1 and divide batch_size={batch_size}, got {repeats}")
