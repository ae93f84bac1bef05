"""Tables as Markdown, aligned, so that they read as text too."""

from tabulate import tabulate


def markdown(cells: list[list[str]]) -> str:
    """Aligns cells, the first column to the left, the others right; row 0 is the header."""
    sides = ["left"] + ["right"] * (len(cells[0]) - 1)
    return tabulate(cells[1:], cells[0], "pipe", colalign=sides, disable_numparse=True) + "\n"
