"""A predictor says what the run's own evaluation says, from the folder of the run alone."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from fixed_head_jax import inference, pretrained
from fixed_head_jax.configs import digits
from fixed_head_jax.data import open_dataset
from fixed_head_jax.model import get_model
from fixed_head_jax.training import experiment, loop


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir, tiny_backbone):
    """A trained run, moved from where it was trained, and its evaluation images and predictions."""
    folder = tmp_path_factory.mktemp("runs")
    config = digits.get_config("hadamard,smoke")
    config.data_dir, config.save_predictions = str(data_dir), True
    config.model.backbone = "tiny"
    config.ema_decay, config.total_steps, config.num_devices = 0.5, 3, 2
    loop.train(experiment.build(config), folder / "trained")
    moved = shutil.move(folder / "trained", folder / "moved")
    images, _ = open_dataset("digits", "test[:50]", str(data_dir)).source.read(np.arange(50))
    with np.load(folder / "moved" / "predictions.npz") as saved:
        return moved, images, saved["eval_ema"]


def test_it_equals_evaluation_in_batches_of_any_size(run):
    folder, images, expected = run
    predictor = inference.load(folder)
    predictions = predictor(images)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    assert predictions.features.shape == (50, 64)
    assert predictions.feature_map.shape == (50, 2, 2, 64)
    np.testing.assert_allclose(predictor(images[:3]).probabilities, expected[:3], atol=1e-6)


def test_images_of_all_forms_are_one(run, tmp_path):
    folder, images, expected = run
    predictor = inference.load(folder, "last")
    image = images[7]
    picture = Image.fromarray(image[..., 0])
    picture.save(tmp_path / "a.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[274] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    colour, large = picture.convert("RGB"), picture.resize((32, 24), Image.Resampling.NEAREST)
    forms = [image, image[..., 0], picture, tmp_path / "a.png", str(tmp_path / "turned.png")]
    probabilities = predictor([*forms, colour, large]).probabilities
    np.testing.assert_allclose(probabilities[:6], expected[[7] * 6], atol=1e-6)
    ((first, *_),) = predictor.top_k(predictor([image]), 3)
    assert first == (str(expected[7].argmax()), pytest.approx(expected[7].max(), abs=1e-6))


@pytest.mark.parametrize(
    "images, message",
    [
        ([], "at least one image"),
        ([np.zeros((8, 8, 1))], "must be uint8 .height, width, channels., got float64"),
        ([np.zeros((8, 8, 3), np.uint8)], "image has 3 channels, the model takes 1"),
    ],
)
def test_what_it_cannot_take(run, images, message):
    with pytest.raises(ValueError, match=message):
        inference.load(run[0])(images)


def test_what_cannot_be_loaded(run, tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        inference.load(tmp_path)
    with pytest.raises(ValueError, match="unknown checkpoint 'first'; known: last, best"):
        inference.load(run[0], "first")
    for name in ("a", "b"):
        shutil.copytree(run[0], tmp_path / "sweep" / name)
    with pytest.raises(ValueError, match=r"holds 2 runs; name one of them: \S*sweep/a, "):
        inference.load(tmp_path / "sweep")
    (tmp_path / "sweep" / "a" / "model.json").unlink()
    with pytest.raises(ValueError, match="no model.json: .* give its command again"):
        inference.load(tmp_path / "sweep" / "a")


def test_public_weights_are_a_classifier_of_imagenet(monkeypatch, tmp_path):
    model, images = get_model(1000, "resnet18"), jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    state_dict = pretrained.to_torch(variables, model)
    source = "torchvision:resnet18-f37072fd"
    save_file(state_dict, tmp_path / "resnet18-f37072fd.safetensors")
    of_file = inference.load(tmp_path / "resnet18-f37072fd.safetensors")
    monkeypatch.setattr(pretrained, "read_weights", {source: state_dict}.__getitem__)
    predictor = inference.load(source)
    assert predictor.preprocessing.image_shape == (224, 224, 3)
    assert predictor.preprocessing.resize_size == 256
    names = predictor.class_names
    assert len(set(names)) == 1000 and names[0] == "tench" and names[-1] == "toilet tissue"
    assert (names[134], names[281], names[517]) == ("crane, bird", "tabby", "crane, machine")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    mean, std = map(np.array, predictor.preprocessing[-2:])
    normalized = jnp.asarray((images / 255 - mean) / std, jnp.float32)
    outputs = jax.jit(partial(model.apply, train=False))(variables, normalized)
    ours = predictor.at_size(32)(images).probabilities
    np.testing.assert_allclose(ours, jax.nn.softmax(outputs["logits"]), atol=1e-6)
    assert of_file.preprocessing == predictor.preprocessing
    jax.tree.map(np.testing.assert_array_equal, of_file.variables, predictor.variables)


def test_public_weights_that_are_not_known():
    with pytest.raises(ValueError, match="'torchvision:resnet18' are not known .did you mean"):
        inference.load("torchvision:resnet18")
