"""Splits whose labels are not known, as TFDS stores the unlabelled images of STL-10."""

import cv2
import jax
import numpy as np
import pytest

from fixed_head_jax import data
from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data import info, resident, sources
from fixed_head_jax.data.builders.definition import Definition, Example
from fixed_head_jax.data.preparing import write

LABELS = {
    "train": [0, 1, 2, 1],
    "unlabelled": [-1] * 7,
    "some": [2, -1, 0],
    "above": [-1, 3],
    "below": [-1, -2],
}
DEFINITION = Definition(("a", "b", "c"), {}, {}, "", "", 1, (4, 5, 1))


def encode(level: int) -> bytes:
    return cv2.imencode(".png", np.full((4, 5), level, np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Image i of every split is of level 10 i."""
    path = tmp_path_factory.mktemp("tfds")
    folder = path / "toy" / write.VERSION
    folder.mkdir(parents=True)
    splits = []
    for split, labels in LABELS.items():
        examples = [Example(str(i), encode(10 * i), label) for i, label in enumerate(labels)]
        spilled = write.spill(examples, path / f"{split}.array_record", shuffled=False)
        records = write.ordered_records(spilled)
        splits.append(write.write_shards(records, len(labels), spilled.size, folder, "toy", split))
    write.write_metadata(folder, DEFINITION, splits)
    return str(path)


@pytest.mark.parametrize("split", ["unlabelled", "some", "train"])
def test_unknown_labels_are_given_as_minus_one(data_dir, split):
    expected = np.array(LABELS[split])
    source = sources.open_source("toy", split, data_dir, unlabelled=True)
    images, labels = source.read(np.arange(len(source)))
    assert images[:, 0, 0, 0].tolist() == [10 * i for i in range(len(expected))]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(source.labels, expected)
    again = sources.open_source("toy", split, data_dir, unlabelled=True)
    np.testing.assert_array_equal(again.labels, expected)  # from the file that the first scan wrote


@pytest.mark.parametrize("placement", ["disk", "resident"])
def test_batches_hold_unknown_labels(data_dir, placement):
    dataset = data.open_dataset("toy", "some", data_dir, unlabelled=True, placement=placement)
    arrays, fetch = jax.device_put(dataset.arrays()), jax.jit(dataset.fetch)
    for batch in (*dataset.train_batches(0, 2, 0, 3), *dataset.eval_batches(2)):
        batch = fetch(arrays, batch)
        expected = np.array(LABELS["some"])[np.asarray(batch["index"])]
        np.testing.assert_array_equal(batch["label"], expected)


def test_files_of_a_list_may_be_unlabelled(data_dir, tmp_path):
    (tmp_path / "list.txt").write_text("1\n2\n")
    source = sources.open_source(
        "toy", "some", data_dir, list_file=str(tmp_path / "list.txt"), unlabelled=True
    )
    np.testing.assert_array_equal(source.labels, [-1, 0])


@pytest.mark.parametrize("split, index", [("unlabelled", 0), ("some", 1)])
def test_an_unknown_label_is_refused_and_the_message_says_how_to_read_it(data_dir, split, index):
    source = sources.open_source("toy", split, data_dir)
    message = (
        rf"dataset 'toy' split '{split}': bad record at index {index}.* \(label -1 is outside "
        r"0 ... 2; if it stands for an unknown one, set data.unlabelled=True\); prepare"
    )
    for read in (lambda: source.labels, lambda: source.read(np.arange(len(source)))):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split, label", [("above", 3), ("below", -2)])
def test_other_wrong_labels_are_refused(data_dir, split, label):
    source = sources.open_source("toy", split, data_dir, unlabelled=True)
    message = rf"bad record at index 1.* \(label {label} is outside 0 ... 2\); prepare"
    for read in (lambda: source.labels, lambda: resident.load(source, 1)):
        with pytest.raises(ValueError, match=message):
            read()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(first_classes=2), "got 2, 0, 1.0 and 'shuffled'"),
        (dict(skip_classes=1), "got 0, 1, 1.0 and 'shuffled'"),
        (dict(fraction=0.5), "got 0, 0, 0.5 and 'shuffled'"),
        (dict(sampler="class_aware"), "got 0, 0, 1.0 and 'class_aware'"),
        (dict(sampler="class_balanced"), "got 0, 0, 1.0 and 'class_balanced'"),
    ],
)
def test_nothing_is_chosen_by_unknown_labels(data_dir, options, message):
    with pytest.raises(
        ValueError, match=f"unlabelled=True leaves no classes to choose or .*{message}"
    ):
        data.open_dataset("toy", "unlabelled", data_dir, unlabelled=True, **options)


def test_info_says_that_a_split_is_unlabelled(data_dir, capsys):
    assert command.main(["info", "toy", f"--data_dir={data_dir}", "--split=unlabelled"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "unlabelled: 7 images",
        "  unlabelled",
        "  height: min 4, median 4, max 4 pixels (of 7 images)",
        "  width: min 5, median 5, max 5 pixels",
    ]
    _, (source,) = info.open_splits("toy", data_dir, "some")
    assert "images without a label: 1" in info.describe_split(source, info.scan(source), False)
    assert (info.sheet(source)[4 + 96 :, 100:196] < 128).any()  # the caption of the second image
