"""Counts what a model stores and computes, by part, from shapes and the traced program alone.

Nothing is run: `jax.eval_shape` gives the variables, `jax.make_jaxpr` the operations.

    python -m fixed_head_jax.accounting --table --classes 1000 --image_size 224
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from fixed_head_jax.backbones import BACKBONES, get_backbone
from fixed_head_jax.command_line import Parser
from fixed_head_jax.heads import HEADS
from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.operations import walk
from fixed_head_jax.report import markdown

MULTIPLY_ADDS = ("convolution", "matmul")
# Qian 2020, Table 5.5: options of the surgery, classes -> parameters saved (%).
TABLE_5_5 = {
    "resnet18": ({"out_shortcut": "projection"}, {196: "12.92", 102: "16.83"}),
    "resnet50": ({"out_shortcut": "pad"}, {196: "5.66", 102: "5.10"}),
    "mobilenet_v2": ({}, {196: "24.26", 102: "21.66"}),
    "shufflenet_v2_x0_5": ({}, {196: "66.65", 102: "63.52"}),
}
# Table 6.1: whether the mean before the classifier is a module there, and so was counted; total,
# first convolution, fully connected layer and its share (%) as printed.
TABLE_6_1 = {
    "resnet50": (True, ("4.12G", "118M", "2.05M", "0.05")),
    "resnet18": (True, ("1.82G", "118M", "512K", "0.03")),
    "mobilenet_v2": (False, ("320M", "10.8M", "1.28M", "0.40")),
    "shufflenet_v2_x0_5": (False, ("43.6M", "8.13M", "1.02M", "2.35")),
}


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
    return _costs(_trace_parts(model, image_size, channels))


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
    traces = _trace_parts(model, image_size, 3)
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


def _trace_parts(model, image_size, channels):
    """Traces backbone, pool and head one after the other, each on what the last one gives."""
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    backbone = _trace(model.backbone, images, False)
    pool = _trace(model.pool, jax.ShapeDtypeStruct(backbone.output.shape, jnp.float32))
    return {"backbone": backbone, "pool": pool, "head": _trace(model.head, pool.output)}


def _variables(module, inputs, *arguments):
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, *arguments), inputs)


def _trace(module, inputs, *arguments):
    variables = _variables(module, inputs, *arguments)
    trace = jax.make_jaxpr(lambda v, x: module.apply(v, x, *arguments), return_shape=True)
    program, output = trace(variables, inputs)
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return Trace({tuple(k.key for k in path): leaf for path, leaf in leaves}, program.jaxpr, output)


def _costs(traces):
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


def cost_table(num_classes: int, image_size: int) -> str:
    """Formats the cost of every backbone with every head; "-" where they do not go together.

    "surgery" is the identity head on a backbone whose last convolution gives the class channels.
    """
    titles = "backbone,head,parameters,in head (%),stored fixed,multiply-adds,checkpoint bytes"
    cells = [titles.split(",")]
    for backbone in BACKBONES:
        whole = _traces_or_none(num_classes, image_size, backbone, {})
        for head in HEADS:
            cells.append([backbone, head, *_cost_cells(whole, num_classes, backbone, head)])
        if hasattr(get_backbone(backbone), "out_channels"):
            cut = _traces_or_none(num_classes, image_size, backbone, {"out_channels": num_classes})
            cells.append([backbone, "surgery", *_number_cells(cut and {**cut, "head": None})])
    return markdown(cells)


def _traces_or_none(num_classes, image_size, backbone, options):
    try:
        model = get_model(num_classes, backbone, backbone_options=options)
        return _trace_parts(model, image_size, 3)
    except ValueError:  # not a size of images for this backbone
        return None


def _cost_cells(traces, num_classes, backbone, head):
    try:
        module = get_model(num_classes, backbone, head).head
    except ValueError:  # more classes than the head can tell apart
        return _number_cells(None)
    return _number_cells(traces and {**traces, "head": _trace(module, traces["pool"].output)})


def _number_cells(traces):
    """Formats the costs of traces, of which the head may be None: nothing after the pooling."""
    if traces is None:
        return ["-"] * 5
    cost = _costs({name: trace for name, trace in traces.items() if trace is not None})
    share = 100 * cost["parts"].get("head", {"params": 0})["params"] / cost["params"]
    keys = ("fixed", "multiply_adds", "checkpoint_bytes")
    return [f"{cost['params']:,}", f"{share:.2f}", *(f"{cost[key]:,}" for key in keys)]


def savings_table() -> str:
    """Formats Table 5.5: parameters that surgery saves (%), ours next to published."""
    cells = [["backbone", "classes", "saved (%)", "published"]]
    for backbone, (surgery, published) in TABLE_5_5.items():
        for classes, printed in published.items():
            ours = f"{saving(backbone, classes, surgery):.4f}"
            cells.append([backbone, str(classes), ours, printed])
    return markdown(cells)


def operations_table() -> str:
    """Formats Table 6.1 by its own rule, ours next to published, beside the multiply-adds."""
    titles = ("total", "first convolution", "fully connected", "its share (%)")
    cells = [["backbone", "multiply-adds", *(c for title in titles for c in (title, "published"))]]
    for backbone, (final_pool_is_module, published) in TABLE_6_1.items():
        model = get_model(1000, backbone)
        total = thesis_operations(model, 224, final_pool_is_module)["total"]
        cost = count(model)
        first, head = (cost["parts"][k]["multiply_adds"] for k in ("first_convolution", "head"))
        ours = (f"{total:,}", f"{first:,}", f"{head:,}", f"{100 * head / total:.4f}")
        pairs = (cell for pair in zip(ours, published, strict=True) for cell in pair)
        cells.append([backbone, f"{cost['multiply_adds']:,}", *pairs])
    return markdown(cells)


def main(arguments: list[str] | None = None) -> None:
    """Prints every backbone with every head, then the published tables next to ours."""
    parser = Parser("python -m fixed_head_jax.accounting", description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", required=True, help="print the tables")
    parser.add_argument("--classes", type=int, default=1000, help="K, at least 2")
    parser.add_argument("--image_size", type=int, default=224, help="pixels, at least 1")
    options = parser.parse_args(arguments)
    if options.classes < 2 or options.image_size < 1:
        parser.error(
            "--classes must be at least 2 and --image_size at least 1, got "
            f"{options.classes} and {options.image_size}"
        )
    print(f"{options.classes} classes, one image of {options.image_size} pixels\n")
    print(cost_table(options.classes, options.image_size))
    print("Parameters saved by an identity head (Qian 2020, Table 5.5)\n")
    print(savings_table())
    print("Operations at 224 pixels by the rule of Qian 2020, Table 6.1\n")
    print(operations_table(), end="")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # nothing is run: leave an accelerator alone
    main()
