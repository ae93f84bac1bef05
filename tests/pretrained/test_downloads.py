"""Public weights by name, from servers on this machine that answer as the public ones do."""

import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fixed_head_jax import pretrained
from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.model import get_model
from fixed_head_jax.pretrained import addresses, downloads
from fixed_head_jax.pretrained.__main__ import main
from fixed_head_jax.pretrained.addresses import KNOWN
from fixed_head_jax.pretrained.files import read_weights
from tests.pretrained import torch_pickles
from tests.pretrained.weights import SMALL, small_dict

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"  # nothing listens there


class Server(http.server.ThreadingHTTPServer):
    """Gives `files`, path -> bytes; of those in `broken`, half."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.asked = {}, set(), []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        content = self.server.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")  # as the hub says it
        content = content or b""
        checksum = hashlib.sha256(self.server.files.get(f"{self.path} as promised", content))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{checksum.hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            broken = self.path in self.server.broken
            self.wfile.write(content[: len(content) // 2] if broken else content)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that stands for both places, and caches of their own."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    connect(monkeypatch, server.url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def connect(monkeypatch, url):
    monkeypatch.setattr(addresses, "TORCHVISION", f"{url}/models/")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{template}"
    )
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def torchvision(server, tmp_path):
    """Name and content of a file that is there."""
    content = torch_pickles.save(tmp_path / "x.pth", small_dict()).read_bytes()
    name = f"resnet20-{hashlib.sha256(content).hexdigest()[:8]}"
    server.files[f"/models/{name}.pth"] = content
    return name, content


@pytest.fixture
def timm(server):
    content = save(small_dict())
    server.files["/timm/resnet20.a1/resolve/main/model.safetensors"] = content
    return "resnet20.a1", content


def is_small(state_dict):
    expected = small_dict()
    return set(state_dict) == set(expected) and all(
        np.array_equal(value, expected[name]) for name, value in state_dict.items()
    )


def gets(server):
    return [
        asked for asked in server.asked if asked.startswith("GET") and asked[4:] in server.files
    ]


def test_torchvision_is_downloaded_once(server, torchvision, tmp_path):
    name, content = torchvision
    file = tmp_path / "torch" / "hub" / "checkpoints" / f"{name}.pth"
    for source in (f"torchvision:{name}", f"torchvision:{name}.pth"):
        assert is_small(pretrained.load(source, SMALL))
    assert gets(server) == [f"GET /models/{name}.pth"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_bytes() == content


def test_timm_is_downloaded_once(server, timm, tmp_path):
    for _ in range(2):
        assert is_small(pretrained.load(f"timm:{timm[0]}", SMALL))
    assert gets(server) == ["GET /timm/resnet20.a1/resolve/main/model.safetensors"]
    link = tmp_path / "hub" / "models--timm--resnet20.a1" / "snapshots" / COMMIT
    assert (link / "model.safetensors").read_bytes() == timm[1]


def test_convert_takes_names(torchvision, tmp_path, capsys):
    target = str(tmp_path / "out.safetensors")
    source = f"torchvision:{torchvision[0]}"
    main(["convert", source, target, "--backbone=resnet20", "--image_size=8"])
    assert is_small(read_weights(target))
    with pytest.raises(SystemExit, match="2"):
        main(["convert", source, target, "--backbone=resnet32", "--image_size=8"])
    assert "do not fit the model; missing: layer1.3.bn1.running_mean" in capsys.readouterr().err


def damage(file):
    content = bytearray(Path(file).read_bytes())
    content[-1] ^= 1  # of the same size, and still a file of weights
    Path(file).write_bytes(content)


@pytest.mark.parametrize("place", ["torchvision", "timm"])
def test_a_damaged_file_of_the_cache_is_downloaded_again(request, server, monkeypatch, place):
    name, content = request.getfixturevalue(place)
    file = downloads.fetch(f"{place}:{name}")
    damage(file)
    assert downloads.fetch(f"{place}:{name}").read_bytes() == content
    assert len(gets(server)) == 2
    damage(file)
    connect(monkeypatch, CLOSED)
    with pytest.raises(ValueError, match=f"^{place}:{name} cannot be downloaded .* place of the"):
        downloads.fetch(f"{place}:{name}")


@pytest.mark.parametrize("place", ["torchvision", "timm"])
def test_what_is_in_the_cache_needs_no_network(request, monkeypatch, place):
    name, content = request.getfixturevalue(place)
    downloads.fetch(f"{place}:{name}")
    connect(monkeypatch, CLOSED)
    assert downloads.fetch(f"{place}:{name}").read_bytes() == content


def test_without_network_one_line_says_where_to_put_the_file(server, monkeypatch, tmp_path):
    connect(monkeypatch, CLOSED)
    folder = str(tmp_path / "torch" / "hub" / "checkpoints")
    with pytest.raises(ValueError) as error:
        read_weights("torchvision:resnet50-11ad3fa6")
    assert str(error.value) == (
        "torchvision:resnet50-11ad3fa6 cannot be downloaded ([Errno 111] Connection refused): get "
        f"{CLOSED}/models/resnet50-11ad3fa6.pth elsewhere and give the path of that file in place "
        f"of the name (init_from=FILE in a config), or put it in {folder!r}"
    )
    with pytest.raises(ValueError) as error:
        read_weights("timm:resnet50.a1_in1k")
    assert str(error.value) == (
        "timm:resnet50.a1_in1k cannot be downloaded ([Errno 111] Connection refused): get "
        f"{CLOSED}/timm/resnet50.a1_in1k/resolve/main/model.safetensors elsewhere and give the "
        "path of that file in place of the name (init_from=FILE in a config)"
    )
    assert not (tmp_path / "torch").exists() or not os.listdir(folder)


@pytest.mark.parametrize("place", ["torchvision", "timm"])
def test_an_interrupted_download_leaves_nothing(request, server, monkeypatch, tmp_path, place):
    name, content = request.getfixturevalue(place)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before the client tries again
    server.broken = set(server.files)
    with pytest.raises(ValueError, match=f"{place}:{name} cannot be downloaded .*"):
        downloads.fetch(f"{place}:{name}")
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_size > 99
                and file.name != "x.pth" and file.name != "CACHEDIR.TAG"]  # fmt: skip
    server.broken = set()
    assert downloads.fetch(f"{place}:{name}").read_bytes() == content


@pytest.mark.parametrize("place", ["torchvision", "timm"])
def test_what_does_not_have_its_checksum_is_refused(request, server, tmp_path, place):
    name, content = request.getfixturevalue(place)
    (path,) = server.files
    server.files = {path: content[:-1] + b"?", f"{path} as promised": content}
    for _ in range(2):
        with pytest.raises(ValueError, match="SHA-256|checksum"):
            downloads.fetch(f"{place}:{name}")
    server.files = {path: content}
    assert downloads.fetch(f"{place}:{name}").read_bytes() == content


@pytest.mark.parametrize(
    "source, hint",
    [
        ("torchvision:resnet50-11ad3fa7", "there is no .* .did you mean '.*resnet50-11ad3fa6'"),
        ("torchvision:resnet50", "does not end in the digits .* mean 'torchvision:resnet50-"),
        ("torchvision:../../x-11ad3fa6", "does not end in the digits"),
        ("timm:resnet50.a1_in1", "there is no .*timm/resnet50.a1_in1/.* 'timm:resnet50.a1_in1k'"),
        ("timm:resnet50/a1/in1k", "'timm:resnet50/a1/in1k' is no name of weights"),
        ("timm:", "is no name of weights"),
        ("timn:resnet50.a1_in1k", "does not exist .did you mean 'timm:resnet50.a1_in1k'"),
        ("resnet50.a1_in1k", "weights file .* does not exist .did you mean 'timm:resnet50.a1"),
    ],
)
def test_names_that_there_are_not(server, source, hint):
    with pytest.raises(ValueError, match=hint) as error:
        read_weights(source)
    assert "\n" not in str(error.value)


def test_the_cache_is_where_torch_has_it(monkeypatch):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert downloads.torch_folder() == Path("~/.cache/torch/hub/checkpoints").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert downloads.torch_folder() == Path("/scratch/torch/hub/checkpoints")
    monkeypatch.setenv("TORCH_HOME", "/weights")
    assert downloads.torch_folder() == Path("/weights/hub/checkpoints")


# The table.

WITHOUT = {"resnet10", "stl_resnet18", "densenet_bc_100_12"} | {
    f"resnet{depth}" for depth in (20, 32, 44, 56)
}


def test_every_backbone_with_public_weights_is_in_the_table(capsys):
    assert {weights.backbone for weights in KNOWN.values()} == set(BACKBONES) - WITHOUT
    assert all(downloads.is_public(name) for name in KNOWN)
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"| {name} " in listed for name in KNOWN)
    assert max(map(len, listed.splitlines())) <= 120


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_is_plausible(name):
    weights = KNOWN[name]
    images = weights.preprocessing
    assert images.resize_size >= images.image_size > 0
    assert images.interpolation in ("bilinear", "bicubic") and len(images.mean) == 3
    assert weights.top1 is None or 50 < weights.top1 < 90


def test_preprocessing_of_what_is_named():
    bilinear = pretrained.preprocessing_of("torchvision:resnet50-11ad3fa6")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert bilinear == (224, 232, "bilinear", mean, std)
    assert pretrained.preprocessing_of("weights/resnet50-11ad3fa6.pth") == bilinear
    assert pretrained.preprocessing_of(Path("inception_v4.tf_in1k.safetensors")).image_size == 299
    for unknown in ("timm:resnet50d.ra2_in1k", "runs/digits", "model.safetensors", ""):
        assert pretrained.preprocessing_of(unknown) is None


def test_the_table_says_what_timm_and_torchvision_say():
    timm = pytest.importorskip("timm", reason="the table is compared with timm's")
    models = pytest.importorskip("torchvision", reason="and with torchvision's").models
    for name, weights in KNOWN.items():
        place, _, name = name.partition(":")
        images = weights.preprocessing
        if place == "timm":
            theirs = timm.models.get_pretrained_cfg(name)
            size, resize = theirs.input_size[-1], int(theirs.input_size[-1] / theirs.crop_pct)
            expected = (size, resize, theirs.interpolation, theirs.mean, theirs.std)
        else:
            (theirs,) = [w for w in models.get_model_weights(weights.backbone) if name in w.url]
            assert theirs.url == f"{addresses.TORCHVISION}{name}.pth"
            assert theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"] == weights.top1
            t = theirs.transforms()
            interpolation = t.interpolation.value
            expected = (*t.crop_size, *t.resize_size, interpolation, tuple(t.mean), tuple(t.std))
        assert images == expected, name


@pytest.mark.slow
def test_networks_of_timm_fit():
    """Names and shapes of all that are listed; numbers are compared with the golden files."""
    timm = pytest.importorskip("timm", reason="compares with timm's networks")
    for name, weights in KNOWN.items():
        if name.startswith("timm:"):
            network = timm.create_model(name.partition(":")[2], pretrained=False)
            given = {key: value.numpy() for key, value in network.state_dict().items()}
            model, size = get_model(1000, weights.backbone), weights.preprocessing.image_size
            pretrained.from_torch(given, model, size, skip_head=not network.num_classes)
