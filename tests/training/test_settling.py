"""A user's folder of photographs: prepared once, held out, its statistics measured."""

import csv

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax import inference
from fixed_head_jax.configs import digits, own_images, selfclassifier_own_images
from fixed_head_jax.data import open_dataset
from fixed_head_jax.data.statistics import pixel_statistics
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.experiment.settling import settle_images


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten photographs, grey and colour, and one file that is none."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        place = tmp_path / "My photos" / name
        place.mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (12 + i, 16, 3)).astype(np.uint8)
            image = Image.fromarray(pixels[..., 0] if i == 3 else pixels)
            image.save(place / f"{i}.png")
    (tmp_path / "My photos" / "dog" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "My photos"


@pytest.fixture
def config(folder, tmp_path):
    config = own_images.get_config("small,identity")
    config.data.path, config.data_dir = str(folder), str(tmp_path / "prepared")
    config.data.image_size, config.data.resize_size = 8, 0
    config.model.backbone_options.out_channels = 2
    return config


def test_a_folder_is_all_that_is_needed(config, folder, capsys):
    run = experiment.build(config)
    said = capsys.readouterr().out
    assert "2 classes; images: 16 train, 4 test" in said and "1 could not be used" in said
    data = run.config.data
    assert data.path == "" and data.name.startswith("folder_my_photos_")
    assert data.eval_split == "test" and run.train_data.source.class_names == ("cat", "dog")
    images, _ = run.train_data.source.read(np.arange(16))
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(0), atol=6e-5)
    np.testing.assert_allclose(data.std, pixels.std(0), atol=6e-5)
    again = experiment.build(config)
    assert again.record == run.record and capsys.readouterr().out == ""
    (folder / "cat" / "0.png").unlink()  # another folder now
    assert settle_images(config).data.name != data.name


@pytest.mark.parametrize("split", ["val", "valid"])
def test_the_split_that_is_held_out_is_evaluated(config, folder, split):
    for name in ("cat", "dog"):
        (folder / split / name).mkdir(parents=True)
        (folder / "train").mkdir(exist_ok=True)
        (folder / name / "0.png").rename(folder / split / name / "0.png")
        (folder / name).rename(folder / "train" / name)
    settled = settle_images(config)
    assert settled.data.eval_split == split
    assert settle_images(settled) == settled


def test_size_and_statistics_are_those_of_public_weights(config, tmp_path):
    fine = own_images.get_config("finetune")
    fine.data.path, fine.data_dir = config.data.path, config.data_dir
    fine.init_from = "timm:resnet18.a1_in1k"
    data = settle_images(fine).data
    assert (data.image_size, data.resize_size, data.interpolation) == (224, 235, "bicubic")
    assert data.mean == (0.485, 0.456, 0.406) and data.std == (0.229, 0.224, 0.225)
    fine.data.image_size, fine.data.resize_size = 96, 96
    data = settle_images(fine).data
    assert (data.image_size, data.interpolation) == (96, "bilinear")
    fine.init_from = str(tmp_path / "mine.safetensors")  # not known: of the images
    assert settle_images(fine).data.mean[0] == pytest.approx(0.5, abs=0.05)


def test_mistakes(config, folder, data_dir):
    config.data.path = str(folder / "none")
    with pytest.raises(ValueError, match="data.path=.*none' is not a folder"):
        settle_images(config)
    config.data.path = ""
    with pytest.raises(ValueError, match="data.path is empty; name the folder"):
        settle_images(config)
    own = digits.get_config("smoke")
    own.data_dir = data_dir
    assert settle_images(own) is own  # nothing to settle


def test_statistics_of_a_part_are_those_of_its_images(data_dir):
    source = open_dataset("digits", "train", data_dir).source
    mean, std = pixel_statistics(source, most=100)
    images, _ = source.read(np.linspace(0, len(source) - 1, 100).astype(int))
    np.testing.assert_allclose(mean, images.mean() / 255, atol=6e-5)
    np.testing.assert_allclose(std, (images / 255).std(), atol=6e-5)


def test_photographs_without_labels_are_trained_on_and_told_apart(
    folder, tmp_path, tiny_backbone, capsys
):
    config = selfclassifier_own_images.get_config("small")
    (folder / "cat" / "inner").mkdir()  # any layout
    (folder / "cat" / "0.png").rename(folder / "cat" / "inner" / "0.png")
    (folder / "dog" / "0.png").rename(folder / "top.PNG")
    config.data.path, config.data_dir = str(folder), str(tmp_path / "prepared")
    config.model.backbone, config.batch_size = "tiny", 8
    config.data.image_size, config.data.resize_size, config.views.global_size = 8, 9, 8
    config.total_epochs, config.optim.warmup_epochs, config.class_grid_images = 1.0, 0.0, 1
    config.model.head_options.hidden_dim, config.model.head_options.num_clusters = 8, (4, 4)
    run = experiment.build(config)
    assert "no labels; images: 20 train" in capsys.readouterr().out
    source = run.train_data.source
    assert (source.class_names, source.num_classes, len(source)) == ((), 0, 20)
    assert run.config.data.eval_split == "train" and set(source.labels) == {-1}
    result = loop.train(run, tmp_path / "run")
    assert {key for key in result if key.startswith("eval/")} == {
        *(f"eval/{name}" for name in ("used_classes", "class_entropy", "largest_class")),
        *("eval/information", "eval/examples"),
    }
    with open(tmp_path / "run" / "classes" / "members.csv", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len({row["file"] for row in rows}) == 20 and rows[0].keys() == {
        *("cluster", "index", "file"),
    }
    assert {"top.PNG", "cat/inner/0.png"} <= {row["file"] for row in rows}
    predictor = inference.load(tmp_path / "run")
    assert predictor.class_names == tuple(f"cluster {i}" for i in range(4))
    places = [folder / row["file"] for row in rows]
    best = predictor([place for place in places if place.suffix == ".png"])
    told = [int(row["cluster"]) for row in rows if row["file"] != "top.PNG"]
    assert best.probabilities.argmax(1).tolist() == told
    assert "no labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "change", "message"),
    [
        (own_images, {"data.unlabelled": True}, "'supervised' learns labels, but those of 'train'"),
        (selfclassifier_own_images, {"best_metric": "nmi"}, "'nmi'; known: information"),
        (selfclassifier_own_images, {"evaluators": ("knn",)}, "'knn' needs labelled images"),
        (
            selfclassifier_own_images, {"model.head_options.num_clusters": ()},
            "num_clusters must be at least 2",
        ),
        (selfclassifier_own_images, {"data.train_fraction": 0.5}, "unlabelled=True leaves no"),
    ],
)  # fmt: skip
def test_what_needs_labels_says_so(folder, tmp_path, module, change, message):
    config = module.get_config("small")
    config.data.path, config.data_dir = str(folder), str(tmp_path / "prepared")
    config.batch_size, config.optim.warmup_epochs = 8, 0.0
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        experiment.build(config)
