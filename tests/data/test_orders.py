"""Orders of the examples: epochs, shards, and what a step depends on."""

import math
from functools import partial

import numpy as np
import pytest

from fixed_head_jax.data import resident, sampling


@pytest.mark.parametrize("num_examples, batch_size", [(10, 4), (7, 7), (5, 13), (12, 1), (9, 2)])
def test_every_example_once_per_epoch(num_examples, batch_size):
    epochs = 6
    steps = sampling.epoch_start(epochs, num_examples, batch_size)
    stream = [sampling.train_indices(3, s, batch_size, num_examples) for s in range(steps)]
    assert all(indices.shape == (batch_size,) for indices in stream)
    stream = np.concatenate(stream)[: epochs * num_examples].reshape(epochs, num_examples)
    np.testing.assert_array_equal(np.sort(stream, 1), np.tile(np.arange(num_examples), (epochs, 1)))
    assert len({tuple(epoch) for epoch in stream}) == epochs


def test_train_indices_depend_on_nothing_but_the_arguments():
    forward = [sampling.train_indices(1, step, 8, 30) for step in range(20)]
    for step in reversed(range(20)):
        np.testing.assert_array_equal(sampling.train_indices(1, step, 8, 30), forward[step])
    assert forward[0].dtype == np.int32
    assert not np.array_equal(sampling.train_indices(2, 0, 8, 30), forward[0])


@pytest.mark.parametrize("epoch", [0, 1, 2, 7, 0.1, 0.3, 2.5, 1 / 3, 199.9])
@pytest.mark.parametrize("num_examples, batch_size", [(50000, 128), (50000, 5000), (10, 4)])
def test_epoch_start_is_exact(epoch, num_examples, batch_size):
    numerator = round(epoch * 30)  # all the epochs above are multiples of 1/30
    expected = -(-numerator * num_examples // (30 * batch_size))
    assert sampling.epoch_start(epoch, num_examples, batch_size) == expected


def test_shards_concatenate_to_the_batch():
    order = partial(sampling.train_indices, 0, batch_size=12, num_examples=30)
    whole = list(resident.index_batches(order, 12, 5, 4))
    shards = [list(resident.index_batches(order, 12, 5, 4, (i, 3))) for i in range(3)]
    for step, batch in enumerate(whole):
        parts = [shard[step]["index"] for shard in shards]
        np.testing.assert_array_equal(np.concatenate(parts), batch["index"])


@pytest.mark.parametrize("num_examples", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_eval_counts_every_example_once(num_examples, batch_size):
    batches = list(sampling.eval_batches(num_examples, batch_size))
    assert len(batches) == math.ceil(num_examples / batch_size)
    indices, mask = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert len(indices) == len(batches) * batch_size
    np.testing.assert_array_equal(indices[mask == 1], np.arange(num_examples))
    assert not indices[mask == 0].any()
