"""Tables as Markdown, aligned, so that they read as text too."""


def markdown(cells: list[list[str]]) -> str:
    """Aligns cells, the first column to the left and numbers to the right; row 0 is the header."""
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    lines = []
    for row in [cells[0], rule, *cells[1:]]:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(padded) + " |\n")
    return "".join(lines)
