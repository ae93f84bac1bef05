"""Files of weights: converted, refused, and never executed."""

import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fixed_head_jax.pretrained.__main__ import main
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.pretrained.files import CONVERSION, read_weights
from tests.pretrained.weights import small_dict


def test_convert_checks_and_writes_plain_names(tmp_path, capsys):
    source, target = str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")
    save_file({f"module.{key}": value for key, value in small_dict().items()}, source)
    main(["convert", source, target, "--backbone=resnet20", "--image_size=8"])
    assert capsys.readouterr().out == f"{len(small_dict())} arrays of resnet20 in {target}\n"
    written = load_file(target)
    assert set(written) == set(small_dict())
    assert all(np.array_equal(written[key], value) for key, value in small_dict().items())
    with pytest.raises(SystemExit, match="2"):
        main(["convert", source, target, "--backbone=resnet32", "--image_size=8"])
    assert "pretrained: the weights do not fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "head, kept",
    [((), ()), (("weight",), ("weight",)), (("weight", "bias", "scale"), ())],
    ids=["none", "no bias", "scaled"],
)
def test_convert_keeps_a_plain_classifier_alone(tmp_path, head, kept):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    backbone = {key: value for key, value in small_dict().items() if "linear" not in key}
    arrays = {"weight": np.ones((7, 64), np.float32), "bias": np.ones(7), "scale": np.ones(())}
    save_file({**backbone, **{f"linear.{name}": arrays[name] for name in head}}, source)
    count = convert(str(source), str(target), "resnet20", 8)
    assert set(load_file(target)) == {*backbone, *(f"linear.{name}" for name in kept)}
    assert count == len(backbone) + len(kept)


def test_files_that_cannot_be_read(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(small_dict(), whole)
    content = whole.read_bytes()
    damaged = {
        "truncated.safetensors": content[: len(content) // 2],
        "corrupt.safetensors": b"\xff" * 8 + content[8:],
        "empty.safetensors": b"",
        "text.safetensors": b"<html>not found</html>",
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="is not a whole .safetensors file"):
            read_weights(tmp_path / name)
    with pytest.raises(ValueError, match="does not exist"):
        read_weights(tmp_path / "nothing.safetensors")
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="neither .safetensors nor .pth, .pt"):
        read_weights(tmp_path / "weights.npz")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_are_never_executed(tmp_path, monkeypatch):
    """With torch or without: a file that holds code is refused and its code does not run."""
    file, touched = tmp_path / "weights.pth", tmp_path / "touched"
    file.write_bytes(pickle.dumps({"conv1.weight": Bomb(touched)}, protocol=2))
    with pytest.raises(ValueError, match="weights.pth"):
        read_weights(file)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="needs torch, .* weights_only=True"):
        read_weights(file)
    assert not touched.exists()


def test_torch_reads_weights_alone(tmp_path, monkeypatch):
    """With a stand-in for torch: the flag that forbids code, and one clear line for its errors."""
    calls = []

    def load(path, **options):
        calls.append(options)
        raise pickle.UnpicklingError("Unsupported global: GLOBAL utils.Queue was not an allowed")

    stub = types.SimpleNamespace(load=load, Tensor=np.ndarray)
    monkeypatch.setitem(sys.modules, "torch", stub)
    (tmp_path / "weights.pth.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="Python object, utils.Queue, and not weights alone"):
        read_weights(tmp_path / "weights.pth.tar")
    assert calls == [{"map_location": "cpu", "weights_only": True}]
    stub.load = lambda path, **options: [1, 2]
    with pytest.raises(ValueError, match="damaged, or not a file of weights"):
        read_weights(tmp_path / "weights.pth.tar")


def test_torch_files(tmp_path):
    torch = pytest.importorskip("torch", reason="reads .pth through torch")
    tensors = {key: torch.from_numpy(value.copy()) for key, value in small_dict().items()}
    torch.save({"state_dict": tensors, "epoch": 1}, tmp_path / "weights.pth")
    read = read_weights(tmp_path / "weights.pth")
    assert all(np.array_equal(read[key], value) for key, value in small_dict().items())
    content = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(content[: len(content) // 2])
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("truncated.pth", "list.pth", "empty.pth"):
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)
    head = {"weight": torch.ones(3, 64), "s_": torch.zeros(1), "kappa": torch.full((1,), 16.0)}
    released = {
        "kobayashi.pth.tar": {
            "feat_state_dict": tensors,
            "fc_state_dict": head,
            "stats": {"e": [1]},
        },
        "shalev.ckpt": {"model_state": tensors, "epoch": 1, "loss": 0.5, "acc": 81.5},
    }
    for name, content in released.items():
        torch.save(content, tmp_path / name)
    target, script = tmp_path / "converted.safetensors", CONVERSION.split('"')[1]
    for name in ("weights.pth", *released):
        subprocess.run([sys.executable, "-c", script, tmp_path / name, target], check=True)
        read, converted = read_weights(tmp_path / name), load_file(target)
        assert set(converted) == set(read) >= set(small_dict())
        assert all(np.array_equal(converted[key], value) for key, value in read.items())
        assert ("head.kappa" in converted) == ("kobayashi" in name)
