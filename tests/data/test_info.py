"""What is told about a prepared dataset."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data import info
from fixed_head_jax.data.builders.definition import Definition, Example
from fixed_head_jax.data.preparing import prepare

SHAPES = ((4, 9), (5, 8), (6, 7), (30, 70))


def encode(height: int, width: int, colour: tuple[int, int, int]) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), colour[::-1], np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def toy_dir(tmp_path_factory):
    """Class 0 has one image, class 1 two ..., class 8 nine; red rises with the class."""
    labels = [label for label in range(9) for _ in range(label + 1)]
    examples = [
        Example(str(i), encode(*SHAPES[i % 4], (10 * label, 0, 200)), label)
        for i, label in enumerate(labels)
    ]
    names = tuple(f"class number {label}" for label in range(8)) + ("Ä class",)
    splits = {"train": lambda: iter(examples), "test": lambda: iter(examples[:3])}
    path = tmp_path_factory.mktemp("toy")
    definition = Definition(names, splits, {}, "Toy images.", "", shuffled=False)
    prepare.prepare("toy", definition, path)
    return path


def run(*arguments, name="toy") -> int:
    return command.main(["info", name, *map(str, arguments)])


def test_counts_and_sizes_of_every_split(toy_dir, capsys):
    assert run(f"--data_dir={toy_dir}") == 0
    assert re.sub(r"[\d.]+ MB", "SIZE", capsys.readouterr().out).splitlines() == [
        "toy/1.0.0: Toy images.",
        f"  {toy_dir / 'toy' / '1.0.0'}: SIZE, array_record",
        "  9 classes, images (None, None, 3)",
        "train: 45 images",
        "  of a class: min 1, median 5, max 9",
        "  height: min 4, median 5, max 30 pixels (of 45 images)",
        "  width: min 7, median 9, max 70 pixels",
        "      0 class number 0         1",
        "      1 class number 1         2",
        "      2 class number 2         3",
        "    ...",
        "      6 class number 6         7",
        "      7 class number 7         8",
        "      8 Ä class                9",
        "test: 3 images",
        "  of a class: min 0, median 0, max 2",
        "  height: min 4, median 5, max 6 pixels (of 3 images)",
        "  width: min 7, median 8, max 9 pixels",
        "  classes without images: 7",
        "      0 class number 0         1",
        "      1 class number 1         2",
        "      2 class number 2         0",
        "    ...",
        "      6 class number 6         0",
        "      7 class number 7         0",
        "      8 Ä class                0",
    ]


def test_one_split_and_all_classes(toy_dir, capsys):
    assert run(f"--data_dir={toy_dir}", "--split=train[:3]", "--classes") == 0
    out = capsys.readouterr().out
    assert "train[:3]: 3 images" in out and "test: " not in out
    assert len(re.findall(r"^ +\d (class number|Ä)", out, re.MULTILINE)) == 9


def test_sizes_are_of_an_evenly_spaced_sample(toy_dir, monkeypatch):
    monkeypatch.setattr(info, "SAMPLE", 5)
    _, (source,) = info.open_splits("toy", str(toy_dir), "train")
    found = info.scan(source)
    np.testing.assert_array_equal(found.sizes, [SHAPES[i % 4] for i in (0, 9, 18, 27, 36)])
    np.testing.assert_array_equal(found.class_counts, np.arange(1, 10))


def test_images_without_a_label_are_counted(toy_dir, tmp_path):
    """As TFDS stores the test images of ImageNet; here, of the classes above 2."""
    source, folder = toy_dir / "toy" / "1.0.0", tmp_path / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "label.labels.txt").write_text("a\nb\nc\n")
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "3"
    (folder / "features.json").write_text(json.dumps(features))
    _, (source, _) = info.open_splits("toy", str(tmp_path))
    found = info.scan(source)
    assert (found.class_counts.tolist(), found.unlabelled) == ([1, 2, 3], 39)
    text = info.describe_split(source, found, False)
    assert "train: 45 images" in text and "images without a label: 39" in text
    assert info.sheet(source).shape[1] == 8 * (96 + 4) + 4


def test_the_sheet_shows_examples_in_their_colours(toy_dir, tmp_path):
    file = tmp_path / "sheet.png"
    assert run(f"--data_dir={toy_dir}", f"--out={file}") == 0
    sheet = cv2.imread(str(file))[..., ::-1]
    rows, columns = 6, 8  # 45 examples
    assert sheet.shape == (rows * (96 + 16 + 4) + 4, columns * (96 + 4) + 4, 3)
    for index, label in ((0, 0), (1, 1), (2, 1), (44, 8)):
        row, column = divmod(index, columns)
        cell = sheet[row * 116 + 4 :, column * 100 + 4 :]
        np.testing.assert_array_equal(cell[50, 50], [10 * label, 0, 200])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--split=dev"], "unknown split 'dev' of dataset 'toy'; use one of train, test, "),
        (["--out=sheet.jpg"], "the picture's name must end in .png, got 'sheet.jpg'"),
        (["--out=none/sheet.png"], "the folder of the picture 'none/sheet.png' does not exist"),
    ],
)
def test_mistakes_are_one_line(toy_dir, capsys, arguments, message):
    assert run(f"--data_dir={toy_dir}", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_datasets_that_are_not_there_or_of_another_kind(tmp_path, toy_dir, capsys):
    assert run(f"--data_dir={tmp_path}") == 2
    assert "unknown dataset 'toy'" in capsys.readouterr().err
    folder = tmp_path / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    for file in Path(toy_dir, "toy", "1.0.0").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"label"', '"kind"'))
    assert run(f"--data_dir={tmp_path}") == 2
    assert "'toy' is not for image classification" in capsys.readouterr().err


def test_the_digits_are_prepared_on_first_use(tmp_path, capsys):
    assert run(f"--data_dir={tmp_path}", "--split=test", name="digits") == 0
    assert "height: min 8, median 8, max 8 pixels (of 355 images)" in capsys.readouterr().out
