"""A circular queue of embeddings, in which an image finds its nearest neighbour.

The rows are split over the devices of a mesh axis, so that each holds and searches its part. What
is found, and where what is pushed goes, does not depend on the number of devices.
"""

from typing import Any

import flax.struct
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fixed_head_jax.devices.parallel import Split


class NeighborQueue(flax.struct.PyTreeNode):
    """Embeddings of the last images, oldest overwritten first.

    Attributes:
        rows: {"embedding" [Q, D], "label" [Q], "index" [Q]}, the last two the image's label and
            its place in the data set; inside a mapped step, this device's part of them.
        pointer: row that the next push begins at, int32 [].
        is_full: whether every row has been written, bool [].
    """

    rows: Any
    pointer: Any
    is_full: Any


def create(size: int, dim: int) -> NeighborQueue:
    """Returns an empty queue of `size` rows: zeros."""
    rows = {
        "embedding": jnp.zeros((size, dim)),
        "label": jnp.zeros(size, jnp.int32),
        "index": jnp.zeros(size, jnp.int32),
    }
    return NeighborQueue(Split(rows), jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def look_up(
    queue: NeighborQueue,
    queries: Float[Array, "b d"],
    indices: Int[Array, " b"],
    axis_name: str | None = None,
) -> tuple[Float[Array, "b d"], Int[Array, " b"]]:
    """Finds the row with the largest dot product, or the second if the first is the image's own.

    Only the first is compared with the image's index, as in the released code: a queue that holds
    an image twice may give it back. Of equal rows the first one in the queue counts as nearer.

    Args:
        queue: searched whether it is full or not.
        queries: embeddings of this device's images.
        indices: places of these images in the data set.
        axis_name: mesh axis that rows and queries are split over; None for whole ones.

    Returns:
        The neighbours' embeddings and labels.
    """
    rows = queue.rows.value
    queries, indices = _gather(queries, axis_name), _gather(indices, axis_name)
    similarity = jnp.matmul(queries, rows["embedding"].T, precision=lax.Precision.HIGHEST)
    first = jnp.argmax(similarity, axis=1)
    columns = jnp.arange(similarity.shape[1])
    rest = jnp.where(columns[None, :] == first[:, None], -jnp.inf, similarity)
    candidates = jnp.stack([first, jnp.argmax(rest, axis=1)], axis=1)
    scores = jnp.take_along_axis(similarity, candidates, axis=1)
    places = candidates + _start(similarity.shape[1], axis_name)
    # The two best of each device, in the order of the devices: [N, 2 W].
    scores, places, own = (
        _gather(x, axis_name, axis=1) for x in (scores, places, rows["index"][candidates])
    )
    best = lax.top_k(scores, 2)[1]
    is_own = jnp.take_along_axis(own, best[:, :1], axis=1)[:, 0] == indices
    chosen = jnp.where(is_own, best[:, 1], best[:, 0])
    places = jnp.take_along_axis(places, chosen[:, None], axis=1)[:, 0]
    return _fetch(rows["embedding"], places, axis_name), _fetch(rows["label"], places, axis_name)


def push(
    queue: NeighborQueue,
    embeddings: Float[Array, "b d"],
    labels: Int[Array, " b"],
    indices: Int[Array, " b"],
    axis_name: str | None = None,
) -> NeighborQueue:
    """Writes the images of all devices, in the order of the global batch, over the oldest rows.

    Args:
        queue: of at least as many rows as the global batch has images.
        embeddings: of this device's images.
        labels: of these images; kept to be looked at, not to learn from.
        indices: places of these images in the data set.
        axis_name: see `look_up`.
    """
    rows = queue.rows.value
    new = {"embedding": embeddings, "label": labels, "index": indices}
    new = {key: _gather(value, axis_name) for key, value in new.items()}
    count, local_size = len(new["index"]), len(rows["index"])
    size = local_size if axis_name is None else local_size * lax.axis_size(axis_name)
    places = (queue.pointer + jnp.arange(count)) % size - _start(local_size, axis_name)
    places = jnp.where(places < 0, local_size, places)  # negative ones would count from the end
    rows = {key: rows[key].at[places].set(new[key], mode="drop") for key in rows}
    end = queue.pointer + count
    return NeighborQueue(Split(rows), end % size, queue.is_full | (end >= size))


def _gather(x, axis_name, axis=0):
    return x if axis_name is None else lax.all_gather(x, axis_name, axis=axis, tiled=True)


def _start(local_size, axis_name):
    """Returns the place of this device's first row."""
    return 0 if axis_name is None else lax.axis_index(axis_name) * local_size


def _fetch(values, places, axis_name):
    """Returns the rows at the places that this device's images chose: [N] -> [B, ...]."""
    if axis_name is None:
        return values[places]
    places = places - _start(len(values), axis_name)
    is_here = (places >= 0) & (places < len(values))
    found = values.at[places].get(mode="fill", fill_value=0)
    found = jnp.where(is_here.reshape(-1, *(1,) * (values.ndim - 1)), found, 0)
    return lax.psum_scatter(found, axis_name, tiled=True)
