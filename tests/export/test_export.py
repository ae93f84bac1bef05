"""Exported models give what the model gives, without this package."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file

from fixed_head_jax import pretrained
from fixed_head_jax.export import SUFFIXES, export
from fixed_head_jax.export.__main__ import main
from fixed_head_jax.export.program import every_class_map, make_program
from fixed_head_jax.export.quantization import dequantize, quantize, quantize_variables
from fixed_head_jax.heads import get_head
from fixed_head_jax.inference.maps import class_maps
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


def as_if_trained(path, value):
    """Moves what starts as zeros and ones, so that a file without it gives something else."""
    noise = np.random.default_rng(len(path)).uniform(0.5, 1.5, value.shape).astype(np.float32)
    name = path[-1].key
    return value * noise if name in ("var", "scale") else value + 0.1 * noise * (name != "kernel")


def make_predictor(backbone, head="linear", size=8, channels=3, **options):
    sized = {"image_size": size} if backbone == "vit_tiny" else {}
    model = get_model(10, backbone, head, backbone_options=sized, head_options=options)
    images = jax.numpy.zeros((1, size, size, channels))
    variables = jax.jit(lambda rng: model.init(rng, images, train=False))(jax.random.key(0))
    variables = jax.tree_util.tree_map_with_path(as_if_trained, variables)
    preprocessing = Preprocessing((size, size, channels), 0, "bilinear", (0.4,), (0.3,))
    names = tuple(f"class {i}" for i in range(10))
    return Predictor("made up", model, variables, preprocessing, names)


def run_stablehlo(path, images):
    """In a process that cannot import this package; returns the outputs in their order."""
    files = [path, path.with_name("images.npy"), path.with_name("out.npz")]
    np.save(files[1], images)
    subprocess.run([sys.executable, "-c", RUN, *map(str, files)], check=True, cwd=path.parent)
    with np.load(files[2]) as found:
        return [found[f"arr_{i}"] for i in range(len(found))]


def run_onnx(path, images):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra export-onnx")
    return runtime.InferenceSession(path).run(None, {"images": images})


def run_litert(path, images):
    """One image after the other."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    run = interpreter.Interpreter(str(path)).get_signature_runner()
    found = [run(images=image[None]) for image in images]
    names = json.loads(path.with_suffix(".json").read_text())["outputs"]
    return [np.concatenate([one[name] for one in found]) for name in names]


# Format -> the package that writes it, and what runs it without this package.
RUNTIMES = {
    "stablehlo": ("flatbuffers", run_stablehlo),
    "onnx": ("jax2onnx", run_onnx),
    "litert": ("litert_converter", run_litert),
}


def draw_images(predictor, count=3):
    shape = (count, *predictor.preprocessing.image_shape)
    return np.random.default_rng(count).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the converters
