"""The charts are whole PNG files, whatever is known of a sweep or a search."""

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.display.charts import search_chart, sweep_chart
from fixed_head_jax.studies.report import sweep_rows


def row(head, accuracy=None, std=None, published=None, baseline="linear"):
    known = {"head": head, "accuracy": accuracy, "std": std, "published": published}
    return {**known, "baseline": baseline}


def read(path):
    """Returns the pixels of a PNG file that has to be there, alone."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return np.asarray(image.convert("RGB"))


SOME = [row("linear", 94.2, 0.3, 94.1), row("identity", 94.6), row("cosine", None, None, 93.7)]
LONG = "a row whose name says everything there is to say of it, number"
SWEEPS = {
    "some": SOME,
    "one": [row("linear", 94.2)],
    "none": [row("linear"), row("identity")],
    "only published": [row("linear", None, None, 94.1)],
    "many": [row("linear", 90.0)] + [row(f"{LONG} {n}", 60.0 + n, 1.0, 61.0) for n in range(29)],
    "own baselines": [row("linear", 90.0), row("cosine", 80.0, 0.5, None, "cosine")],
    "not finite": [row("linear", float("nan"), float("nan")), row("identity", 94.6)],
    "mathematics": [row("$x_1$ and $"), row("_hidden", 1.0)],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_sweep_chart_is_a_picture(tmp_path, name):
    pixels = read_after(sweep_chart, tmp_path, SWEEPS[name])
    assert pixels.shape[1] == 1200 and pixels.std() > 0


def read_after(chart, tmp_path, *arguments):
    chart(*arguments, tmp_path / "chart.png")
    return read(tmp_path / "chart.png")


def test_sweep_chart_takes_the_rows_of_a_report(tmp_path):
    sweep = {
        "baseline": "linear",
        "seeds": (0, 1),
        "rows": [{"name": "linear", "published": 94.1}, {"name": "identity"}],
    }
    results = [
        {"name": "linear", "seed": seed, "accuracy": 94.0 + seed, "params": 1, "fixed": 0}
        for seed in (0, 1)
    ]
    assert read_after(sweep_chart, tmp_path, sweep_rows(sweep, results)).std() > 0


def test_sweep_chart_grows_with_its_rows_and_keeps_inside(tmp_path):
    small, large = (read_after(sweep_chart, tmp_path, SWEEPS[name]) for name in ("some", "many"))
    assert len(large) > 4 * len(small)
    for pixels in (small, large):
        edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        assert all((edge == 255).all() for edge in edges)  # nothing is cut off


def test_every_part_of_a_row_is_drawn(tmp_path):
    """Against the same row without it."""
    pictures = [
        read_after(sweep_chart, tmp_path, [row("linear", 90.0, std, published), row("b", 95.0)])
        for std, published in ((None, None), (1.0, None), (1.0, 92.0))
    ]
    for less, more in zip(pictures[:-1], pictures[1:], strict=True):
        assert less.shape != more.shape or (less != more).any()


def test_sweep_chart_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="rows is empty; a sweep chart needs at least one"):
        sweep_chart([], tmp_path / "chart.png")


SEARCHES = {
    "some": ({0: 88.0, 1: 90.5, 2: None, 3: 89.0}, {"lr": 0.7, "new_layers": 0.3}),
    "none": ({}, {}),
    "one": ({0: 70.0}, {}),
    "all diverged": ({0: None, 1: None}, {}),
    "first of all later": ({7: 70.0, 3: 71.0, 9: None}, {"lr": 1.0}),
    "no dial matters": ({n: 70.0 for n in range(40)}, {"lr": 0.0, "decay": 0.0}),
    "many dials": ({0: 70.0, 1: 71.0}, {f"{LONG} {n}": 1 / 20 for n in range(20)}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_search_chart_is_a_picture(tmp_path, name):
    pixels = read_after(search_chart, tmp_path, *SEARCHES[name])
    assert pixels.shape[1] == 1500 and pixels.std() > 0


def test_an_interrupted_chart_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "chart.png"
    search_chart(*SEARCHES["some"], path)
    before = path.read_bytes()

    def stop(figure, file, **options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", stop)
    with pytest.raises(KeyboardInterrupt):
        search_chart(*SEARCHES["one"], path)
    assert path.read_bytes() == before
