"""Weights of 8 bits: a whole number for each, and a factor for each output channel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float32, Int8

_LEVELS = 127  # on either side of 0, so that it stays 0
# Name of a variable -> the axis of its output channels. Whatever else there is, such as biases,
# batch norm and positions, is small, and stays float32.
_OUTPUT_AXES = {"kernel": -1, "weight_v": 0}


class Quantized(NamedTuple):
    """An array as whole numbers times factors.

    Attributes:
        levels: -127 ... 127.
        factors: > 0, of the same rank, 1 on all axes but that of the output channels.
    """

    levels: Int8[np.ndarray, "*shape"]
    factors: Float32[np.ndarray, "*ones"]


def quantize(weights: Float32[np.ndarray | Array, "*shape"], axis: int = -1) -> Quantized:
    """Rounds weights to the closest multiples of a 127th of the largest one of their channel.

    Args:
        weights: finite.
        axis: of the output channels.
    """
    weights = np.asarray(weights, np.float32)
    others = tuple(set(range(weights.ndim)) - {axis % weights.ndim})
    largest = np.abs(weights).max(others, keepdims=True)
    factors = np.where(largest > 0, largest, np.float32(1)) / np.float32(_LEVELS)
    return Quantized(np.round(weights / factors).astype(np.int8), factors)


def quantize_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables of a model with a `Quantized` in place of every kernel."""
    flat = traverse_util.flatten_dict(variables)
    for path, value in flat.items():
        if path[-1] in _OUTPUT_AXES and np.ndim(value) >= 2:
            flat[path] = quantize(value, _OUTPUT_AXES[path[-1]])
    return traverse_util.unflatten_dict(flat)


def dequantize(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables of a model with arrays again, which a traced program computes."""
    flat = traverse_util.flatten_dict(variables, is_leaf=lambda _, x: isinstance(x, Quantized))
    for path, value in flat.items():
        if isinstance(value, Quantized):
            flat[path] = jnp.asarray(value.levels).astype(jnp.float32) * value.factors
    return traverse_util.unflatten_dict(flat)
