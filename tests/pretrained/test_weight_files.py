"""Files of weights: converted, refused, and never executed."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fixed_head_jax.pretrained.__main__ import main
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.pretrained.files import read_weights
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
