"""The drawings of a report, as SVG."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fixed_head_jax.display.canvas import BLUE, INK, ORANGE, frame, new_figure, to_svg
from fixed_head_jax.reports.calibration import Calibration

_COLORS = (BLUE, ORANGE, "#2e8b57", "#8b5fbf", INK)


def curves(lines: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> str:
    """Draws metrics over epochs.

    Args:
        lines: of metrics.jsonl, "epoch" in each.
        names: of the metrics to draw; those that no line has are left out.
        title: of the axis.

    Returns:
        An SVG; an empty text where no line has any of them.
    """
    found = {
        name: [(line["epoch"], line[name]) for line in lines if line.get(name) is not None]
        for name in names
    }
    found = {name: points for name, points in found.items() if points}
    if not found:
        return ""
    figure = new_figure(5.2, 3.1)
    axes = figure.add_subplot()
    for color, (name, points) in zip(itertools.cycle(_COLORS), found.items(), strict=False):
        mark = "o-" if len(points) < 40 else "-"
        axes.plot(*zip(*points, strict=True), mark, color=color, markersize=3, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.legend(frameon=False, fontsize="small")
    frame(axes, "y")
    return to_svg(figure, f"curves {title}")


def confusion(counts: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> str:
    """Draws a confusion matrix: labels down, predictions across, shares of each label's images."""
    size = max(3.4, 0.34 * len(counts) + 1.6)
    figure = new_figure(size, size)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else INK
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    places = range(len(counts))
    axes.set_xticks(places, class_names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(places, class_names, fontsize=8, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    return to_svg(figure, "confusion")


def reliability(calibration: Calibration) -> str:
    """Draws accuracy against confidence, and how many predictions have that confidence."""
    figure = new_figure(4.4, 4.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(calibration.counts) + 1)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    above.plot((0, 1), (0, 1), "--", color="#999999", linewidth=1)
    above.bar(middles, np.nan_to_num(calibration.accuracy), 0.9 * width, color=BLUE)
    above.plot(calibration.confidence, calibration.accuracy, "o", color=ORANGE, markersize=3)
    above.set_ylabel("accuracy")
    below.bar(middles, calibration.counts, 0.9 * width, color=INK)
    below.set_xlabel("confidence")
    below.set_ylabel("images")
    for axes in (above, below):
        frame(axes, "y")
    return to_svg(figure, "reliability")


def histogram(values: Float[np.ndarray, " n"], is_right: Bool[np.ndarray, " n"], title: str) -> str:
    """Draws how values spread, by whether the prediction is right."""
    figure = new_figure(4.4, 2.6)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(values, 24)
    for part, color, label in ((is_right, BLUE, "right"), (~is_right, ORANGE, "wrong")):
        if part.any():
            shares = np.full(part.sum(), 1 / part.sum())
            axes.hist(values[part], edges, weights=shares, color=color, alpha=0.7, label=label)
    axes.set_xlabel(title)
    axes.set_ylabel("share of them")
    axes.legend(frameon=False, fontsize="small")
    frame(axes, "y")
    return to_svg(figure, f"histogram {title}")
