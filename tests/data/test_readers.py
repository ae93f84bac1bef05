"""The same batches from disk and from device memory; threads, and damaged records."""

import threading
import weakref
from functools import partial

import jax
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_generated_pb2

from fixed_head_jax import data
from fixed_head_jax.data import class_sampling, loader, records, resident, sampling, sources


def assert_batches_equal(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


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
        lambda: ["cats/1.jpg"],
        lambda image: image,
    )
    with pytest.raises(records.BadRecordError, match="at index 0, file 'cats/1.jpg' .*identify"):
        source.read(np.array([0]))


@pytest.mark.parametrize("placement", ["resident", "disk"])
def test_repeated_augmentation(digits_dir, placement):
    dataset = data.open_dataset("digits", "train", digits_dir, placement=placement, repeats=3)
    (batch,) = dataset.train_batches(0, 12, 7, 1)
    np.testing.assert_array_equal(batch["index"], np.tile(batch["index"][:4], 3))
    assert len(set(batch["index"].tolist())) == 4
    with pytest.raises(ValueError, match="repeats must be >= 1 and divide batch_size=8, got 3"):
        dataset.train_batches(0, 8, 0, 1)
