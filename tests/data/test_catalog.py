"""Datasets of the TFDS catalog: what is prepared, converted, found or refused."""

import importlib.util
import json
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data import prepared
from fixed_head_jax.data.preparing import catalog, tfrecord

RAW = tfds.decode.DeserializeMethod.RAW_BYTES


class ToyShapes(tfds.core.GeneratorBasedBuilder):
    """A dataset of the catalog, as `toy_shapes`."""

    VERSION = tfds.core.Version("2.0.0")
    code_path = None
    failure: Exception | None = None

    def _info(self):
        image = tfds.features.Image(shape=(4, 4, 3))
        label = tfds.features.ClassLabel(num_classes=2)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        if self.failure:
            raise self.failure
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for key in range(5):
            encoded = cv2.imencode(".png", np.full((4, 4, 3), key, np.uint8))[1].tobytes()
            yield key, {"image": encoded, "label": key % 2}


def crc32c(data: bytes) -> int:
    """Bit by bit, from the definition: an oracle for the library."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def stored(data_dir: Path, name: str, split: str) -> list[bytes]:
    source = prepared.find(name, str(data_dir)).as_data_source(split, deserialize_method=RAW)
    return source.__getitems__(list(range(len(source))))


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits")
    prepared.find("digits", str(path))
    return path


@pytest.fixture
def numbers(tmp_path, digits_dir):
    """The digits as TFDS would keep them in TFRecord files, under a name of no code."""
    source, folder = digits_dir / "digits" / "1.0.0", tmp_path / "numbers" / "1.0.0"
    folder.mkdir(parents=True)
    for name in ("features.json", "label.labels.txt"):
        if (source / name).exists():
            shutil.copy(source / name, folder)
    for split in ("train", "test"):
        records = b"".join(map(frame, stored(digits_dir, "digits", split)))
        (folder / f"numbers-{split}.tfrecord-00000-of-00001").write_bytes(records)
    text = (source / "dataset_info.json").read_text()
    text = text.replace("digits", "numbers").replace('"array_record"', '"tfrecord"')
    (folder / "dataset_info.json").write_text(text)
    return folder


def run(name: str, data_dir: Path, *more: str) -> int:
    return command.main(["prepare", name, f"--data_dir={data_dir}", *more])


# Conversion


def test_checksums_are_those_of_the_format():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for data in (b"", b"123456789", bytes(range(256))):
        assert tfrecord.masked_crc32c(data) == masked(data)


def test_records_are_read_as_they_were_written(tmp_path):
    records = [b"", b"a", bytes(1000), b"last"]
    (tmp_path / "file").write_bytes(b"".join(map(frame, records)))
    assert list(tfrecord.read_records(tmp_path / "file")) == records


@pytest.mark.parametrize("mentioned", [True, False])
def test_tfrecord_files_are_converted_next_to_the_old(numbers, digits_dir, capsys, mentioned):
    data_dir, info = numbers.parents[1], numbers / "dataset_info.json"
    if not mentioned:  # as early versions of TFDS did
        info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": ""}))
    with pytest.raises(ValueError, match="format tfrecord.*`python .*data prepare numbers --data"):
        prepared.find("numbers", str(data_dir))
    before = {path.name: path.read_bytes() for path in numbers.iterdir()}
    assert run("numbers", data_dir) == 0
    assert "array_record files added next to those in tfrecord" in capsys.readouterr().out
    for split in ("train", "test"):
        assert stored(data_dir, "numbers", split) == stored(digits_dir, "digits", split)
    after = {path.name: path.read_bytes() for path in numbers.iterdir()}
    new = {f"numbers-{split}.array_record-00000-of-00001" for split in ("train", "test")}
    assert after.keys() == before.keys() | new
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed == {"dataset_info.json"}
    assert run("numbers", data_dir) == 0
    assert "numbers: already prepared" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: data[:-3], "is cut off in the record at byte"),
        (lambda data: data[:40], "is cut off in the record at byte 0"),
        (lambda data: data[:3] + b"\xff" + data[4:], "is damaged at byte 0"),
        (lambda data: data[:20] + b"\xff" + data[21:], "is damaged at byte 0"),
        (lambda data: data + b"\0" * 5, "is damaged at byte"),
        (lambda data: data + frame(b"\x0a\xff"), "record 355 of .* is no example"),
        (lambda data: data + data, "has 710 records, the dataset says 355"),
        (lambda data: b"", "has 0 records, the dataset says 355"),
        (None, "is missing; prepare the dataset again"),
    ],
)
def test_damaged_files_are_not_converted(numbers, capsys, damage, message):
    file = numbers / "numbers-test.tfrecord-00000-of-00001"
    data = file.read_bytes()
    file.unlink() if damage is None else file.write_bytes(damage(data))
    before = sorted(path.name for path in numbers.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        catalog.prepare_from_catalog("numbers", str(numbers.parents[1]))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in numbers.iterdir()) == before
    with pytest.raises(ValueError, match="in format tfrecord"):
        prepared.find("numbers", str(numbers.parents[1]))


def test_other_formats_cannot_be_converted(numbers):
    info = numbers / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(ValueError, match="in format riegeli; only tfrecord can be converted"):
        catalog.prepare_from_catalog("numbers", str(numbers.parents[1]))


# The catalog


def test_a_dataset_of_the_catalog_is_prepared_and_found(tmp_path, capsys):
    assert run("toy_shapes", tmp_path) == 0
    assert "toy_shapes: prepared" in capsys.readouterr().out
    assert len(stored(tmp_path, "toy_shapes", "train")) == 5
    assert run("toy_shapes", tmp_path) == 0
    assert "toy_shapes: already prepared" in capsys.readouterr().out


def test_datasets_that_need_tensorflow_say_so_before_any_download(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in (*catalog.NEED_TENSORFLOW, "cifar10:3.0.2"):
        assert run(name, tmp_path) == 2
        assert capsys.readouterr().err == (
            f"dataset '{name}' needs TensorFlow for preparing (not for training): run "
            "pip install 'fixed_head_jax[prepare]' and repeat the command\n"
        )
    assert list(tmp_path.iterdir()) == []


def chained(error: Exception) -> Exception:
    outer = RuntimeError("in a generator")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "failure, message",
    [
        (chained(ImportError("Failed to import TensorFlow.")), r"needs TensorFlow .*\[prepare\]'"),
        (ModuleNotFoundError("No module", name="tensorflow.io"), "needs TensorFlow for preparing"),
        (ModuleNotFoundError("No module", name="importlib_resources"),
         r"needs importlib_resources for .*pip install 'fixed_head_jax\[prepare\]'"),
        (chained(ModuleNotFoundError("No", name="bs4.x")), "needs bs4 .*pip install bs4 and"),
        (AssertionError("Manual\n  download\nneeded"), "'toy_shapes': Manual download needed"),
        (OSError("disk full"), "cannot prepare dataset 'toy_shapes': disk full"),
    ],
)  # fmt: skip
def test_failures_are_one_clear_line_and_leave_nothing(tmp_path, monkeypatch, failure, message):
    monkeypatch.setattr(ToyShapes, "failure", failure)
    with pytest.raises(ValueError, match=message) as caught:
        catalog.prepare_from_catalog("toy_shapes", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("toy_shapes/*"))
