"""Index orders in which every class comes equally often, as pure functions of seed and step."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Integer

from fixed_head_jax.data.sampling import read_stream, shuffle


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
    draw = _class_order if shuffled else _in_order
    first, last = step * batch_size, (step + 1) * batch_size
    turns = range(first // per_class, -(-last // per_class))
    order = functools.partial(draw, seed, length=len(members), stream=(0, 1))
    classes = read_stream(order, len(members), turns.start, len(turns))
    examples = []
    for turn, position in zip(turns, classes.tolist(), strict=True):
        own = members[position]
        order = functools.partial(draw, seed, length=len(own), stream=(position + 1, 1))
        examples.append(
            own[read_stream(order, len(own), turn // len(members) * per_class, per_class)]
        )
    skipped = first - turns.start * per_class
    return np.concatenate(examples)[skipped : skipped + batch_size]


def class_balanced_indices(
    seed: int, step: int, batch_size: int, members: Sequence[Int32[np.ndarray, " _"]]
) -> Int32[np.ndarray, " b"]:
    """Returns the examples of batch `step`, each of a class and in it drawn with equal chances.

    Every position is drawn on its own, with replacement.

    Args:
        seed: seed of the order, >= 0.
        step: number of the batch, from 0 over the whole run.
        batch_size: B, of all devices together.
        members: of `class_members`, K classes.

    Source: Kang et al. 2020, Decoupling representation and classifier, section 3 (q = 0).
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, 0, 0, 3]))
    classes = rng.integers(len(members), size=batch_size)
    places = rng.random(batch_size)
    return np.array(
        [
            members[label][int(place * len(members[label]))]
            for label, place in zip(classes, places, strict=True)
        ],
        np.int32,
    )


# A class's list serves many turns; all lists together have as many entries as the source.
_class_order = functools.lru_cache(maxsize=2**15)(shuffle)


def _in_order(seed, epoch, length, stream):
    del seed, epoch, stream
    return np.arange(length, dtype=np.int32)
