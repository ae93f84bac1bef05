"""Costs of all backbones and heads as tables, published numbers next to ours."""

from fixed_head_jax.accounting.cost import (
    costs,
    count,
    saving,
    thesis_operations,
    trace_module,
    trace_parts,
)
from fixed_head_jax.backbones import BACKBONES, get_backbone
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.heads import HEADS
from fixed_head_jax.model import get_model

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
        return trace_parts(model, image_size, 3)
    except ValueError:  # not a size of images for this backbone
        return None


def _cost_cells(traces, num_classes, backbone, head):
    try:
        module = get_model(num_classes, backbone, head).head
    except ValueError:  # more classes than the head can tell apart
        return _number_cells(None)
    return _number_cells(traces and {**traces, "head": trace_module(module, traces["pool"].output)})


def _number_cells(traces):
    """Formats the costs of traces, of which the head may be None: nothing after the pooling."""
    if traces is None:
        return ["-"] * 5
    cost = costs({name: trace for name, trace in traces.items() if trace is not None})
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
