"""Sources: what a split holds, how images are read, and the errors of opening one."""

import io
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from fixed_head_jax import data
from fixed_head_jax.data import crops, prepared, resident, sources

TFDS = Path(__file__).parents[3] / "shared" / "tfds"
needs_cifar10 = pytest.mark.skipif(
    not (TFDS / "cifar10").is_dir(), reason="no prepared CIFAR-10 in ../shared/tfds"
)
needs_imagenet = pytest.mark.skipif(
    not (TFDS / "imagenet2012").is_dir(), reason="no prepared ImageNet in ../shared/tfds"
)


def test_digits_holds_every_image_of_sklearn_in_its_split(digits_dir):
    reference = load_digits()
    pixels = np.round(reference.images * 255 / 16).astype(np.uint8)[..., None]
    seen, expected = [0] * 10, {"train": [], "test": []}
    for index, label in enumerate(reference.target):
        expected["test" if seen[label] % 5 == 4 else "train"].append(index)
        seen[label] += 1
    assert (len(expected["train"]), len(expected["test"])) == (1442, 355)
    for split, members in expected.items():
        source = sources.open_source("digits", split, digits_dir)
        assert len(source) == len(members)
        assert (source.num_classes, source.image_shape) == (10, (8, 8, 1))
        images, labels = resident.load(source, 2)
        np.testing.assert_array_equal(images, pixels[members])
        np.testing.assert_array_equal(labels, reference.target[members])


