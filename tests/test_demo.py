"""The page to try a model on: what it says of a photograph, and the page in a browser."""

import dataclasses
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax import demo
from fixed_head_jax.layers.pooling import get_pool
from tests.export.test_export import draw_images, make_predictor


@pytest.fixture(scope="module")
def predictor():
    return make_predictor("resnet20", "identity", size=32)


@pytest.fixture(scope="module")
def photograph(predictor):
    return Image.fromarray(np.kron(draw_images(predictor, 1)[0], np.ones((3, 2, 1), np.uint8)))


def test_the_answer_is_that_of_the_predictor(predictor, photograph):
    seen = demo.look(predictor, photograph, 32, top_k=3)
    assert list(seen.probabilities.items()) == predictor.top_k(predictor([photograph]), 3)[0]
    name = next(iter(seen.probabilities))
    assert seen.caption == f"Where {name} is seen, at 32 pixels: 8 x 8 places."
    large = demo.look(predictor, photograph, 64, predictor.class_names[7])
    assert large.caption.startswith(f"Where {predictor.class_names[7]} is seen, at 64 pixels: 16 x")
    assert large.picture.shape == seen.picture.shape == (512, 512, 3)
    assert (
        list(large.probabilities.items())
        == predictor.at_size(64).top_k(predictor.at_size(64)([photograph]))[0]
    )


def test_the_map_is_that_of_the_class_alone(predictor, photograph):
    pictures = [demo.look(predictor, photograph, 32, n).picture for n in predictor.class_names[:3]]
    assert all((a != b).any() for a, b in zip(pictures, pictures[1:], strict=False))


def test_sizes_start_at_half_and_meet_the_trained_one(predictor):
    smallest, largest, step = demo.sizes(predictor)
    assert (smallest, largest, step) == (16, 128, 8) and (32 - smallest) % step == 0


@pytest.mark.parametrize("turned", [False, True])
def test_photographs_of_all_kinds_are_upright(predictor, photograph, turned, tmp_path):
    exif = Image.Exif()
    exif[274] = 3 if turned else 1  # upside down
    file = photograph.rotate(180) if turned else photograph
    file.convert("RGB" if turned else "RGBA").save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        ours = demo.look(predictor, opened, 32).probabilities
    expected = demo.look(predictor, photograph, 32).probabilities
    assert ours == pytest.approx(expected)


def test_a_model_without_maps_says_so(predictor, photograph):
    model = predictor.model.clone(pool=get_pool("max"))
    seen = demo.look(dataclasses.replace(predictor, model=model), photograph, 32)
    assert seen.picture is None and seen.caption.startswith("No class maps: max pooling has no")


def test_without_gradio_one_line_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as ended:
        demo.main(["a"])
    assert ended.value.code == 2
    said = "demo: the demo needs Gradio: pip install 'fixed_head_jax[demo]'\n"
    assert capsys.readouterr().err == said


SERVE = """
import sys
from fixed_head_jax import demo
from tests.export.test_export import make_predictor
page = demo.build_page(make_predictor("resnet20", "identity", size=32))
page.launch(server_port=int(sys.argv[1]), **demo.LAUNCH)
"""


@pytest.fixture(scope="module")
def address():
    """The page, served by a process of its own: Gradio leaves threads and loops behind."""
    pytest.importorskip("gradio", reason="needs the extra demo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(port)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE) as server:
        assert b"Running on local URL" in server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_classes_and_maps(address, predictor, photograph, tmp_path, width):
    """Nothing is fetched from elsewhere, nothing is wider than the window, no error is logged."""
    browsers = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not shutil.which("chromium"):
        pytest.skip("needs Chromium")
    photograph.save(tmp_path / "photograph.png")
    errors, asked = [], []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        shown = browser.new_page(viewport={"width": width, "height": 1000})
        shown.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(address)
        shown.locator("input[type=file]").first.set_input_files(tmp_path / "photograph.png")
        shown.get_by_text("at 32 pixels: 8 x 8 places").wait_for(timeout=60_000)
        shown.locator("input[type=range]").fill("64")
        shown.locator("input[type=range]").dispatch_event("pointerup")
        shown.get_by_text("at 64 pixels: 16 x 16 places").wait_for(timeout=60_000)
        best, second, *_ = demo.look(predictor, photograph, 64).probabilities
        assert best in shown.inner_text("body")
        shown.get_by_role("button", name=second).click()
        shown.get_by_text(f"Where {second} is seen, at 64 pixels").wait_for(timeout=60_000)
        assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        browser.close()
    assert not errors
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
