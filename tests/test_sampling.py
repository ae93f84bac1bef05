"""Class-aware sampling against the published trace and a simulation of the cyclic lists."""

import collections

import numpy as np
import pytest

from fixed_head_jax.data import sampling

WORKED = np.array([0, 0, 0, 1, 2, 2, 2, 2, 2])  # specification 7.8


def stream(members, count, seed=0, batch_size=None, **options):
    batch_size = batch_size or count
    steps = range(-(-count // batch_size))
    batches = [
        sampling.class_aware_indices(seed, step, batch_size, members, **options) for step in steps
    ]
    return np.concatenate(batches)[:count]


def long_tailed(seed=0, num_classes=70):
    rng = np.random.default_rng(seed)
    sizes = 1 + (300 * rng.power(0.2, num_classes)).astype(int)
    return rng.permutation(np.repeat(np.arange(num_classes), sizes))


def test_members_of_classes():
    members = sampling.class_members(np.array([5, 0, 2, 0, 5, 5], np.int32))
    assert [own.tolist() for own in members] == [[1, 3], [2], [0, 4, 5]]
    assert members[0].dtype == np.int32
    assert [own.tolist() for own in sampling.class_members(np.zeros(3, np.int64))] == [[0, 1, 2]]
    with pytest.raises(ValueError, match="needs examples, got no labels"):
        sampling.class_members(np.zeros(0, np.int32))


def test_published_trace_without_shuffling():
    # The reference cuts its stream after 15 = 5 x 3 examples and drops the rest of that turn.
    result = stream(sampling.class_members(WORKED), 31, shuffled=False).tolist()
    assert result[:15] == [0, 1, 2, 0, 3, 3, 3, 3, 4, 5, 6, 7, 1, 2, 0]
    assert result[15] == 1
    assert result[16:] == [3, 3, 3, 3, 8, 4, 5, 6, 2, 0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("per_class", [1, 3, 4, 7])
def test_lists_are_those_of_a_simulation_that_keeps_state(per_class):
    members, seed = sampling.class_members(long_tailed(num_classes=9)), 3

    def cyclic(length, *stream):
        epoch = 0
        while True:
            yield from sampling._shuffle(seed, epoch, length, stream)
            epoch += 1

    classes = cyclic(len(members), 0, 1)
    lists = [cyclic(len(own), position + 1, 1) for position, own in enumerate(members)]
    expected = []
    while len(expected) < 1200:
        position = next(classes)
        expected += [members[position][next(lists[position])] for _ in range(per_class)]
    result = stream(members, 1200, seed, batch_size=37, per_class=per_class)
    np.testing.assert_array_equal(result, expected[:1200])


@pytest.mark.parametrize("shuffled", [False, True])
def test_exact_counts(shuffled):
    labels = long_tailed()
    members = sampling.class_members(labels)
    rounds = 40
    indices = stream(members, rounds * 70 * 4, batch_size=256, shuffled=shuffled)
    turns = labels[indices].reshape(rounds, 70, 4)
    # A turn is of one class, and every class has one turn per round.
    assert (turns == turns[..., :1]).all()
    np.testing.assert_array_equal(np.sort(turns[..., 0]), np.tile(np.arange(70), (rounds, 1)))
    # No example of a class comes an (n + 1)th time before all others of it came n times.
    counts = np.bincount(indices, minlength=len(labels))
    for own in members:
        passes, rest = divmod(rounds * 4, len(own))
        tally = collections.Counter(counts[own].tolist())
        assert tally == collections.Counter({passes: len(own) - rest, passes + 1: rest} if rest
                                            else {passes: len(own)})  # fmt: skip


def test_a_batch_of_256_holds_64_classes_four_times():
    labels = long_tailed()
    members = sampling.class_members(labels)
    for step in (0, 1, 99):
        batch = labels[sampling.class_aware_indices(1, step, 256, members)].reshape(64, 4)
        assert (batch == batch[:, :1]).all()
        assert np.bincount(batch[:, 0], minlength=70).max() <= 2  # two: from one round to the next


def test_batches_depend_on_nothing_but_the_arguments():
    members = sampling.class_members(long_tailed())
    forward = [sampling.class_aware_indices(1, step, 50, members) for step in range(30)]
    for step in reversed(range(30)):
        np.testing.assert_array_equal(
            sampling.class_aware_indices(1, step, 50, members), forward[step]
        )
    # The batch size only cuts the stream.
    np.testing.assert_array_equal(stream(members, 1500, 1, batch_size=7), np.concatenate(forward))
    assert forward[0].dtype == np.int32 and forward[0].shape == (50,)
    assert not np.array_equal(sampling.class_aware_indices(2, 0, 50, members), forward[0])
    far = sampling.class_aware_indices(1, 10**9, 50, members)  # reached without the way there
    assert far.shape == (50,)


def test_lists_are_shuffled_again_and_apart():
    members = sampling.class_members(np.repeat(np.arange(20), 40))
    indices = stream(members, 20 * 40 * 2)
    rounds = (indices // 40).reshape(20, 20, 4)[..., 0]
    assert len({tuple(order) for order in rounds}) == 20
    orders = set()
    for position in range(20):
        own = indices[indices // 40 == position] - 40 * position
        orders |= {tuple(own[:40]), tuple(own[40:])}
    assert len(orders) == 40
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_training_order_is_the_one_of_earlier_versions():
    # A change would give resumed runs other batches.
    assert sampling.train_indices(0, 0, 6, 10).tolist() == [0, 7, 8, 6, 9, 5]
    assert sampling.train_indices(7, 2, 6, 10).tolist() == [2, 8, 5, 0, 4, 3]


def test_errors():
    with pytest.raises(ValueError, match="per_class must be >= 1, got 0"):
        sampling.class_aware_indices(0, 0, 8, sampling.class_members(WORKED), per_class=0)
