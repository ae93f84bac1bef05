"""Whether the sizes of a run go together, and into memory: from shapes, before anything is made."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fixed_head_jax.augment import ViewSet
from fixed_head_jax.augment.views import NUM_GLOBAL
from fixed_head_jax.data import Dataset
from fixed_head_jax.devices import memory
from fixed_head_jax.settings.schema import read
from fixed_head_jax.tasks import NEEDS

_FLOAT = 4  # bytes


def check_batch(config: ConfigDict, num_examples: int, num_devices: int) -> None:
    """Raises ValueError where a batch cannot be dealt out, or holds all images more than once."""
    size, repeats = config.batch_size, config.data.repeats
    parts = num_devices * config.accumulation_steps
    if size % parts:
        raise ValueError(
            f"batch_size={size} is not divisible by {parts} = {num_devices} devices x "
            f"{config.accumulation_steps} accumulation_steps; set batch_size or num_devices"
        )
    if size % repeats:
        raise ValueError(f"data.repeats={repeats} must divide batch_size={size}; set one of them")
    if size // repeats > num_examples:
        raise ValueError(
            f"batch_size={size} is more than the {num_examples:,} training images; lower it"
        )
    if config.data.sampler == "class_aware" and config.data.per_class > size:
        raise ValueError(
            f"data.per_class={config.data.per_class} is more than batch_size={size}; lower it"
        )


def check_memory(
    config: ConfigDict,
    model: Any,
    state: PyTree,
    train_data: Dataset,
    eval_data: Dataset,
    devices: Sequence[jax.Device],
) -> None:
    """Raises ValueError where a run cannot fit, by what it must hold at once in any case.

    That is the state with its gradients, the images kept on the device, and the images of a batch
    with what the model makes of them. What lies between is left out: the compiler plans it.

    Args:
        config: every key of `configs/common.py`.
        model: a classifier of `model.get_model`.
        state: shapes of the `TrainState`.
        train_data: what it trains on.
        eval_data: what it is evaluated on.
        devices: of the mesh.
    """
    limit = memory.limit(devices[0])
    if limit is None:
        return
    # Devices whose memory that is: what all of them hold a copy of, and a share of what is dealt.
    copies = len(devices) if devices[0].platform == "cpu" else 1
    share = copies / len(devices)
    outputs = _bytes_of_outputs(model, state, train_data.source.image_shape)
    trained = config.batch_size / config.accumulation_steps
    evaluated = min(config.eval_batch_size, len(eval_data.source))
    held = {
        "the model, gradients and optimizer (model.*, optim.*)": copies
        * _bytes((state.params, state.model_state, state.opt_state, state.ema, state.params)),
        "the task's memory (task.options.*)": share * _bytes(state.task_state),
        f"images kept on the device (data.placement={config.data.placement})": copies
        * (train_data.num_bytes + eval_data.num_bytes),
    }
    batches = {
        f"batch_size={config.batch_size}": config.batch_size * _bytes_of_images(config, train_data)
        + trained * outputs,
        f"eval_batch_size={config.eval_batch_size}": evaluated
        * (_FLOAT * math.prod(eval_data.source.image_shape) + outputs),
    }
    for name, size in batches.items():
        _refuse_too_much({**held, f"a batch ({name}, and the size of images)": share * size}, limit)


def _refuse_too_much(parts: Mapping[str, int | float], limit: int) -> None:
    needed = sum(parts.values())
    if needed > limit:
        most = max(parts, key=parts.__getitem__)
        raise ValueError(
            f"the run needs at least {_gib(needed)} of memory and there are {_gib(limit)}; most, "
            f"{_gib(parts[most])}, is for {most}: lower that"
        )


def _bytes_of_images(config, train_data):
    """Returns the bytes of the images that an example has in training."""
    shape = train_data.source.image_shape
    if not NEEDS[config.task.name].views:
        return _FLOAT * math.prod(shape)
    views = read(ViewSet, config)
    pixels = NUM_GLOBAL * views.global_size**2 + views.num_local * views.local_size**2
    return _FLOAT * pixels * shape[-1]


def _bytes_of_outputs(model, state, image_shape):
    """Returns the bytes of what the model makes of one image."""
    variables = {"params": state.params, **state.model_state}
    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    return _bytes(jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image))


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gib(size):
    return f"{size / 2**30:,.1f} GiB"
