"""The page of examples/browser in Chromium: a photograph is dropped on it, as a user does."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.export import export
from tests.export.test_export import draw_images, make_predictor

PAGE = Path(__file__).parents[2] / "examples" / "browser"
# Drops a file on the page in a frame, and sends back what it shows.
DROP = """<!doctype html><iframe src="index.html" style="width:WIDTHpx;height:1600px"></iframe>
<script type="module">
const frame = document.querySelector("iframe");
await new Promise((loaded) => { frame.onload = loaded; });
const page = frame.contentDocument, status = page.getElementById("status");
const sleep = () => new Promise((later) => setTimeout(later, 50));
while (!status.textContent.startsWith("ready") && !status.className) await sleep();
const transfer = new DataTransfer();
transfer.items.add(new File([await (await fetch("photograph.png")).blob()], "photograph.png"));
page.getElementById("drop").dispatchEvent(
  new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
while (/^(ready|looking)/.test(status.textContent)) await sleep();
const buttons = [...page.querySelectorAll("#classes button")];
const pixels = () => {
  const { width, height } = page.getElementById("map");
  const context = page.getElementById("map").getContext("2d");
  return [...context.getImageData(0, 0, width, height).data].reduce((a, b) => a + b, 0);
};
const maps = buttons.map((button) => { button.click(); return pixels(); });
await fetch("/shown", { method: "POST", body: JSON.stringify({
  status: status.textContent, maps,
  classes: buttons.map((b) => [b.children[1].textContent, b.children[2].textContent]),
  wider: page.documentElement.scrollWidth - frame.clientWidth }) });
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and puts what is sent to it into a queue."""

    def __init__(self, *args, shown, **options):
        self.shown = shown
        super().__init__(*args, **options)

    def do_POST(self):
        self.shown.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with a network and a photograph, and what the network says of it."""
    pytest.importorskip("jax2onnx", reason="needs the extra export-onnx")
    if not shutil.which("chromium"):
        pytest.skip("needs Chromium")
    if not (PAGE / "ort").is_dir():
        pytest.skip("needs examples/browser/ort, see its README.md")
    folder = tmp_path_factory.mktemp("site") / "browser"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("model.*", "npm"))
    predictor = make_predictor("resnet20", "identity", size=32)
    export(predictor, folder / "model.onnx", "onnx", ("probabilities", "class_maps"))
    (pixels,) = draw_images(predictor, 1)
    Image.fromarray(pixels).save(folder / "photograph.png")
    ((*best,),) = predictor.top_k(predictor([pixels]))
    return folder, best


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the converter
@pytest.mark.parametrize("width", [400, 1400])
def test_a_photograph_that_is_dropped_is_classified(site, width, tmp_path):
    folder, best = site
    (folder / "drop.html").write_text(DROP.replace("WIDTH", str(width)))
    shown = queue.Queue()
    handler = functools.partial(Handler, directory=folder, shown=shown)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (tmp_path / "log").open("w") as log:
            browser = subprocess.Popen(
                ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
                 f"--user-data-dir={tmp_path}", "--enable-logging=stderr",
                 f"http://localhost:{server.server_port}/drop.html"],
                stderr=log, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                found = shown.get(timeout=90)
            finally:
                browser.terminate()
                browser.wait()
                server.shutdown()
    assert found["status"].endswith("Choose a class to see where the network sees it.")
    assert [name for name, _ in found["classes"]] == [name for name, _ in best]
    shares = [float(share.removesuffix(" %")) for _, share in found["classes"]]
    np.testing.assert_allclose(shares, [100 * share for _, share in best], atol=0.1)
    assert len(set(found["maps"])) == 5 and min(found["maps"]) > 0
    assert found["wider"] <= 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert not [line for line in lines if "CONSOLE" in line and "drop.html" not in line]