@pytest.mark.parametrize("backbone", FAMILIES)
@pytest.mark.parametrize("format", RUNTIMES)
def test_files_give_what_the_model_gives(format, backbone, tmp_path):
    package, run = RUNTIMES[format]
    pytest.importorskip(package, reason=f"needs the extra of {format}")
    size = FAMILIES[backbone]
    predictor = make_predictor(backbone, size=size)
    images = draw_images(predictor)
    names, path = ("features", "feature_map", "probabilities"), tmp_path / f"m{SUFFIXES[format]}"
    described = export(predictor, path, format, names)
    expected = predictor(images)
    for name, found in zip(names, run(path, images), strict=True):
        there = getattr(expected, name)
        np.testing.assert_allclose(found, there, rtol=0, atol=1e-5 * np.abs(there).max())
    assert json.loads(described.read_text()) == {
        "class_names": list(predictor.class_names), "image_shape": [size, size, 3],
        "resize_size": size, "interpolation": "bilinear", "mean": [0.4], "std": [0.3],
        "outputs": list(names), "input": "uint8",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("head", ["hadamard", "linear"])
@pytest.mark.parametrize("format", RUNTIMES)
def test_weights_of_8_bits_in_every_format(format, head, tmp_path):
    package, run = RUNTIMES[format]
    pytest.importorskip(package, reason=f"needs the extra of {format}")
    if format == "litert":
        pytest.importorskip("ai_edge_quantizer")
    predictor = make_predictor("resnet20", head)
    images = draw_images(predictor)
    names = ("logits", "class_maps")
    whole, small = (tmp_path / f"{name}{SUFFIXES[format]}" for name in ("whole", "small"))
    export(predictor, whole, format, names)
    export(predictor, small, format, names, int8=True)
    assert small.stat().st_size < 0.45 * whole.stat().st_size
    rounded = dequantize(quantize_variables(predictor.variables))
    program = make_program(dataclasses.replace(predictor, variables=rounded), names)
    expected = jax.jit(program.call)(images)
    for found, there in zip(run(small, images), expected, strict=True):
        np.testing.assert_allclose(found, there, rtol=0, atol=1e-5 * np.abs(there).max())


@pytest.mark.filterwarnings("default")
def test_onnx_holds_its_description(tmp_path):
    pytest.importorskip("jax2onnx", reason="needs the extra export-onnx")
    import onnx

    predictor = make_predictor("resnet20", "identity")
    described = export(predictor, tmp_path / "m.onnx", "onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    found = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert found == json.loads(described.read_text())
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("head", ["identity", "hadamard", "linear", "random", "cosine"])
def test_class_maps_are_those_of_inference(head):
    model = get_model(10, "resnet20", head)
    feature_map = jax.random.normal(jax.random.key(1), (2, 3, 2, 64))
    features = feature_map.mean((1, 2))
    own = model.head.init(jax.random.key(0), features)
    own = jax.tree_util.tree_map_with_path(as_if_trained, own)
    variables = {collection: {"head": values} for collection, values in own.items()}
    found = every_class_map(model, variables, feature_map)
    expected = class_maps(model, variables, feature_map, np.arange(10))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_levels_are_the_closest_multiples():
    weights = np.random.default_rng(0).standard_normal((3, 3, 4, 6)).astype(np.float32)
    weights[..., 2] = 0
    levels, factors = quantize(weights)
    assert levels.dtype == np.int8 and factors.shape == (1, 1, 1, 6)
    assert np.abs(levels).max((0, 1, 2)).tolist() == [127, 127, 0, 127, 127, 127]
    assert np.all(np.abs(levels * factors - weights) <= 0.5001 * factors)
    np.testing.assert_array_equal(quantize(levels * factors).levels, levels)
    signs = np.where(weights > 0, 1, -1).astype(np.float32)
    by_row, ones = quantize(signs, axis=0)
    np.testing.assert_allclose(by_row * ones, signs, rtol=1e-6)
    assert ones.shape == (3, 1, 1, 1)


def test_weights_of_8_bits_are_a_quarter(tmp_path):
    predictor = make_predictor("resnet20", "linear")
    sizes = []
    for int8 in (False, True):
        export(predictor, tmp_path / "m.stablehlo", "stablehlo", int8=int8)
        sizes.append((tmp_path / "m.stablehlo").stat().st_size)
    assert 0.25 < sizes[1] / sizes[0] < 0.4


@pytest.mark.parametrize("format, package", [("onnx", "jax2onnx"), ("litert", "litert_converter")])
def test_a_missing_extra_is_named(format, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"needs \S+: pip install '?fixed_head_jax.export-"):
        export(make_predictor("resnet20"), tmp_path / f"m{SUFFIXES[format]}", format)


@pytest.mark.parametrize(
    "head, most", [("identity", 40_000), ("hadamard", 40_000), ("random", None), ("linear", None)]
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
        images = draw_images(predictor, count)
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
        (["--format=torch", "--out=x.safetensors", "--int8"], "--int8 is for programs"),
    ],
)
def test_mistakes(arguments, message, monkeypatch, capsys):
    predictor = make_predictor("resnet20")
    monkeypatch.setattr("fixed_head_jax.export.__main__.load", lambda *_: predictor)
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err
