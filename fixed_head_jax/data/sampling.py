"""Index orders: which examples make up which batch, as pure functions of seed and step.

Training reads ONE continuous stream: position p belongs to epoch p // N, every epoch is a fresh
permutation of the N examples, and batch `step` is positions step * B ... step * B + B - 1. Batches
may straddle epochs, so each example is seen exactly once per epoch and none is dropped.
`class_aware_indices` is a second stream of the same kind, in which every class comes equally often.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int32, Integer


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


def _shuffle(seed, epoch, length, stream=(0, 0)):
    """Draws a permutation; those of different streams are independent."""
    bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, *stream])
    return np.random.Generator(bits).permutation(length).astype(np.int32)


def _in_order(seed, epoch, length, stream):
    del seed, epoch, stream
    return np.arange(length, dtype=np.int32)


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, length):
    order = _shuffle(seed, epoch, length)
    order.flags.writeable = False  # the cache hands the same array to every caller
    return order


def _read(order: Callable, length: int, first: int, count: int) -> Int32[np.ndarray, " b"]:
    """Reads positions first ... first + count - 1 of order(0), order(1), ..., one after another."""
    pieces, last = [], first + count
    while first < last:
        epoch, offset = divmod(first, length)
        piece = order(epoch)[offset : offset + last - first]
        pieces.append(piece)
        first += len(piece)
    return np.concatenate(pieces)


def train_indices(
    seed: int, step: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, " b"]:
    """Returns the examples of training batch `step`.

    Args:
        seed: seed of the order, >= 0.
        step: number of the batch, from 0 over the whole run.
        batch_size: B, of all devices together; may exceed `num_examples`.
        num_examples: N.

    Returns:
        Indices into the source, each in 0 ... N - 1.
    """
    order = functools.partial(_permutation, seed, length=num_examples)
    return _read(order, num_examples, step * batch_size, batch_size)


def class_members(labels: Integer[np.ndarray, " n"]) -> tuple[Int32[np.ndarray, " _"], ...]:
    """Lists the examples of each class, for `class_aware_indices`.

    Args:
        labels: class of every example of the source, in its order.

    Returns:
        One array of indices per class that has any, by class; each in the order of the source.

    Raises:
        ValueError: if there are no examples.
    """
    if not len(labels):
        raise ValueError("class-aware sampling needs examples, got no labels")
    order = np.argsort(labels, kind="stable").astype(np.int32)
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    return tuple(np.split(order, borders))


def class_aware_indices(
    seed: int,
    step: int,
    batch_size: int,
    members: Sequence[Int32[np.ndarray, " _"]],
    per_class: int = 4,
    shuffled: bool = True,
) -> Int32[np.ndarray, " b"]:
    """Returns the examples of batch `step` when classes take turns, `per_class` examples each.

    There is one cyclic list of the classes and one of the examples of each class; a list is
    shuffled again each time it has been used up. A turn takes the next `per_class` examples of the
    next class, so classes smaller than that repeat within a turn. Since every class has one turn
    per round, position p of the stream is a function of p alone: turn p // per_class, of round
    p // (per_class * K), in which the class's own list has advanced by per_class * round.

    Args:
        seed: seed of the order, >= 0.
        step: number of the batch, from 0 over the whole run.
        batch_size: B, of all devices together; a turn may straddle batches.
        members: of `class_members`, K classes.
        per_class: consecutive examples of a turn, >= 1.
        shuffled: False keeps every list in its given order.

    Returns:
        Indices into the source.

    Raises:
        ValueError: if `per_class` is out of range.

    Source: Kobayashi 2021 (released code), second stage. There the stream is cut every (largest
    class size) x K examples and drops the rest of a turn that the cut splits; ours has no cut.
    """
    if per_class < 1:
        raise ValueError(f"per_class must be >= 1, got {per_class}")
    draw = _shuffle if shuffled else _in_order
    first, last = step * batch_size, (step + 1) * batch_size
    turns = range(first // per_class, -(-last // per_class))
    order = functools.partial(draw, seed, length=len(members), stream=(0, 1))
    classes = _read(order, len(members), turns.start, len(turns))
    examples = []
    for turn, position in zip(turns, classes.tolist(), strict=True):
        own = members[position]
        order = functools.partial(draw, seed, length=len(own), stream=(position + 1, 1))
        examples.append(own[_read(order, len(own), turn // len(members) * per_class, per_class)])
    skipped = first - turns.start * per_class
    return np.concatenate(examples)[skipped : skipped + batch_size]


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


def check_sizes(num_examples: int, batch_size: int, seed: int = 0) -> None:
    """Raises ValueError unless there is something to order."""
    if num_examples < 1:
        raise ValueError(f"num_examples must be >= 1, got {num_examples}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
