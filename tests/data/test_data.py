"""Orders, sources, and the same batches from disk and from device memory."""

import io
import math
import os
import threading
import weakref
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow_datasets.proto import tf_example_generated_pb2

from fixed_head_jax import data
from fixed_head_jax.data import (
    class_sampling,
    crops,
    loader,
    prepared,
    records,
    resident,
    sampling,
    sources,
)

TFDS = Path(__file__).parents[3] / "shared" / "tfds"
needs_cifar10 = pytest.mark.skipif(
    not (TFDS / "cifar10").is_dir(), reason="no prepared CIFAR-10 in ../shared/tfds"
)
needs_imagenet = pytest.mark.skipif(
    not (TFDS / "imagenet2012").is_dir(), reason="no prepared ImageNet in ../shared/tfds"
)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    sources.open_source("digits", "train", path)
    return path


@pytest.fixture(scope="session")
def digits(digits_dir):
    return sources.open_source("digits", "train", digits_dir)


def assert_batches_equal(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


# Orders


@pytest.mark.parametrize("num_examples, batch_size", [(10, 4), (7, 7), (5, 13), (12, 1), (9, 2)])
def test_every_example_once_per_epoch(num_examples, batch_size):
    epochs = 6
    steps = sampling.epoch_start(epochs, num_examples, batch_size)
    stream = [sampling.train_indices(3, s, batch_size, num_examples) for s in range(steps)]
    assert all(indices.shape == (batch_size,) for indices in stream)
    stream = np.concatenate(stream)[: epochs * num_examples].reshape(epochs, num_examples)
    np.testing.assert_array_equal(np.sort(stream, 1), np.tile(np.arange(num_examples), (epochs, 1)))
    assert len({tuple(epoch) for epoch in stream}) == epochs


def test_train_indices_depend_on_nothing_but_the_arguments():
    forward = [sampling.train_indices(1, step, 8, 30) for step in range(20)]
    for step in reversed(range(20)):
        np.testing.assert_array_equal(sampling.train_indices(1, step, 8, 30), forward[step])
    assert forward[0].dtype == np.int32
    assert not np.array_equal(sampling.train_indices(2, 0, 8, 30), forward[0])


@pytest.mark.parametrize("epoch", [0, 1, 2, 7, 0.1, 0.3, 2.5, 1 / 3, 199.9])
@pytest.mark.parametrize("num_examples, batch_size", [(50000, 128), (50000, 5000), (10, 4)])
def test_epoch_start_is_exact(epoch, num_examples, batch_size):
    numerator = round(epoch * 30)  # all the epochs above are multiples of 1/30
    expected = -(-numerator * num_examples // (30 * batch_size))
    assert sampling.epoch_start(epoch, num_examples, batch_size) == expected


def test_shards_concatenate_to_the_batch():
    order = partial(sampling.train_indices, 0, batch_size=12, num_examples=30)
    whole = list(resident.index_batches(order, 12, 5, 4))
    shards = [list(resident.index_batches(order, 12, 5, 4, (i, 3))) for i in range(3)]
    for step, batch in enumerate(whole):
        parts = [shard[step]["index"] for shard in shards]
        np.testing.assert_array_equal(np.concatenate(parts), batch["index"])


@pytest.mark.parametrize("num_examples", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_eval_counts_every_example_once(num_examples, batch_size):
    batches = list(sampling.eval_batches(num_examples, batch_size))
    assert len(batches) == math.ceil(num_examples / batch_size)
    indices, mask = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert len(indices) == len(batches) * batch_size
    np.testing.assert_array_equal(indices[mask == 1], np.arange(num_examples))
    assert not indices[mask == 0].any()


# Sources


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


# Batches


@pytest.mark.parametrize("batch_size", [8, 700, 2000])
def test_disk_and_resident_give_the_same_batches(digits_dir, batch_size):
    disk = data.open_dataset("digits", "train", digits_dir, placement="disk", num_threads=2)
    memory = data.open_dataset("digits", "train", digits_dir, num_threads=2)
    assert disk.arrays() == {}
    arrays = jax.device_put(memory.arrays())
    fetch = jax.jit(memory.fetch)
    steps = dict(seed=1, batch_size=batch_size, start_step=2, num_steps=4)
    for shard in ((0, 1), (1, 2)):
        gathered = (fetch(arrays, batch) for batch in memory.train_batches(**steps, shard=shard))
        read = (disk.fetch({}, batch) for batch in disk.train_batches(**steps, shard=shard))
        assert_batches_equal(read, gathered)
        gathered = (fetch(arrays, batch) for batch in memory.eval_batches(batch_size, shard))
        assert_batches_equal(disk.eval_batches(batch_size, shard), gathered)


@pytest.mark.parametrize("num_threads", [2, 7])
def test_any_number_of_threads_gives_the_same_batches(digits, num_threads):
    order = partial(sampling.train_indices, 0, batch_size=32, num_examples=len(digits))
    expected = loader.disk_batches(digits, order, 32, 0, 60, 1)
    assert_batches_equal(loader.disk_batches(digits, order, 32, 0, 60, num_threads), expected)


def test_resuming_gives_the_tail(digits):
    order = partial(sampling.train_indices, 5, batch_size=64, num_examples=len(digits))
    whole = list(loader.disk_batches(digits, order, 64, 0, 50, 2))
    assert_batches_equal(loader.disk_batches(digits, order, 64, 33, 17, 2), whole[33:])
    assert list(loader.disk_batches(digits, order, 64, 50, 0, 2)) == []


def test_disk_eval_covers_the_split_once(digits):
    batches = list(loader.disk_eval_batches(digits, 100, 3))
    mask = np.concatenate([batch["mask"] for batch in batches])
    labels = np.concatenate([batch["label"] for batch in batches])[mask == 1]
    np.testing.assert_array_equal(labels, resident.load(digits, 1)[1])


def test_auto_goes_by_the_memory_limit(digits_dir):
    size = 1442 * 64
    memory = data.open_dataset("digits", "train", digits_dir, memory_limit=size)
    disk = data.open_dataset("digits", "train", digits_dir, memory_limit=size - 1)
    assert memory.arrays()["image"].shape == (1442, 8, 8, 1)
    assert disk.arrays() == {}


@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_class_aware_batches_hold_every_class_equally_often(digits_dir, placement):
    dataset = data.open_dataset(
        "digits", "train", digits_dir, placement=placement, sampler="class_aware", per_class=3
    )
    labels = dataset.source.labels
    np.testing.assert_array_equal(labels, resident.load(dataset.source, 1)[1])
    batches = list(dataset.train_batches(0, 30, 4, 3))
    for batch in batches:
        assert np.bincount(labels[batch["index"]]).tolist() == [3] * 10
    np.testing.assert_array_equal(
        batches[1]["index"],
        class_sampling.class_aware_indices(
            0, 5, 30, class_sampling.class_members(labels), per_class=3
        ),
    )


def test_labels_of_the_kept_classes(digits_dir):
    dataset = data.open_dataset("digits", "train", digits_dir, first_classes=4)
    np.testing.assert_array_equal(dataset.source.labels, resident.load(dataset.source, 1)[1])


# Errors


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


class Damaged:
    """The records of a source, one of them cut off."""

    def __init__(self, records, position):
        self.records, self.position = records, position

    def __len__(self):
        return len(self.records)

    def __getitems__(self, positions):
        records = self.records.__getitems__(positions)
        return [
            b"\x0a\xff" if p == self.position else r
            for p, r in zip(positions, records, strict=True)
        ]


def damaged(source, position):
    options = {field: getattr(source, field) for field in source.__dataclass_fields__}
    return sources.Source(**{**options, "records": Damaged(source.records, position)})


def test_a_bad_record_is_named_by_every_reader(digits):
    bad = damaged(digits, 77)
    message = "dataset 'digits' split 'train': bad record at index 77"
    with pytest.raises(ValueError, match=message):
        bad.read(np.arange(70, 80))
    with pytest.raises(ValueError, match=message):
        resident.load(bad, 2)
    with pytest.raises(ValueError, match=message):
        list(loader.disk_eval_batches(bad, 16, 2))


def test_reading_outside_the_source_is_refused(digits):
    with pytest.raises(ValueError, match="indices must be in 0 ... 1441"):
        digits.read(np.array([1442]))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(batch_size=0), "batch_size must be >= 1, got 0"),
        (dict(batch_size=9, shard=(0, 2)), "multiple of the 2 processes, got 9"),
        (dict(shard=(2, 2)), "0 <= index < count"),
        (dict(seed=-1), "seed must be >= 0, got -1"),
        (dict(start_step=-1), "start_step and num_steps must be >= 0"),
    ],
)
@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_batch_errors_come_before_the_first_batch(digits_dir, placement, options, message):
    dataset = data.open_dataset("digits", "train", digits_dir, placement=placement)
    arguments = dict(seed=0, batch_size=8, start_step=0, num_steps=1)
    with pytest.raises(ValueError, match=message):
        dataset.train_batches(**{**arguments, **options})


