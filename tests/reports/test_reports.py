"""Reports: whole pages that need nothing from elsewhere, with the numbers that were measured."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fixed_head_jax.configs import digits
from fixed_head_jax.reports import page, write_report
from fixed_head_jax.reports.calibration import calibrate
from fixed_head_jax.training import experiment, loop

VOID = {"meta", "link", "img", "br", "path", "use", "rect"}


class Reader(html.parser.HTMLParser):
    """Collects titles, texts and what a page asks for from elsewhere; checks that tags close."""

    def __init__(self):
        super().__init__()
        self.open, self.titles, self.texts, self.sources = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [v for name, v in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())
        if self.open[-1:] == ["h2"]:
            self.titles.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir, tiny_backbone):
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = digits.get_config("linear,smoke")
    config.data_dir, config.model.backbone = str(data_dir), "tiny"
    result = loop.train(experiment.build(config), folder)
    return folder, result


def test_a_run(run):
    folder, result = run
    (folder / "sessions.jsonl").write_text(
        json.dumps(
            {"time": "now", "command": "main.py <x> --a=1", "step": 0, "devices": "1 x cpu"}
            | {"versions": {"jax": "1.2"}}
        )
    )
    reader = read(write_report(folder))
    assert reader.titles == [
        "Result", "Training", "Confusions", "Calibration", "Features", "Most confident mistakes",
        "Class maps", "Size", "Config", "How it was made",
    ]  # fmt: skip
    assert all(source.startswith(("data:", "#")) for source in reader.sources)
    assert f"{result['eval/accuracy']:.4g}" in reader.texts
    assert "main.py <x> --a=1" in reader.texts
    assert f"Accuracy {result['eval/accuracy']:.2f} %" in " ".join(reader.texts)
    assert "On 50 of the 50 images of 'test[:50]' of 'digits'." in reader.texts
    rows = re.findall(r"said (\d) \((\d+) %\), is (\d)", " ".join(reader.texts))
    shares = [int(share) for _, share, _ in rows]
    assert rows and all(said != label for said, _, label in rows)
    assert shares == sorted(shares, reverse=True)


def test_without_its_data_and_of_several(run, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(run[0], tmp_path / "rows" / name / "seed0")
        record = tmp_path / "rows" / name / "seed0" / "config.json"
        record.write_text(record.read_text().replace(run[0].parents[1].as_posix(), "/none"))
        values = json.loads(record.read_text()) | {"data_dir": "/none"}
        record.write_text(json.dumps(values))
    reader = read(write_report(tmp_path / "rows" / "a" / "seed0"))
    assert "Predictions" in reader.titles and "Size" in reader.titles
    assert any(text.startswith("Not measured: data_dir '/none'") for text in reader.texts)
    (tmp_path / "rows" / "sweep.md").write_text("Best first\n\n| row | % |\n|:--|--:|\n| a | 9 |\n")
    (tmp_path / "rows" / "b" / "seed0" / "report.html").unlink(missing_ok=True)
    reader = read(write_report(tmp_path / "rows"))
    assert reader.titles == ["Sweep", "Runs"]
    assert "a/seed0/report.html" in reader.sources and "b/seed0/report.html" not in reader.sources
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path / "none")


def test_calibration_equals_a_loop_over_the_bins():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), 300)
    probabilities[:3] = np.eye(4)[:3]  # the upper end of the last bin
    labels = rng.integers(0, 4, 300)
    found = calibrate(probabilities, labels, bins=5)
    confidences, error = probabilities.max(1), 0.0
    for index in range(5):
        inside = (confidences > index / 5) & (confidences <= (index + 1) / 5)
        assert found.counts[index] == inside.sum()
        if inside.any():
            accuracy = (probabilities.argmax(1) == labels)[inside].mean()
            assert found.accuracy[index] == pytest.approx(accuracy)
            error += inside.mean() * abs(accuracy - confidences[inside].mean())
    assert found.error == pytest.approx(error)
    assert np.isnan(found.accuracy[0])  # no largest of four is below a quarter


def test_what_users_name_cannot_break_the_page():
    text = page.page("<b>", "&", [page.table(("<i>",), [("<script>",)]), page.code("a<b")])
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert page.section("empty", "", page.table(("a",), [])) == ""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_whole(run, tmp_path, width):
    """No message of the console, no missing picture, nothing wider than the window."""
    path = write_report(run[0])
    text = path.read_text().replace(
        "</body>",
        "<script>addEventListener('load', () => { const broken = [...document.images].filter("
        "i => !i.naturalWidth); document.title = JSON.stringify([document.images.length, "
        "broken.length, document.documentElement.scrollWidth - innerWidth]) })</script></body>",
    )
    (tmp_path / "page.html").write_text(text)
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom",
         (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    images, broken, too_wide = json.loads(re.search(r"<title>(.*)</title>", shown.stdout)[1])
    assert images > 0 and broken == 0 and too_wide <= 0
    assert "CONSOLE" not in shown.stderr
