"""Prediction of files: every folder layout, bad files counted, rows of every format."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.inference import rows
from fixed_head_jax.inference.files import find_images
from fixed_head_jax.inference.predict import predict_files
from fixed_head_jax.inference.predictor import Predictor, Preprocessing

CLASSES = ("dark", "light")


class Brightness:
    """A model whose features are the mean of an image, twice, and whose classes are dark, light."""

    def apply(self, variables, images, train):
        mean = images.mean((1, 2))
        features = mean.repeat(2, axis=1)
        logits = features * variables["sign"]
        return {"logits": logits, "features": features, "feature_map": images}


@pytest.fixture
def predictor():
    preprocessing = Preprocessing((4, 4, 1), 0, "bilinear", (0.5,), (0.5,))
    sign = {"sign": np.array([[-4.0, 4.0]], np.float32)}
    return Predictor("mine", Brightness(), sign, preprocessing, CLASSES, batch_size=4)


@pytest.fixture
def photographs(tmp_path):
    """Eleven photographs, of which two are in the other's folder, one that is none and others."""
    folder = tmp_path / "photographs"
    for i in range(11):
        label = CLASSES[i % 2 if i < 9 else 1 - i % 2]
        place = folder / f"part{i % 3}" / label
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9 + i, 5), 200 * (i % 2) + i).save(place / f"{i:02}.png")
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image\n")
    return folder


def read_rows(path):
    if path.suffix == ".csv":
        with path.open() as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return parquet.read_table(path).to_pylist()
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


@pytest.mark.parametrize("suffix", rows.SUFFIXES)
def test_a_folder(predictor, photographs, tmp_path, capsys, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"out{suffix}"
    predict_files(predictor, [str(photographs)], out, top_k=2, features=True)
    found = read_rows(out)
    assert [row["file"].split("/")[-1] for row in found] == [
        f"{i:02}.png" for part in range(3) for label in range(2)
        for i in range(part, 11, 3) if (i % 2 if i < 9 else 1 - i % 2) == label
    ]  # fmt: skip
    features = np.load(tmp_path / "out_features.npy")
    assert features.shape == (11, 2)
    for row, (mean, _) in zip(found, features, strict=True):
        number = int(row["file"][-6:-4])
        assert row["class_1"] == CLASSES[number % 2]
        assert mean == pytest.approx((200 * (number % 2) + number) / 127.5 - 1, abs=0.01)
        share = 1 / (1 + np.exp(-8 * abs(mean)))
        assert float(row["probability_1"]) == pytest.approx(share, abs=2e-6)
        assert float(row["probability_2"]) == pytest.approx(1 - share, abs=2e-6)
    assert (tmp_path / "out_problems.txt").read_text().startswith(f"{photographs / 'bad.jpg'}: ")
    said = capsys.readouterr().out
    assert "12 files in" in said and "1 of them could not be read" in said
    assert "accuracy 81.82 % on 11 photographs" in said  # all but the two
    assert (tmp_path / "out_confusion.csv").read_text().splitlines() == [
        "label,prediction,count", "dark,dark,5", "dark,light,1", "light,dark,1", "light,light,4",
    ]  # fmt: skip


def test_files_patterns_and_lists_are_found_in_order(photographs, tmp_path):
    image, bad = photographs / "part0" / "dark" / "00.png", photographs / "bad.jpg"
    names = tmp_path / "names.txt"
    names.write_text(f"{image}\n\n{bad}\n")
    assert list(find_images([str(bad), str(names)])) == [bad, image, bad]
    assert list(find_images([f"{photographs}/*/dark/0*.png"])) == sorted(
        path for path in photographs.glob("*/dark/0*.png")
    )
    with pytest.raises(ValueError, match="--images='none' is no file"):
        list(find_images(["none"]))


def test_rows_are_printed_where_no_table_is_named(predictor, photographs, capsys):
    predict_files(predictor, [str(photographs / "part0" / "dark" / "00.png")], top_k=1)
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.endswith("00.png  dark 100.0 %")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"top_k": 0}, "--top_k=0 must be at least 1"),
        ({"features": True}, "--features needs --out"),
        ({"out": "x.xls"}, "--out='x.xls' must end in .csv, .json, .jsonl, .parquet"),
        ({"out": "none/x.csv"}, "is in no folder that there is"),
    ],
)
def test_mistakes(predictor, photographs, options, message):
    with pytest.raises(ValueError, match=message):
        predict_files(predictor, [str(photographs)], **options)


@pytest.mark.parametrize("suffix", rows.SUFFIXES[:3])
def test_what_was_written_before_an_interruption_is_a_whole_table(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    with pytest.raises(KeyboardInterrupt), rows.open_rows(path) as write:
        for i in range(3):
            write({"file": f"{i}.png", "class_1": "a"})
        raise KeyboardInterrupt
    assert len(read_rows(path)) == 3