def test_disk_needs_a_thread(digits):
    with pytest.raises(ValueError, match="num_threads must be >= 1, got 0"):
        loader.disk_batches(digits, np.arange, 8, 0, 1, 0)


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_few_batches_are_in_memory_and_no_thread_outlives_the_iterator(digits, monkeypatch):
    made, alive = [], []
    empty = loader._empty

    def count(*arguments):
        batch = empty(*arguments)
        made.append(weakref.ref(batch["image"]))
        return batch

    monkeypatch.setattr(loader, "_empty", count)
    order = partial(sampling.train_indices, 0, batch_size=64, num_examples=len(digits))
    batches = loader.disk_batches(digits, order, 64, 0, 30, 4)
    for _ in range(20):
        batch = next(batches)
        alive.append(sum(ref() is not None for ref in made))
    assert batch["image"].shape == (64, 8, 8, 1)
    assert max(alive) <= loader._AHEAD + 2  # two ahead, the one in hand and the last one
    assert readers()
    batches.close()
    assert not readers()


def test_an_error_ends_the_threads(digits):
    batches = loader.disk_eval_batches(damaged(digits, 700), 16, 4)
    with pytest.raises(records.BadRecordError, match="index 700 "):
        list(batches)
    assert not readers()


def test_a_bad_record_is_named_with_its_file(tmp_path):
    example = tf_example_generated_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(b"no image")
    feature["label"].int64_list.value.append(3)
    feature["file_name"].bytes_list.value.append(b"cats/1.jpg")

    class One:
        def __len__(self):
            return 1

        def __getitems__(self, positions):
            return [example.SerializeToString()] * len(positions)

    source = sources.Source(
        "pets",
        "test",
        10,
        0,
        (),
        (8, 8, 3),
        One(),
        None,
        lambda: np.array([3]),
        lambda image: image,
    )
    with pytest.raises(records.BadRecordError, match="at index 0, file 'cats/1.jpg' .*identify"):
        source.read(np.array([0]))


