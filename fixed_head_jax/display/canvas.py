"""Figures of matplotlib as this project draws them, without windows or global state."""

import io
from typing import Any

INK, BLUE, ORANGE, QUIET = "#1c2733", "#1f6fb2", "#c8500a", "#777777"


def new_figure(width: int | float, height: int | float) -> Any:
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure  # half a second to import, and few commands draw

    return Figure(figsize=(width, height), layout="constrained")


def frame(axes: Any, grid: str) -> None:
    """Leaves the axes two sides of their frame, and a grid along "x", "y" or "both"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)


def to_svg(figure: Any, name: str) -> str:
    """Returns a figure as an SVG element whose text is text; `name` keeps its ids its own."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