def test_preparing_is_quiet_and_leaves_nothing_else(tmp_path, capfd):
    sources.open_source("digits", "test", str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_slices_of_a_split(digits, digits_dir):
    start = sources.open_source("digits", "train[:100]", digits_dir)
    end = sources.open_source("digits", "train[100:]", digits_dir)
    assert (len(start), len(end)) == (100, len(digits) - 100)
    np.testing.assert_array_equal(end.read(np.arange(3))[0], digits.read(np.arange(100, 103))[0])


def test_first_classes_keeps_exactly_those(digits, digits_dir):
    images, labels = resident.load(digits, 2)
    source = sources.open_source("digits", "train", digits_dir, first_classes=3)
    assert (source.num_classes, source.class_names) == (3, ("0", "1", "2"))
    kept_images, kept_labels = resident.load(source, 2)
    np.testing.assert_array_equal(kept_images, images[labels < 3])
    np.testing.assert_array_equal(kept_labels, labels[labels < 3])


@pytest.mark.parametrize("options", [{}, {"first_classes": 9}])
def test_skipped_classes_are_gone_and_the_others_count_from_0(digits, digits_dir, options):
    images, labels = resident.load(digits, 2)
    end = options.get("first_classes", 10)
    source = sources.open_source("digits", "train", digits_dir, skip_classes=6, **options)
    assert source.num_classes == end - 6
    assert source.class_names == tuple(str(digit) for digit in range(6, end))
    kept_images, kept_labels = resident.load(source, 2)
    kept = (labels >= 6) & (labels < end)
    np.testing.assert_array_equal(kept_images, images[kept])
    np.testing.assert_array_equal(kept_labels, labels[kept] - 6)
    np.testing.assert_array_equal(kept_labels, source.labels)


@pytest.mark.parametrize("size", [5, 12])
def test_image_size_resizes(digits_dir, size):
    source = sources.open_source("digits", "train[:4]", digits_dir, image_size=size)
    images, _ = source.read(np.arange(4))
    assert source.image_shape == (size, size, 1) == images.shape[1:]
    assert images.std() > 30


@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_grey_images_are_read_as_rgb(digits_dir, digits, placement):
    whole = data.open_dataset("digits", "train", digits_dir, channels=3, placement=placement)
    assert whole.source.image_shape == (8, 8, 3)
    images, _ = whole.source.read(np.arange(5))
    grey, _ = digits.read(np.arange(5))
    np.testing.assert_array_equal(images, np.broadcast_to(grey, images.shape))
    batch = next(whole.eval_batches(5))
    batch = whole.fetch(*jax.device_put((whole.arrays(), batch)))
    np.testing.assert_array_equal(batch["image"], images)
    crop = {"image": crops.RandomCrop(6, method="bilinear")}
    options = dict(image_size=8, crops=crop)
    cut = [
        next(data.open_dataset("digits", "train", digits_dir, channels=channels, **options)
             .train_batches(0, 5, 0, 1))["image"]
        for channels in (0, 3)
    ]  # fmt: skip
    np.testing.assert_array_equal(cut[1], np.broadcast_to(cut[0], cut[1].shape))
    assert digits.image_shape == (8, 8, 1)  # as stored


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_fast_crops_of_grey_files_are_rgb(kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(pixels).save(file, kind)
    draws = np.full((1, 4 * crops.ATTEMPTS + 1), 0.5)
    cut = {channels: np.empty((16, 16, channels), np.uint8) for channels in (1, 3)}
    for channels, out in cut.items():
        rows, out = {"image": draws}, {"image": out}
        crops.random_crops(file.getvalue(), channels, {"image": crops.RandomCrop(16)}, rows, out)
    np.testing.assert_array_equal(cut[3], np.broadcast_to(cut[1], cut[3].shape))


@needs_cifar10
def test_colours_are_not_made_grey():
    with pytest.raises(ValueError, match="got 1 for dataset 'cifar10' with 3; colours are not"):
        sources.open_source("cifar10", "test", str(TFDS), channels=1)


def test_crop_is_central_and_keeps_the_aspect_ratio():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 28:72] = 200
    assert (crops.resize_and_crop(image, 40) == 200).all()
    assert (crops.resize_and_crop(image, 20) == 200).all()
    assert crops.resize_and_crop(image.transpose(1, 0, 2).copy(), 33).shape == (33, 33, 3)


@needs_cifar10
@pytest.mark.slow
def test_cifar10_is_complete():
    for split, count in (("train", 50_000), ("test", 10_000)):
        dataset = data.open_dataset("cifar10", split, str(TFDS))
        arrays = dataset.arrays()
        assert arrays["image"].shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(arrays["label"]), [count // 10] * 10)
        assert dataset.source.class_names[0] == "airplane"
    # TFDS's own decoding of the same records
    builder = tfds.builder("cifar10", data_dir=str(TFDS))
    elements = builder.as_data_source("test[:20]")
    for i in range(20):
        np.testing.assert_array_equal(elements[i]["image"], arrays["image"][i])
        assert elements[i]["label"] == arrays["label"][i]


@needs_imagenet
def test_imagenet_needs_and_takes_an_image_size():
    with pytest.raises(ValueError, match="vary in size; set data.image_size"):
        sources.open_source("imagenet2012", "validation", str(TFDS))
    source = sources.open_source("imagenet2012", "validation", str(TFDS), image_size=64)
    images, labels = source.read(np.arange(8))
    assert images.shape == (8, 64, 64, 3)
    assert source.num_classes == 1000 and labels.max() < 1000


def test_labels_of_the_kept_classes(digits_dir):
    dataset = data.open_dataset("digits", "train", digits_dir, first_classes=4)
    np.testing.assert_array_equal(dataset.source.labels, resident.load(dataset.source, 1)[1])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="digit"), "unknown dataset 'digit' .*did you mean digits"),
        (dict(name="cifar11", data_dir=""), "unknown dataset 'cifar11'; did you mean .*cifar10"),
        (dict(name="qqxxzz"), "use a name of the TFDS catalog"),
        (dict(name="a b"), "cannot open dataset 'a b'"),
        (dict(name="cifar10"), "'cifar10' is not prepared under .*data prepare cifar10"),
        (dict(data_dir="missing"), "data_dir 'missing' is not a directory"),
        (dict(split="valid"), "unknown split 'valid' of dataset 'digits'; use one of train, test"),
        (dict(split=""), "unknown split ''"),
        (
            dict(skip_classes=9),
            "skip_classes must be 0 .none. ... 8, to leave two of the 10 .* got 9",
        ),
        (dict(skip_classes=-1), "data.skip_classes=-1 must be a whole number"),
        (dict(first_classes=5, skip_classes=4), "0 .none. ... 3, .* of the 5 classes"),
        (dict(first_classes=1), "first_classes must be 0 .*of 'digits', got 1"),
        (dict(first_classes=11), "2 ... 10.*got 11"),
        (dict(image_size=-1), "data.image_size=-1 must be a whole number"),
        (dict(placement="gpu"), "data.placement='gpu' must be one of auto, resident, disk"),
        (dict(sampler="balanced"), "data.sampler='balanced' must be one of shuffled, class_aware"),
        (dict(repeats=0), "data.repeats=0 must be a whole number"),
        (
            dict(repeats=2, sampler="class_aware"),
            "data.repeats=2 is of data.sampler='shuffled', got 'class_aware'",
        ),
        (dict(fraction=0.0), r"data.train_fraction=0.0 must be a number in \(0, 1\]"),
        (dict(list_file="none.txt"), "data.train_list='none.txt' cannot be read"),
        (dict(interpolation="area"), "data.interpolation='area' must be one of bilinear, bicubic"),
        (dict(sampler="class_aware", per_class=0), "data.per_class=0 must be a whole number"),
        (dict(channels=2), "data.channels must be 0 .as stored. or 3 .*, got 2 for .*'digits'"),
        (dict(num_threads=-1), "data.num_threads=-1 must be a whole number"),
    ],
)
def test_opening_errors_are_one_clear_line(digits_dir, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.open_dataset(**{"name": "digits", "split": "train", "data_dir": digits_dir, **options})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_other_formats_are_refused(tmp_path, digits_dir, monkeypatch):
    source = Path(prepared.find("digits", digits_dir).data_path)
    target = tmp_path / "numbers" / "1.0.0"
    target.mkdir(parents=True)
    for path in source.iterdir():  # a dataset known only from its files, of another format
        name = path.name.replace("digits", "numbers").replace("array_record", "tfrecord")
        (target / name).write_bytes(path.read_bytes())
    info = target / "dataset_info.json"
    info.write_text(
        info.read_text().replace("array_record", "tfrecord").replace("digits", "numbers")
    )
    with pytest.raises(ValueError, match="'numbers' .*format tfrecord.*array_record"):
        sources.open_source("numbers", "train", str(tmp_path))


def test_other_features_are_refused():
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    with pytest.raises(ValueError, match=r"not for image classification.*got \['text'\]"):
        prepared.read_features("words", features)


def test_reading_outside_the_source_is_refused(digits):
    with pytest.raises(ValueError, match="indices must be in 0 ... 1441"):
        digits.read(np.array([1442]))
