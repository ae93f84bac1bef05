"""The queue of embeddings: the specification's vector, a plain numpy queue, and several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.devices import parallel
from fixed_head_jax.tasks import neighbor_queue


def arrays(rows, indices, labels=None):
    indices = jnp.array(indices, jnp.int32)
    return jnp.array(rows, jnp.float32), indices if labels is None else labels, indices


def test_the_vector_of_the_specification():
    queue = neighbor_queue.create(5, 2)
    queue = neighbor_queue.push(queue, *arrays([[1, 0], [0, 1]], [10, 11]))
    assert (queue.pointer, queue.is_full) == (2, False)
    queue = neighbor_queue.push(queue, *arrays([[0.6, 0.8], [0.8, 0.6]], [12, 13]))
    assert (queue.pointer, queue.is_full) == (4, False)
    queue = neighbor_queue.push(queue, *arrays([[-1, 0], [0, -1]], [14, 15]))
    rows = queue.rows.value
    expected = jnp.array([[0, -1], [0, 1], [0.6, 0.8], [0.8, 0.6], [-1, 0]])
    np.testing.assert_array_equal(rows["embedding"], expected)
    np.testing.assert_array_equal(rows["index"], [15, 11, 12, 13, 14])
    assert (queue.pointer, queue.is_full) == (1, True)
    queries, _, indices = arrays([[0.6, 0.8], [0.6, 0.8], [0, 1]], [12, 99, 11])
    found, labels = neighbor_queue.look_up(queue, queries, indices)
    np.testing.assert_array_equal(found, jnp.array([[0.8, 0.6], [0.6, 0.8], [0.6, 0.8]]))
    np.testing.assert_array_equal(labels, [13, 12, 12])  # here the labels are the indices
    queue = neighbor_queue.push(queue, *arrays([[0.28, 0.96]], [16]))
    assert queue.pointer == 2 and queue.rows.value["index"][1] == 16


def test_full_after_as_many_rows_and_not_before():
    queue = neighbor_queue.create(6, 2)
    for number in range(3):
        assert not queue.is_full
        queue = neighbor_queue.push(queue, *arrays(np.ones((2, 2)), [number, number]))
    assert queue.is_full and queue.pointer == 0


class PlainQueue:
    """The same with loops."""

    def __init__(self, size, dim):
        self.rows, self.indices = np.zeros((size, dim), np.float32), np.zeros(size, int)
        self.labels, self.pointer = np.zeros(size, int), 0

    def look_up(self, queries, indices):
        chosen = []
        for query, index in zip(queries, indices, strict=True):
            order = np.argsort(-(self.rows @ query), kind="stable")
            chosen.append(order[1] if self.indices[order[0]] == index else order[0])
        return self.rows[chosen], self.labels[chosen]

    def push(self, rows, labels, indices):
        for row, label, index in zip(rows, labels, indices, strict=True):
            self.rows[self.pointer], self.indices[self.pointer] = row, index
            self.labels[self.pointer] = label
            self.pointer = (self.pointer + 1) % len(self.rows)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_find_and_keep_what_one_queue_would(devices):
    mesh = parallel.make_mesh(devices)
    random = np.random.default_rng(0)
    queue, plain = neighbor_queue.create(16, 3), PlainQueue(16, 3)
    spec = parallel.state_specs(queue)

    def shard(queue, _, batch):
        found = neighbor_queue.look_up(queue, batch["row"], batch["index"], parallel.AXIS)
        queue = neighbor_queue.push(
            queue, batch["row"], batch["label"], batch["index"], parallel.AXIS
        )
        return queue, found

    step = parallel.pmap_step(
        shard, mesh, parallel.SPLIT, donate=True, state_spec=spec, out_spec=(spec, parallel.SPLIT)
    )
    queue = parallel.place_state(queue, mesh)
    embedding = queue.rows.value["embedding"]
    assert embedding.addressable_shards[0].data.shape == (16 // devices, 3)
    for _ in range(7):
        # Of few values and few images, so that equal rows and the image itself are often nearest.
        rows = random.integers(-2, 3, (12, 3)).astype(np.float32)
        labels, indices = (random.integers(0, 5, 12).astype(np.int32) for _ in range(2))
        batch = {"row": rows, "label": labels, "index": indices}
        queue, found = step(queue, {}, parallel.shard_batch(batch, mesh, parallel.SPLIT))
        for ours, expected in zip(found, plain.look_up(rows, indices), strict=True):
            np.testing.assert_array_equal(ours, expected)
        plain.push(rows, labels, indices)
    rows = queue.rows.value
    np.testing.assert_array_equal(rows["embedding"], plain.rows)
    np.testing.assert_array_equal(rows["label"], plain.labels)
    np.testing.assert_array_equal(rows["index"], plain.indices)
    assert queue.pointer == plain.pointer and queue.is_full


def test_the_neighbour_does_not_depend_on_rounding_of_the_product():
    """Products in fewer bits than float32 would not tell these rows apart."""
    rows = jnp.array([[1.0, 0.0], [1.0, 1e-4]])
    queue = neighbor_queue.push(neighbor_queue.create(2, 2), *arrays(rows, [1, 2]))
    found, _ = jax.jit(partial(neighbor_queue.look_up, queue))(
        jnp.array([[1.0, 1e-2]]), jnp.array([7], jnp.int32)
    )
    np.testing.assert_array_equal(found, rows[1:])