# Labels


def test_labels_are_kept_beside_the_data(digits_dir, monkeypatch):
    source = sources.open_source("digits", "train[:100]", digits_dir)
    labels = source.labels
    (file,) = Path(digits_dir).glob("digits/*/labels-train%5B%3A100%5D-*.npy")
    np.testing.assert_array_equal(np.load(file), labels)
    with monkeypatch.context() as patch:
        patch.setattr(records, "scan_labels", None)  # read again without a scan
        again = sources.open_source("digits", "train[:100]", digits_dir).labels
    np.testing.assert_array_equal(again, labels)
    file.write_bytes(file.read_bytes()[:200])  # cut off: scanned and written anew
    np.testing.assert_array_equal(
        sources.open_source("digits", "train[:100]", digits_dir).labels, labels
    )
    np.testing.assert_array_equal(np.load(file), labels)


def test_labels_of_other_files_are_not_taken(tmp_path):
    sources.open_source("digits", "test", str(tmp_path)).labels.sum()
    (shard,) = tmp_path.glob("digits/*/*test*array_record*")
    os.utime(shard, ns=(1, 1))  # as if the files had been replaced
    assert sources.open_source("digits", "test", str(tmp_path)).labels.shape == (355,)
    assert len(list(tmp_path.glob("digits/*/labels-test-*.npy"))) == 2


def test_a_damaged_shard_is_named(tmp_path):
    sources.open_source("digits", "test", str(tmp_path))
    (shard,) = tmp_path.glob("digits/*/*test*array_record*")
    shard.write_bytes(shard.read_bytes()[:3000])
    source = sources.open_source("digits", "test", str(tmp_path))
    with pytest.raises(records.BadRecordError, match="cannot read split 'test' of 'digits'"):
        _ = source.labels


def test_labels_without_a_place_to_keep_them(digits, tmp_path):
    missing = tmp_path / "missing" / "labels.npy"
    labels = records.cached_labels(digits.records, missing, 2)
    np.testing.assert_array_equal(labels, digits.labels)
    assert not missing.parent.exists()


def test_a_wrong_label_is_named(digits):
    options = {field: getattr(digits, field) for field in digits.__dataclass_fields__}
    source = sources.Source(**{**options, "num_classes": 9})
    with pytest.raises(records.BadRecordError, match="bad record at index 9 .*label 9 is outside"):
        _ = source.labels


def test_a_fraction_keeps_its_share_of_every_class(digits_dir):
    dataset = data.open_dataset("digits", "train", digits_dir, first_classes=5, fraction=0.1)
    whole = sources.open_source("digits", "train", digits_dir, first_classes=5)
    counts = np.bincount(whole.labels)
    np.testing.assert_array_equal(np.bincount(dataset.source.labels), np.round(counts * 0.1))
    np.testing.assert_array_equal(dataset.arrays()["label"], dataset.source.labels)


@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_repeated_augmentation(digits_dir, placement):
    dataset = data.open_dataset("digits", "train", digits_dir, placement=placement, repeats=3)
    (batch,) = dataset.train_batches(0, 12, 7, 1)
    np.testing.assert_array_equal(batch["index"], np.tile(batch["index"][:4], 3))
    assert len(set(batch["index"].tolist())) == 4
    with pytest.raises(ValueError, match="repeats must be >= 1 and divide batch_size=8, got 3"):
        dataset.train_batches(0, 8, 0, 1)
