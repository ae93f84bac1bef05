"""Preparing datasets of ours: checks, order, and nothing half-written."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data import prepared
from fixed_head_jax.data.builders import DEFINITIONS
from fixed_head_jax.data.builders.definition import Definition, Example
from fixed_head_jax.data.preparing import write
from fixed_head_jax.data.preparing.prepare import BadImagesError, _map_in_order, prepare
from fixed_head_jax.data.preparing.scratch import scratch_folder
from fixed_head_jax.data.records import parse


def encode(mode: str = "RGB", seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(target, kind)
    return target.getvalue()


GOOD = [Example(f"{i}.png", encode(seed=i), i % 3) for i in range(9)]
BAD = [
    Example("cut.jpg", encode(kind="JPEG")[:-200], 0),
    Example("empty.png", b"", 1),
    Example("text.jpg", b"no image", 2),
    Example("label.png", encode(), 3),
    Example("negative.png", encode(), -1),
    Example("0.png", encode(), 0),
]
ODD = [
    Example("grey.png", encode("L"), 0),
    Example("ink.jpg", encode("CMYK", kind="JPEG"), 1),
    Example("alpha.png", encode("RGBA"), 2),
    Example("palette.png", encode("P"), 0),
]


def define(train=GOOD, test=GOOD[:3], **changes) -> Definition:
    splits = {"train": lambda: iter(train), "test": lambda: iter(test)}
    definition = Definition(("a", "b", "c"), splits, {}, "Toy images.", "https://example.org")
    return definition._replace(**changes)


def read(path: Path, split: str) -> list[tuple[bytes, int]]:
    builder = tfds.builder_from_directory(path)
    source = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return [parse(record) for record in source.__getitems__(list(range(len(source))))]


def contents(examples) -> list[tuple[bytes, int]]:
    return [(example.encoded, example.label) for example in examples]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


@pytest.mark.parametrize("num_threads", [1, 5])
def test_examples_are_stored_as_they_are_in_their_order(tmp_path, num_threads):
    report = prepare("toy", define(shuffled=False), tmp_path, num_threads=num_threads)
    assert report.path == tmp_path / "toy" / "1.0.0"
    assert read(report.path, "train") == contents(GOOD)
    assert read(report.path, "test") == contents(GOOD[:3])
    assert report.counts == {"train": 9, "test": 3}
    assert names(tmp_path) == ["toy"]


def test_shuffled_examples_have_an_order_that_depends_on_nothing_but_their_names(tmp_path):
    forward = read(prepare("toy", define(), tmp_path / "a").path, "train")
    backward = read(prepare("toy", define(GOOD[::-1]), tmp_path / "b").path, "train")
    assert forward == backward
    assert sorted(forward) == sorted(contents(GOOD))
    assert forward != contents(GOOD)


def test_tfds_opens_it_and_decodes_the_same_pixels(tmp_path):
    path = prepare("toy", define(shuffled=False), tmp_path).path
    builder = tfds.builder("toy", data_dir=str(tmp_path))
    assert builder.info.full_name == "toy/1.0.0"
    assert builder.info.features["label"].names == ["a", "b", "c"]
    assert builder.info.features["image"].shape == (None, None, 3)
    assert builder.info.splits["train"].num_examples == 9
    for element, example in zip(builder.as_data_source("train"), GOOD, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(example.encoded)))
        np.testing.assert_array_equal(element["image"], pixels)
        assert element["label"] == example.label
        assert element["file_name"].decode() == example.name
    assert names(path) == [
        "dataset_info.json", "features.json", "label.labels.txt",
        "toy-test.array_record-00000-of-00001", "toy-train.array_record-00000-of-00001",
    ]  # fmt: skip


def test_large_splits_are_spread_over_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_SHARD", sum(len(e.encoded) for e in GOOD) // 3)
    path = prepare("toy", define(shuffled=False), tmp_path).path
    info = tfds.builder_from_directory(path).info.splits["train"]
    assert info.shard_lengths == [2, 2, 2, 3]
    assert read(path, "train") == contents(GOOD)


def test_few_images_are_in_memory_at_a_time():
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = _map_in_order(lambda item: -item, items(), 3)
    assert next(results) == 0 and len(taken) <= 3 * 8
    assert next(results) == -1 and len(taken) <= 3 * 8 + 1
    assert list(results) == [-item for item in range(2, 1000)]


# Checks


def test_all_bad_images_are_listed_and_nothing_is_written(tmp_path):
    with pytest.raises(BadImagesError, match="6 of 18 images cannot be used; nothing") as caught:
        prepare("toy", define([*GOOD, *BAD]), tmp_path)
    problems = [line.split(": ", 2) for line in caught.value.problems]
    assert [problem[:2] for problem in problems] == [["train", bad.name] for bad in BAD]
    reasons = ("cut off", "empty, or cannot", "not an image", "label 3", "label -1", "the second")
    for problem, reason in zip(problems, reasons, strict=True):
        assert problem[2].startswith(reason)
    assert names(tmp_path) == []


def test_bad_images_are_left_out_on_demand(tmp_path):
    report = prepare("toy", define([*BAD[:2], *GOOD, *BAD[2:]], shuffled=False), tmp_path, True)
    # The bad image named 0.png comes after the good one of that name.
    assert read(report.path, "train") == contents(GOOD)
    assert len(report.left_out) == len(BAD)
    assert report.counts == {"train": 9, "test": 3}


def test_unusual_images_of_an_archive_are_counted_and_kept(tmp_path):
    report = prepare("toy", define([*GOOD, *ODD], shuffled=False), tmp_path)
    assert read(report.path, "train") == contents([*GOOD, *ODD])
    assert report.traits == {"grey": 1, "CMYK": 1, "alpha": 1, "palette": 1}
    assert report.converted == 0


def test_unusual_images_are_refused_or_converted_on_demand(tmp_path):
    definition = define([*GOOD, *ODD], shuffled=False)
    with pytest.raises(BadImagesError, match="4 of 16 images"):
        prepare("toy", definition, tmp_path, unusual="refuse")
    report = prepare("toy", definition, tmp_path, unusual="convert")
    stored = read(report.path, "train")
    assert report.converted == 4
    assert stored[:9] == contents(GOOD)
    for (encoded, label), example in zip(stored[9:], ODD, strict=True):
        image = Image.open(io.BytesIO(encoded))
        assert (image.format, image.mode, label) == ("PNG", "RGB", example.label)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(counts={"train": 10}), "split 'train' has 9 images where there must be 10; get"),
        (dict(counts={"test": 2}), "split 'test' has 3 images where there must be 2"),
        (dict(test=[]), "split 'test' has no images"),
        (dict(train=GOOD[:2]), r"1 classes \(c\) have no training images; add some"),
        (dict(image_shape=(8, 8, 3)), "12 of 12 images cannot be used"),
    ],
)
def test_what_is_not_as_defined_is_an_error(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        prepare("toy", define(**changes), tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["b\r", " b", "b\n", ""])
def test_names_that_are_not_read_back_as_written_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="class names are not read back as written"):
        prepare("toy", define(class_names=("a", name, "c")), tmp_path)
    assert names(tmp_path) == []


def test_a_split_that_is_emptied_says_by_which_files(tmp_path):
    with pytest.raises(BadImagesError, match="'test' has no images but bad ones") as caught:
        prepare("toy", define(test=[BAD[1]]), tmp_path, skip_bad=True)
    assert caught.value.problems == ["test: empty.png: empty, or cannot be opened"]


def test_images_left_out_count_as_seen(tmp_path):
    definition = define([*GOOD, BAD[0]], counts={"train": 10, "test": 3})
    assert prepare("toy", definition, tmp_path, skip_bad=True).counts == {"train": 9, "test": 3}


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="unknown unusual 'drop'; known: keep, refuse, convert"):
        prepare("toy", define(), tmp_path, unusual="drop")
    with pytest.raises(ValueError, match="num_threads must be >= 0 .*got -1"):
        prepare("toy", define(), tmp_path, num_threads=-1)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot prepare dataset 'toy' .*writable directory"):
        prepare("toy", define(), tmp_path / "file")


# Interruptions


def test_an_interruption_leaves_nothing_and_the_next_run_works(tmp_path):
    def interrupted():
        yield from GOOD[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("toy", define()._replace(splits={"train": interrupted}), tmp_path)
    assert names(tmp_path) == []
    assert prepare("toy", define(), tmp_path).counts["train"] == 9


def test_scratch_folders_of_dead_processes_alone_are_removed(tmp_path):
    (tmp_path / ".toy-dead").mkdir()
    (tmp_path / ".toy-dead" / "lock").touch()
    (tmp_path / ".toy-dead" / "half").write_bytes(b"half")
    (tmp_path / ".other-dead").mkdir()
    with scratch_folder(tmp_path, "toy") as first:
        with scratch_folder(tmp_path, "toy") as second:
            assert names(tmp_path) == sorted([".other-dead", first.name, second.name])
    assert names(tmp_path) == [".other-dead"]


def test_who_comes_second_keeps_what_is_there(tmp_path):
    path = prepare("toy", define(), tmp_path).path
    before = [(p.name, p.stat().st_mtime_ns) for p in sorted(path.iterdir())]
    prepare("toy", define(), tmp_path)
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(path.iterdir())] == before
    assert names(tmp_path) == ["toy"]


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_to_the_next(tmp_path):
    script = (
        "import time\n"
        "from fixed_head_jax.data import builders\n"
        "from fixed_head_jax.data.preparing import prepare\n"
        "digits = builders.DEFINITIONS['digits'](None)\n"
        "train = digits.splits['train']\n"
        "def endless():\n"
        "    yield from train()\n"
        "    time.sleep(600)\n"
        "digits = digits._replace(splits={'train': endless})\n"
        f"prepare.prepare('digits', digits, {str(tmp_path)!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        while process.poll() is None and not list(tmp_path.glob(".digits-*/train.spill")):
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(names(tmp_path)) == 1 and names(tmp_path)[0].startswith(".digits-")
    assert not prepared.locate("digits", str(tmp_path))[1]
    prepared.find("digits", str(tmp_path))
    assert names(tmp_path) == ["digits"]


# The command


@pytest.fixture
def toy(monkeypatch):
    """Lets the command prepare `toy` from whatever the test puts into the list."""
    train = list(GOOD)
    monkeypatch.setitem(DEFINITIONS, "toy", lambda manual_dir: define(train))
    return train


def run(*arguments) -> int:
    return command.main([str(argument) for argument in arguments])


def test_the_command_prepares_once(tmp_path, toy, capsys):
    place = f"--data_dir={tmp_path}"
    assert run("prepare", "toy", place) == 0
    assert "train: 9 images" in capsys.readouterr().out
    assert run("prepare", "toy", place) == 0
    assert "toy: already prepared in" in capsys.readouterr().out
    assert prepared.find("toy", str(tmp_path)).info.splits["train"].num_examples == 9


def test_the_command_lists_bad_images(tmp_path, toy, capsys):
    toy += [Example(f"empty{i}.png", b"", 0) for i in range(30)] + ODD
    place = f"--data_dir={tmp_path}"
    assert run("prepare", "toy", place) == 2
    out, err = capsys.readouterr()
    listed = (tmp_path / "toy_problems.txt").read_text().splitlines()
    assert listed == [f"train: empty{i}.png: empty, or cannot be opened" for i in range(30)]
    assert out.splitlines()[1:] == [f"  {line}" for line in listed[:20]] + ["  ... and 10 more"]
    assert str(tmp_path / "toy_problems.txt") in out
    last = err.splitlines()[-1]
    assert last.startswith("dataset 'toy': 30 of 46 images cannot be used")
    assert "--skip_bad" in last and "--convert" not in last
    assert not (tmp_path / "toy").exists()

    assert run("prepare", "toy", place, "--skip_bad", "--threads=2") == 0
    out = capsys.readouterr().out
    assert "train: 13 images" in out and "images that were left out: 30" in out
    assert "stored as they are: 1 CMYK, 1 alpha, 1 grey, 1 palette" in out


def test_a_good_run_removes_the_list_of_a_bad_one(tmp_path, toy):
    (tmp_path / "toy_problems.txt").touch()
    assert run("prepare", "toy", f"--data_dir={tmp_path}") == 0
    assert names(tmp_path) == ["toy"]


def test_the_command_can_be_interrupted(tmp_path, monkeypatch, capsys):
    def interrupt(manual_dir):
        raise KeyboardInterrupt

    monkeypatch.setitem(DEFINITIONS, "toy", interrupt)
    assert run("prepare", "toy", f"--data_dir={tmp_path}") == 130
    assert capsys.readouterr().err == "interrupted; nothing half-written is left\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["prepare", "toy", "--convert"], "--convert is not for 'toy'; leave it out"),
        (["prepare", "toy", "--seed=0"], "--seed is not for 'toy'"),
        (["prepare", "cifar10", "--skip_bad"], "--skip_bad is not for 'cifar10'"),
        (["prepare", "cifar10", "--manual_dir=none"], "manual_dir 'none' is not a folder"),
        (["prepare", "cifar11"], "unknown dataset 'cifar11'"),
        (["prepare", "fgvc_aircraft"], "manual_dir is not set"),
        (["prepare", "image_folder", "--name=x"], "image_folder needs --path"),
        (["prepare", "image_folder", "--path=x"], "image_folder needs --name"),
        (["prepare", "toy", "--threads=-1"], "num_threads must be >= 0"),
        (
            ["info", "fgvc_aircraft"],
            "data prepare fgvc_aircraft --data_dir=.* --manual_dir",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(tmp_path, toy, capsys, arguments, message):
    assert run(*arguments, f"--data_dir={tmp_path}") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_help_says_what_becomes_of_bad_images(capsys):
    with pytest.raises(SystemExit) as caught:
        run("prepare", "--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("--skip_bad leaves", "--convert stores", "130", "dtd"))
    assert max(map(len, out.splitlines())) <= 100
