"""Counts what a model stores and computes, by part, from shapes and the traced program alone.

Nothing is run: `jax.eval_shape` gives the variables, `jax.make_jaxpr` the operations.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from fixed_head_jax.accounting.operations import walk
from fixed_head_jax.model import Classifier, get_model

MULTIPLY_ADDS = ("convolution", "matmul")


class Trace(NamedTuple):
    """A module as traced: its variables by path (collection first), program and output shape."""

    variables: dict[tuple[str, ...], jax.ShapeDtypeStruct]
    program: Jaxpr
    output: jax.ShapeDtypeStruct


def count(model: Classifier, image_size: int = 224, channels: int = 3) -> dict[str, Any]:
    """Counts parameters, multiply-adds in eval mode for one image, and bytes of a checkpoint.

    A convolution costs (outputs) x kh x kw x (input channels / groups), a product of matrices
    (outputs) x (contracted size): one multiply-add is two floating-point operations. Biases and
    element-wise work count nothing here; see `thesis_operations`.

    Args:
        model: a classifier of `model.get_model`.
        image_size: side of the square image in pixels.
        channels: of the image.

    Returns:
        "params" (trained), "fixed" (stored, never trained), "multiply_adds", "checkpoint_bytes"
        (every collection as stored, without the optimizer's state), and "parts" with the same
        four for "backbone", "pool" and "head", which add up to the model, and for
        "first_convolution", which is contained in the backbone (zeros where there is none).

    Raises:
        ValueError: on an image_size below 1, or where counted work is in a loop of unknown length.
    """
    return costs(trace_parts(model, image_size, channels))


def thesis_operations(
    model: Classifier, image_size: int = 224, final_pool_is_module: bool = False
) -> dict[str, int]:
    """Counts operations by the rule behind Table 6.1, which adds element-wise work.

    total = multiply-adds of the backbone + 2 x elements out of batch norm + elements out of ReLU
    and ReLU6 + elements into pooling + head (multiply-adds, and one for each learned bias).

    Args:
        model: a classifier of `model.get_model`.
        image_size: side of the square image in pixels.
        final_pool_is_module: counts the mean before the head as pooling. The rule counts pooling
            that the reference network has as a module: its ResNets do, the others call a function.

    Returns:
        "convolution", "batch_norm", "relu", "pool", "fully_connected", and their sum "total".

    Source: Qian 2020, Table 6.1; the rule is deduced from its figures, all of which it gives.
    """
    traces = trace_parts(model, image_size, 3)
    backbone, head = traces["backbone"], traces["head"]
    totals = dict.fromkeys((*MULTIPLY_ADDS, "batch_norm", "relu", "pool"), 0)
    for operation in _operations(backbone):
        totals[operation.kind] += operation.count
    biases = sum(leaf.size for path, leaf in head.variables.items() if path[-1] == "bias")
    result = {
        "convolution": totals["convolution"] + totals["matmul"],
        "batch_norm": 2 * totals["batch_norm"],
        "relu": totals["relu"],
        "pool": totals["pool"] + final_pool_is_module * backbone.output.size,
        "fully_connected": _cost(head.variables, _operations(head))["multiply_adds"] + biases,
    }
    return {**result, "total": sum(result.values())}


def saving(backbone: str, num_classes: int, surgery: Mapping[str, Any]) -> float:
    """Returns the parameters (%) that an identity head by surgery saves over a linear head.

    `surgery` holds options of the backbone besides `out_channels`. Source: Qian 2020, Table 5.5.
    """
    options = {"out_channels": num_classes, **surgery}
    identity = get_model(num_classes, backbone, "identity", backbone_options=options)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)  # any size has these parameters
    old, new = (
        sum(leaf.size for leaf in jax.tree.leaves(_variables(model, images, False)["params"]))
        for model in (get_model(num_classes, backbone), identity)
    )
    return 100 * (1 - new / old)


def trace_parts(model, image_size, channels):
    """Traces backbone, pool and head one after the other, each on what the last one gives."""
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    backbone = trace_module(model.backbone, images, False)
    pool = trace_module(model.pool, jax.ShapeDtypeStruct(backbone.output.shape, jnp.float32))
    return {"backbone": backbone, "pool": pool, "head": trace_module(model.head, pool.output)}


def _variables(module, inputs, *arguments):
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, *arguments), inputs)


def trace_module(module, inputs, *arguments):
    variables = _variables(module, inputs, *arguments)
    trace = jax.make_jaxpr(lambda v, x: module.apply(v, x, *arguments), return_shape=True)
    program, output = trace(variables, inputs)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return Trace({tuple(k.key for k in path): leaf for path, leaf in leaves}, program.jaxpr, output)


def costs(traces):
    """Adds up the parts; see `count`."""
    parts = {name: _cost(each.variables, _operations(each)) for name, each in traces.items()}
    total = {key: sum(part[key] for part in parts.values()) for key in parts["backbone"]}
    return {**total, "parts": parts | {"first_convolution": _first_convolution(traces["backbone"])}}


def _first_convolution(trace):
    """Returns the cost of the module that holds the kernel of the first convolution."""
    first = [operation for operation in _operations(trace) if operation.kind == "convolution"][:1]
    modules = [operation.kernel[1:-1] for operation in first if operation.kernel]
    own = {path: leaf for path, leaf in trace.variables.items() if path[1:-1] in modules}
    return _cost(own, first)


def _cost(variables, operations):
    def size(collection):
        return sum(leaf.size for path, leaf in variables.items() if path[0] == collection)

    return {
        "params": size("params"),
        "fixed": size("fixed"),
        "multiply_adds": sum(each.count for each in operations if each.kind in MULTIPLY_ADDS),
        "checkpoint_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in variables.values()),
    }


def _operations(trace):
    """Lists what a traced module computes, in order."""
    names = zip(trace.program.invars, trace.variables, strict=False)  # the last input is the data
    return walk(trace.program, dict(names))
