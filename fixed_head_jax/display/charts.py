"""Charts of a sweep and of a search, as PNG files."""

import itertools
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fixed_head_jax.display.canvas import BLUE, ORANGE, QUIET, frame, new_figure
from fixed_head_jax.storage.files import replacing

NAME_WIDTH = 32  # characters of a line of a name; longer names take several lines
MEASURED, PUBLISHED = BLUE, ORANGE


def sweep_chart(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, metric: str = "accuracy"
) -> None:
    """Draws the rows of a sweep below one another: measured, published and that of the baseline.

    A dot with its number is the mean over seeds, its bar one sample standard deviation, a diamond
    the published figure and the dashed line the mean of what a row is compared with.

    Args:
        rows: of `report.sweep_rows`; those without runs show their name and what is published.
        path: the PNG file.
        metric: name of what was measured, in percent.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a sweep chart needs at least one row of report.sweep_rows")
    names = [textwrap.fill(str(row["head"]), NAME_WIDTH) for row in rows]
    lines = max(name.count("\n") + 1 for name in names)
    height = 1.4 + len(rows) * (0.24 + 0.16 * lines)
    figure = new_figure(8, height)
    axes = figure.add_subplot()
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"{metric} (%)\n{_sweep_caption(rows)}", parse_math=False)
    axes.set_xlim(*_limits(rows))
    axes.ticklabel_format(axis="x", useOffset=False)
    frame(axes, "x")
    _draw_baselines(axes, rows)
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    if any(_is_known(row["published"]) for row in rows):
        figure.legend(*_one_of_each(axes), loc="outside upper right", ncols=3, frameon=False)
    elif not any(_is_known(row["accuracy"]) for row in rows):
        _say(axes, "no run has finished yet")
    _save(figure, path)


def _sweep_caption(rows):
    """Says what is drawn: of how many seeds, what bars mean, what rows are compared with."""
    counts = sorted({row.get("runs", 1) for row in rows if _is_known(row["accuracy"])}) or [0]
    seeds = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    baselines = sorted({row["baseline"] for row in rows})
    shown = textwrap.shorten(baselines[0], NAME_WIDTH) if len(baselines) == 1 else "each row's own"
    return (
        f"mean of {seeds} seed{'s' * (counts[-1] != 1)}; bars: one standard deviation; dashed: "
        f"{shown} (baseline)"
    )


def _draw_row(axes, place, row):
    if _is_known(row["published"]):
        axes.plot(
            row["published"], place, "D", color=PUBLISHED, fillstyle="none", label="published"
        )
    if not _is_known(row["accuracy"]):
        return
    spread = row["std"] if _is_known(row["std"]) else None
    axes.errorbar(
        row["accuracy"], place, xerr=spread, fmt="o", color=MEASURED, capsize=3, label="measured"
    )
    axes.annotate(
        f"{row['accuracy']:.2f}", (row["accuracy"], place), (0, 5), textcoords="offset points",
        ha="center", va="bottom", fontsize="small", color=MEASURED,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )  # fmt: skip


def _draw_baselines(axes, rows):
    """Draws the mean of every baseline beside the rows that are compared with it."""
    means = {row["head"]: row["accuracy"] for row in rows}
    shared = len({row["baseline"] for row in rows}) == 1
    for name, group in itertools.groupby(enumerate(rows), lambda entry: entry[1]["baseline"]):
        places = [place for place, _ in group]
        if _is_known(means.get(name)):
            axes.vlines(
                means[name], places[0] - 0.5, places[-1] + 0.5, QUIET, "dashed", linewidth=0.8,
                label=f"mean of {textwrap.shorten(name, NAME_WIDTH)}" if shared else "baseline",
            )  # fmt: skip


def _limits(rows):
    """Returns where the axis of accuracies starts and ends, with room for the numbers."""
    ends = [row["published"] for row in rows if _is_known(row["published"])]
    for row in rows:
        if _is_known(row["accuracy"]):
            spread = row["std"] if _is_known(row["std"]) else 0.0
            ends += [row["accuracy"] - spread, row["accuracy"] + spread]
    if not ends:
        return 0.0, 100.0
    room = max(0.08 * (max(ends) - min(ends)), 0.2)
    return min(ends) - room, max(ends) + room


def search_chart(
    accuracies: Mapping[int, float | None],
    importances: Mapping[str, float],
    path: str | os.PathLike,
    probes: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Draws the course of a search and, beside it, how much every dial mattered.

    Args:
        accuracies: number of a trial -> its accuracy (%), None where it diverged.
        importances: dial -> its share of the whole, 0 to 1; empty where it is not known yet.
        path: the PNG file.
        probes: name -> accuracy (%), drawn as dashed lines.
    """
    height = max(3.4, 1.0 + 0.34 * len(importances))
    figure = new_figure(10, height)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_course(left, accuracies)
    for name, accuracy in probes.items():
        left.axhline(accuracy, color=QUIET, linestyle="dashed", linewidth=0.8)
        place = (left.get_xlim()[1], accuracy)
        left.annotate(name, place, (-2, 2), textcoords="offset points", ha="right", color=QUIET)
    _draw_importances(right, importances)
    _save(figure, path)


def _draw_course(axes, accuracies):
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    known = {n: accuracies[n] for n in sorted(accuracies) if _is_known(accuracies[n])}
    diverged = sorted(accuracies.keys() - known.keys())
    if accuracies:
        first, last = min(accuracies), max(accuracies)
        axes.set_xlim(first - 0.5, max(last, first + 4) + 0.5)
        axes.locator_params(axis="x", integer=True)
    else:
        axes.set_xticks([])
        _say(axes, "no trial has finished yet")
    if known:
        best = list(itertools.accumulate(known.values(), max))
        # The best so far holds until the last trial, also where that one diverged.
        axes.step([*known, last], [*best, best[-1]], QUIET, where="post", label="best")
        axes.plot(list(known), list(known.values()), "o", color=MEASURED, label="trial")
        axes.ticklabel_format(axis="y", useOffset=False)
    else:
        axes.set_yticks([])
    if diverged:
        at_the_foot = axes.get_xaxis_transform()
        axes.plot(
            diverged, [0.03] * len(diverged), "x", color=PUBLISHED, label="diverged",
            transform=at_the_foot,
        )  # fmt: skip
    frame(axes, "y")
    if accuracies:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)


def _draw_importances(axes, importances):
    axes.set_xlabel("importance (share of the variance, fANOVA)")
    frame(axes, "x")
    if not importances:
        axes.set_xticks([])
        axes.set_yticks([])
        _say(axes, "needs more trials")
        return
    axes.set_xlim(0, 1.12 * max(importances.values()) or 1.0)
    axes.set_ylim(min(len(importances) - 4, 0) - 0.6, len(importances) - 0.4)
    dials = sorted(importances, key=importances.get)  # bars start at the foot
    names = [textwrap.fill(dial, NAME_WIDTH) for dial in dials]
    bars = axes.barh(range(len(dials)), [importances[dial] for dial in dials], color=MEASURED)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    axes.set_yticks(range(len(dials)), names, parse_math=False)
    axes.tick_params(axis="y", length=0)


def _say(axes, text):
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)


def _one_of_each(axes):
    """Returns the marks of a legend and their labels, each label once, what is measured first."""
    marks = {label: mark for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(marks.values())[::-1], list(marks)[::-1]


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _save(figure, path):
    with replacing(Path(path)) as partial:
        figure.savefig(partial, format="png", dpi=150)
