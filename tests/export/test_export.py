"""Exported models give what the model gives, without this package."""

import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file

from fixed_head_jax import pretrained
from fixed_head_jax.export import export
from fixed_head_jax.export.__main__ import main
from fixed_head_jax.heads import get_head
from fixed_head_jax.inference.predictor import Predictor, Preprocessing
from fixed_head_jax.model import get_model

# Of every family, at a size that it takes.
FAMILIES = {
    "resnet20": 8,
    **{name: 32 for name in ("resnet18", "densenet_bc_100_12", "mobilenet_v2")},
    **{name: 32 for name in ("shufflenet_v2_x0_5", "vit_tiny")},
    "inception_v4": 96,
}
RUN = """
import json, sys
import numpy as np
from jax import export
assert "fixed_head_jax" not in sys.modules
program = export.deserialize(open(sys.argv[1], "rb").read())
images = np.load(sys.argv[2])
outputs = program.call(images)
assert "fixed_head_jax" not in sys.modules
np.savez(sys.argv[3], *outputs)
"""


def make_predictor(backbone, head="linear", size=8, channels=3, **options):
    sized = {"image_size": size} if backbone == "vit_tiny" else {}
    model = get_model(10, backbone, head, backbone_options=sized, head_options=options)
    images = jax.numpy.zeros((1, size, size, channels))
    variables = jax.jit(lambda rng: model.init(rng, images, train=False))(jax.random.key(0))
    preprocessing = Preprocessing((size, size, channels), 0, "bilinear", (0.4,), (0.3,))
    names = tuple(f"class {i}" for i in range(10))
    return Predictor("made up", model, variables, preprocessing, names)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_stablehlo_runs_without_this_package(backbone, tmp_path):
    size = FAMILIES[backbone]
    predictor = make_predictor(backbone, size=size)
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    names = ("probabilities", "features", "feature_map")
    described = export(predictor, tmp_path / "model.stablehlo", "stablehlo", names)
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("model.stablehlo", "images.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", RUN, *files], check=True, cwd=tmp_path)
    expected = predictor(images)
    with np.load(files[2]) as found:
        for name, output in zip(names, (found[f"arr_{i}"] for i in range(3)), strict=True):
            there = getattr(expected, name)
            np.testing.assert_allclose(output, there, rtol=0, atol=1e-5 * np.abs(there).max())
    assert json.loads(described.read_text()) == {
        "class_names": list(predictor.class_names), "image_shape": [size, size, 3],
        "resize_size": size, "interpolation": "bilinear", "mean": [0.4], "std": [0.3],
        "outputs": list(names), "input": "uint8",
    }  # fmt: skip


@pytest.mark.parametrize(
    "head, most", [("identity", 4096), ("hadamard", 40_000), ("random", None), ("linear", None)]
)
def test_what_a_head_adds_to_a_file(head, most):
    """An identity head nothing, a Hadamard one no matrix of 8 MB; a stored one its vectors."""
    dim, num_classes = 2048, 1000
    module = get_head(head, num_classes=num_classes)
    variables = module.init(jax.random.key(0), jax.numpy.zeros((1, dim)))
    (batch,) = jax.export.symbolic_shape("batch")
    features = jax.ShapeDtypeStruct((batch, dim), jax.numpy.float32)
    program = jax.export.export(jax.jit(lambda features: module.apply(variables, features)))
    size = len(program(features).serialize())
    matrix = 4 * dim * num_classes
    assert size < most if most else matrix < size < 1.1 * matrix


def test_batches_of_any_size(tmp_path):
    predictor = make_predictor("resnet20", "hadamard")
    export(predictor, tmp_path / "model.stablehlo", "stablehlo")
    program = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes())
    for count in (1, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
        (found,) = program.call(images)
        np.testing.assert_allclose(found, predictor(images).probabilities, atol=1e-6)


def test_torch_weights_are_those_of_to_torch(tmp_path):
    predictor = make_predictor("resnet20", "orthogonal")
    export(predictor, tmp_path / "model.safetensors", "torch")
    expected = pretrained.to_torch(predictor.variables, predictor.model)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert "outputs" not in json.loads((tmp_path / "model.json").read_text())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format=stablehlo", "--out=x.onnx"], "must end in .stablehlo for stablehlo"),
        (["--format=torch", "--out=none/x.safetensors"], "is in no folder"),
        (["--format=stablehlo", "--out=x.stablehlo", "--outputs=maps"], "unknown output 'maps'"),
    ],
)
def test_mistakes(arguments, message, monkeypatch, capsys):
    predictor = make_predictor("resnet20")
    monkeypatch.setattr("fixed_head_jax.export.__main__.load", lambda *_: predictor)
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err
