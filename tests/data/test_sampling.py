"""Orders: class-aware against the published trace and a simulation, balanced, repeated."""

import collections

import numpy as np
import pytest
from scipy import stats

from fixed_head_jax.data import sampling, selection
from fixed_head_jax.data.class_sampling import (
    class_aware_indices,
    class_balanced_indices,
    class_members,
)

WORKED = np.array([0, 0, 0, 1, 2, 2, 2, 2, 2])  # specification 7.8


def stream(members, count, seed=0, batch_size=None, **options):
    batch_size = batch_size or count
    steps = range(-(-count // batch_size))
    batches = [class_aware_indices(seed, step, batch_size, members, **options) for step in steps]
    return np.concatenate(batches)[:count]


def long_tailed(seed=0, num_classes=70):
    rng = np.random.default_rng(seed)
    sizes = 1 + (300 * rng.power(0.2, num_classes)).astype(int)
    return rng.permutation(np.repeat(np.arange(num_classes), sizes))


def test_members_of_classes():
    members = class_members(np.array([5, 0, 2, 0, 5, 5], np.int32))
    assert [own.tolist() for own in members] == [[1, 3], [2], [0, 4, 5]]
    assert members[0].dtype == np.int32
    assert [own.tolist() for own in class_members(np.zeros(3, np.int64))] == [[0, 1, 2]]
    with pytest.raises(ValueError, match="needs examples, got no labels"):
        class_members(np.zeros(0, np.int32))


def test_published_trace_without_shuffling():
    # The reference cuts its stream after 15 = 5 x 3 examples and drops the rest of that turn.
    result = stream(class_members(WORKED), 31, shuffled=False).tolist()
    assert result[:15] == [0, 1, 2, 0, 3, 3, 3, 3, 4, 5, 6, 7, 1, 2, 0]
    assert result[15] == 1
    assert result[16:] == [3, 3, 3, 3, 8, 4, 5, 6, 2, 0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("per_class", [1, 3, 4, 7])
def test_lists_are_those_of_a_simulation_that_keeps_state(per_class):
    members, seed = class_members(long_tailed(num_classes=9)), 3

    def cyclic(length, *stream):
        epoch = 0
        while True:
            yield from sampling.shuffle(seed, epoch, length, stream)
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
    members = class_members(labels)
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
    members = class_members(labels)
    for step in (0, 1, 99):
        batch = labels[class_aware_indices(1, step, 256, members)].reshape(64, 4)
        assert (batch == batch[:, :1]).all()
        assert np.bincount(batch[:, 0], minlength=70).max() <= 2  # two: from one round to the next


def test_batches_depend_on_nothing_but_the_arguments():
    members = class_members(long_tailed())
    forward = [class_aware_indices(1, step, 50, members) for step in range(30)]
    for step in reversed(range(30)):
        np.testing.assert_array_equal(class_aware_indices(1, step, 50, members), forward[step])
    # The batch size only cuts the stream.
    np.testing.assert_array_equal(stream(members, 1500, 1, batch_size=7), np.concatenate(forward))
    assert forward[0].dtype == np.int32 and forward[0].shape == (50,)
    assert not np.array_equal(class_aware_indices(2, 0, 50, members), forward[0])
    far = class_aware_indices(1, 10**9, 50, members)  # reached without the way there
    assert far.shape == (50,)


def test_lists_are_shuffled_again_and_apart():
    members = class_members(np.repeat(np.arange(20), 40))
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
        class_aware_indices(0, 0, 8, class_members(WORKED), per_class=0)


def test_balanced_draws_are_uniform_over_classes_and_within_them():
    labels = np.repeat([0, 1, 2, 3], [1, 5, 40, 400])
    members = class_members(labels)
    draws = [class_balanced_indices(3, step, 64, members) for step in range(500)]
    indices = np.concatenate(draws)
    counts = np.bincount(labels[indices], minlength=4)
    assert stats.chisquare(counts).pvalue > 0.001
    for label in (1, 2, 3):
        own = np.bincount(indices, minlength=len(labels))[labels == label]
        assert stats.chisquare(own).pvalue > 0.001
    again = class_balanced_indices(3, 17, 64, members)
    np.testing.assert_array_equal(again, draws[17])
    assert not np.array_equal(class_balanced_indices(4, 17, 64, members), again)


@pytest.mark.parametrize("repeats", [2, 3])
def test_repeats_are_in_one_batch_and_apart(repeats):
    batches = [sampling.train_indices(0, step, 12, 30, repeats) for step in range(5 * repeats)]
    for batch in batches:
        parts = np.split(batch, repeats)
        assert all(np.array_equal(part, parts[0]) for part in parts)
    # Of R epochs of images, each image is R times in one batch and in no other.
    unique = np.concatenate([batch[: 12 // repeats] for batch in batches])
    for epoch in unique[:60].reshape(-1, 30):
        assert sorted(epoch) == list(range(30))


LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 7], [1000, 101, 15, 2]))


@pytest.mark.parametrize(
    "fraction, counts", [(0.01, [10, 1, 1, 1]), (0.1, [100, 10, 2, 1]), (1.0, [1000, 101, 15, 2])]
)
def test_a_fraction_of_every_class(fraction, counts):
    kept = selection.stratified(LABELS, fraction)
    assert np.bincount(LABELS[kept])[[0, 1, 2, 7]].tolist() == counts
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, selection.stratified(LABELS, fraction))


def test_a_smaller_fraction_is_part_of_a_larger_one():
    small, large = selection.stratified(LABELS, 0.01), selection.stratified(LABELS, 0.1)
    assert np.isin(small, large).all()
    assert not np.array_equal(large[: len(small)], small)


def test_listed_files(tmp_path):
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "4.jpg"]
    listing = tmp_path / "list.txt"
    listing.write_text("2.jpg\n\nb/1.jpg\ntrain/x/4.jpg\n")
    assert selection.listed(str(listing), lambda: names).tolist() == [1, 2, 3]
    listing.write_text("2.jpg\nc/1.jpg\n5.jpg\n")
    with pytest.raises(ValueError, match="2 of the 3 files .* are not .*'5.jpg' for one"):
        selection.listed(str(listing), lambda: names)
    with pytest.raises(ValueError, match="data.train_list='none.txt' cannot be read"):
        selection.listed("none.txt", lambda: names)
