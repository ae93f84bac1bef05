"""What a run says on the screen: what runs where, how far it is, and what came of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from fixed_head_jax.devices import memory
from fixed_head_jax.display.numbers import format_classes, format_number, format_seconds
from fixed_head_jax.training.experiment import Run, dtype_name

_SHOWN = 12  # values on a line
_WIDTH = 110
_TIMING = {  # name -> how a line says its value
    "images_per_second": lambda value: f"{format_number(value)} images/s",
    "data_wait_percent": lambda value: f"waits for data {value:.0f} %" if value >= 10 else "",
    "seconds_per_epoch": lambda value: f"{format_seconds(value)}/epoch",
    "seconds_left": lambda value: f"{format_seconds(value)} left",
    "evaluation_seconds": lambda value: f"took {format_seconds(value)}",
}
# What a workdir may hold at the end.
_FILES = (
    "result.json", "metrics.jsonl", "checkpoints", "tensorboard", "config.json", "groups.md",
    "predictions.npz", "classes", "report.html",
)  # fmt: skip


def format_lines(step: int, total_steps: int, values: Mapping[str, float]) -> list[str]:
    """Formats a line for each kind of values: `train 1,200/64,000  epoch 3.1  loss 1.234`.

    Args:
        step: done.
        total_steps: of the run.
        values: by "kind/name"; "epoch" and what is of the kind "timing" go into the first line.
    """
    kinds: dict[str, list[str]] = {}
    for key, value in values.items():
        kind, _, name = key.rpartition("/")
        if key != "epoch" and kind != "timing":
            kinds.setdefault(kind, []).append(f"{name} {format_number(value)}")
    epoch = [f"epoch {values['epoch']:.1f}"] if "epoch" in values else []
    timing = [say(values[f"timing/{n}"]) for n, say in _TIMING.items() if f"timing/{n}" in values]
    timing = [text for text in timing if text]
    lines: list[str] = []
    for kind, shown in kinds.items():
        more = [f"and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        parts = [f"{kind or 'step'} {step:,}/{total_steps:,}", *epoch, *shown[:_SHOWN], *more]
        lines.append(_fill([*parts, *([] if lines else timing)], "  ", indent=4))
    return lines


def describe(run: Run, workdir: Path, step: int, is_over: bool) -> str:
    """Says what is to run where, before anything is compiled.

    Args:
        run: of `experiment.build`.
        workdir: its folder.
        step: it goes on from there; 0 at its start.
        is_over: whether there is nothing left to train.
    """
    config, source, state = run.config, run.train_data.source, jax.eval_shape(run.create_state)
    trained, stored = size_of(state.params, run.is_trained), size_of(state.params)
    frozen = f", {stored - trained:,} frozen" if stored > trained else ""
    fixed = size_of(state.model_state.get("fixed", {}))
    evaluated, shape = run.eval_data.source, " x ".join(map(str, source.image_shape))
    classes = format_classes(source.num_classes)
    epochs = run.total_steps * config.batch_size / len(source)
    return _table(
        {
            "workdir": str(workdir),
            "data": f"{source.name}, {classes}; {len(source):,} images to train "
            f"on ({source.split}), {len(evaluated):,} to evaluate on ({evaluated.split})",
            "images": f"{shape}, {'on the device' if run.train_data.num_bytes else 'from disk'}",
            "model": f"{config.model.backbone}, {config.model.pool} pooling, {config.model.head} "
            f"head: {trained:,} parameters trained{frozen}, {fixed:,} stored fixed",
            "training": f"{run.total_steps:,} steps of {config.batch_size:,} images, {epochs:.4g} "
            f"epochs; {config.optim.name}, {config.optim.schedule} from {config.optim.lr:g}",
            "devices": f"{run.mesh.size} x {run.mesh.devices.flat[0].device_kind}, dtype "
            f"{dtype_name(config.dtype)}",
            "start": _start(run, step, is_over),
        }
    )


def _start(run, step, is_over):
    if is_over:
        return f"finished before, at step {step:,}; nothing is trained"
    if step:
        return f"goes on from step {step:,}"
    if not run.initial:
        return "from scratch"
    return [f"from {run.config.init_from}", *([run.left_out] if run.left_out else [])]


def summarize(run: Run, workdir: Path, result: Mapping[str, Any]) -> str:
    """Says what came of a run: the last metrics, the best checkpoint, and where everything is.

    Args:
        run: of `experiment.build`.
        workdir: its folder.
        result: of `loop.train`.
    """
    metric, split = run.config.best_metric, run.eval_data.source.split
    shown = [
        f"{key.removeprefix('eval/')} {format_number(value)}"
        for key, value in result.items()
        if "/" in key
    ]
    files = [name for name in _FILES if (workdir / name).exists()]
    peaks = memory.peaks(run.mesh.devices.flat[0])
    best = {}
    if result["best_step"] is not None:
        accuracy = format_number(result["best"])
        best["best"] = (
            f"step {result['best_step']:,}: {metric} {accuracy} on {split}, by which it was chosen"
        )
    return _table(
        {
            "last": [f"step {result['step']:,} on {split}", *shown],
            **best,
            "parameters": f"{result['params']:,} trained, {result['fixed']:,} stored fixed",
            "memory": [f"{name} {gib:.1f} GiB at most" for name, gib in peaks.items()],
            "files": [f"in {workdir}: {files[0]}", *files[1:]],
        }
    )


def size_of(tree: PyTree, counted: PyTree = None) -> int:
    """Returns how many values a tree holds, or those leaves of it that a tree of booleans names."""
    sizes = jax.tree.map(lambda leaf: math.prod(leaf.shape), tree)
    if counted is not None:
        sizes = jax.tree.map(lambda size, counts: size if counts else 0, sizes, counted)
    return sum(jax.tree.leaves(sizes))


def _fill(parts, separator, indent, first=""):
    """Joins parts to lines of at most `_WIDTH`, breaking between them only."""
    lines = [first]
    for i, part in enumerate(parts):
        text = part + separator * (i < len(parts) - 1)
        if len(lines[-1] + text.rstrip()) > _WIDTH and lines[-1].strip():
            lines.append(" " * indent)
        lines[-1] += text
    return "\n".join(line.rstrip() for line in lines)


def _table(rows):
    """Returns lines of names and texts or lists of them, wrapped, one text below the other."""
    width = max(map(len, rows)) + 2
    lines = []
    for name, text in rows.items():
        parts, separator = (text.split(" "), " ") if isinstance(text, str) else (text, ", ")
        lines.append(_fill(parts, separator, width, f"{name:{width}}"))
    return "\n".join(lines)
