"""The per-device step over a mesh of devices, and batches between host and devices."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
REPLICATED = PartitionSpec()
SPLIT = PartitionSpec(AXIS)
SPLIT_PER_STEP = PartitionSpec(None, AXIS)  # leaves [steps, batch, ...]


class Split(flax.struct.PyTreeNode):
    """Marks arrays of a state whose first axis is split over the devices; all else is replicated.

    A mapped step sees, and returns, its own device's part.
    """

    value: Any


def state_specs(state: Any) -> Any:
    """Returns how a state lies on the devices: a spec, or one at every `Split` and other leaf."""
    return jax.tree.map(
        lambda leaf: SPLIT if isinstance(leaf, Split) else REPLICATED,
        state,
        is_leaf=lambda node: isinstance(node, Split),
    )


def make_mesh(num_devices: int = 0) -> Mesh:
    """Lays the first `num_devices` devices (0: all) along one axis, `data`.

    Raises:
        ValueError: if there are fewer devices.
    """
    devices = jax.devices()
    if not 0 <= num_devices <= len(devices):
        raise ValueError(f"num_devices={num_devices}, but this run sees {len(devices)} devices")
    devices = devices[: num_devices or len(devices)]
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def pmap_step(
    step: Callable,
    mesh: Mesh,
    batch_spec: PartitionSpec,
    donate: bool,
    state_spec: Any = REPLICATED,
    out_spec: Any = REPLICATED,
) -> Callable:
    """Maps `step(state, arrays, batch)`, written for one device's shard, over the mesh.

    Args:
        step: may use collectives over `AXIS`; what it returns, where `out_spec` says that it is
            replicated, is the same on every device.
        mesh: from `make_mesh`.
        batch_spec: how `batch` is split; `arrays` are replicated.
        donate: reuse the buffers of `state` for the result.
        state_spec: how `state` lies on the devices, see `state_specs`.
        out_spec: same, of what the step returns.

    Returns:
        The jitted step over global arrays: what `jax.pmap` itself is since JAX 0.8.
    """
    in_specs = (state_spec, REPLICATED, batch_spec)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=out_spec, check_vma=False)
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


def fold(function: Callable, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan(function, carry, xs)`, unrolled on the CPU.

    XLA runs convolutions inside a loop about 25 times slower there (measured).
    """
    if jax.default_backend() != "cpu":
        return lax.scan(function, carry, xs)
    results = []
    for index in range(len(jax.tree.leaves(xs)[0])):
        carry, result = function(carry, jax.tree.map(lambda x, index=index: x[index], xs))
        results.append(result)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree to every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, REPLICATED))


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns the sharding of every array of a state, see `state_specs`."""
    specs = state_specs(state)
    return jax.tree.map(
        lambda spec, part: jax.tree.map(lambda _: NamedSharding(mesh, spec), part), specs, state
    )


def place_state(state: Any, mesh: Mesh) -> Any:
    """Copies a state to the devices of the mesh; what is marked `Split` in parts."""
    return jax.device_put(state, state_shardings(state, mesh))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh, spec: PartitionSpec) -> dict:
    """Splits this process' part of a host batch over its devices, without waiting."""
    sharding = NamedSharding(mesh, spec)
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def process_shard() -> tuple[int, int]:
    """Returns (index, count): which contiguous part of a global batch this process reads."""
    return jax.process_index(), jax.process_count()


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is set on any process; a collective if there are several."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())
