"""Cells stay as they are, whatever they look like, and the lines are a table of Markdown."""

from fixed_head_jax.display.tables import markdown


def test_cells_are_aligned_and_not_read_as_numbers():
    cells = [["row", "n"], ["0012", "1e5"], ["", "1,234"], ["x", "-"]]
    assert markdown(cells).splitlines() == [
        "| row   |     n |",
        "|:------|------:|",
        "| 0012  |   1e5 |",
        "|       | 1,234 |",
        "| x     |     - |",
    ]


def test_the_rule_has_a_dash_in_narrow_columns_and_without_rows():
    for cells in ([["a", "n"], ["b", "1"]], [["a", "n"]]):
        lines = markdown(cells).splitlines()
        assert len(lines) == len(cells) + 1
        assert all("--" in cell for cell in lines[1].strip("|").split("|"))
