"""Datasets of one's own, from folders of images."""

import contextlib
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax import data
from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data.preparing import image_folder
from fixed_head_jax.data.records import file_name
from fixed_head_jax.data.selection import listed

# What ends lines for some reader, or controls a terminal.
CONTROLS = [*map(chr, range(1, 32)), *map(chr, range(127, 160)), "\u2028", "\u2029"]


def encode(mode: str = "RGB", seed: int = 0, kind: str = "PNG", **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(target, kind, **options)
    return target.getvalue()


def fill(folder: Path, counts: dict[str, int], mode: str = "RGB") -> None:
    """Writes class folders of that many images each."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i:02}.png").write_bytes(encode(mode, 100 * label + i))


def members(definition) -> dict[str, list[tuple[str, int]]]:
    return {
        split: [(example.name, example.label) for example in examples()]
        for split, examples in definition.splits.items()
    }


def run(path: Path, data_dir: Path, *more: str) -> int:
    arguments = ["prepare", "image_folder", f"--path={path}", "--name=my_birds"]
    return command.main([*arguments, f"--data_dir={data_dir}", *more])


@pytest.mark.parametrize("others", [(), ("test",), ("val", "test"), ("validation",), ("valid",)])
def test_folders_of_splits(tmp_path, others):
    for split in ("train", *others):
        fill(tmp_path / split, {"wren": 2, "owl": 3})
    definition, ignored = image_folder.read(tmp_path)
    assert definition.class_names == ("owl", "wren")
    assert set(definition.splits) == {"train", *others}
    assert members(definition)["train"] == [
        ("train/owl/00.png", 0), ("train/owl/01.png", 0), ("train/owl/02.png", 0),
        ("train/wren/00.png", 1), ("train/wren/01.png", 1),
    ]  # fmt: skip
    assert dict(definition.counts) == dict.fromkeys(definition.splits, 5)
    assert (definition.channels, definition.shuffled, ignored) == (3, True, {})


def test_a_part_of_each_class_is_drawn_for_the_test(tmp_path):
    fill(tmp_path, {"a": 10, "b": 20, "train": 1})
    whole = {(f"{c}/{i:02}.png", k) for k, (c, n) in enumerate([("a", 10), ("b", 20)])
             for i in range(n)} | {("train/00.png", 2)}  # fmt: skip
    drawn = members(image_folder.read(tmp_path)[0])
    assert {*drawn["train"], *drawn["test"]} == whole and len(drawn["train"]) == 25
    assert [label for _, label in drawn["test"]] == [0] * 2 + [1] * 4
    assert members(image_folder.read(tmp_path, 0.2, 0)[0]) == drawn
    assert members(image_folder.read(tmp_path, seed=1)[0]) != drawn
    assert len(members(image_folder.read(tmp_path, 0.99)[0])["train"]) == 3
    assert members(image_folder.read(tmp_path, 0.0)[0]).keys() == {"train"}


def test_what_is_hidden_or_no_image_by_extension_is_left_out(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    (tmp_path / ".cache").mkdir()
    (tmp_path / "labels.csv").touch()
    (tmp_path / "a" / ".hidden.png").touch()
    (tmp_path / "a" / ".thumbnails").mkdir()
    for name in ("notes.txt", "b.TXT", "photo.heic", "README"):
        (tmp_path / "b" / name).touch()
    (tmp_path / "b" / "LAST.JPEG").write_bytes(encode(kind="JPEG"))
    definition, ignored = image_folder.read(tmp_path, 0.0)
    assert ignored == {".txt": 2, ".heic": 1, "": 1}
    assert definition.counts == {"train": 11}


@pytest.mark.parametrize(
    "modes, channels", [(("L", "LA", "1"), 1), (("L", "RGB"), 3), (("L", "P"), 3)]
)
def test_a_folder_is_grey_if_all_its_images_are(tmp_path, modes, channels):
    for mode in modes:
        (tmp_path / mode).mkdir()
        (tmp_path / mode / "0.png").write_bytes(encode(mode))
    (tmp_path / "L" / "broken.png").touch()
    assert image_folder.read(tmp_path, 0.0)[0].channels == channels


@pytest.mark.parametrize(
    "folders, options, message",
    [
        (["a/", "b/0.png"], {}, "without images: a; fill or remove"),
        (["a/0.png"], {}, "holds 1 class folders; there must be at least 2"),
        ([], {}, "holds 0 class folders"),
        (["a/0.png", "b/c/0.png"], {}, "class folder .* holds a folder 'c'"),
        (["train/a/0.png", "train/b/0.png", "test/a/0.png", "test/c/0.png"], {},
         "train and test .*only in train: b; only in test: c"),
        (["train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/"], {}, "without images: b"),
        (["train/a/0.png", "other/a/0.png"], {}, "no splits: other; move them away, splits are"),
        (["train/a/0.png", "train/b/0.png"], dict(test_fraction=0.5), "has a folder 'train'"),
        (["a/0.png", "b/0.png"], dict(test_fraction=1.0), r"must be in \[0, 1\) .*got 1.0"),
        (["a/0.png", "b/0.png"], dict(test_fraction=0.5), "is no image; raise it"),
        (["a/0.png", "b/0.png"], dict(seed=-1), "seed >= 0, got None and -1"),
        (["a/0.png", "b /0.png"], {}, "has blanks at its ends"),
        *((["a/0.png", f"b{c}c/0.png"], {}, "control characters") for c in CONTROLS),
        (["a/0.png", "caf\udce9/0.png"], {}, r"caf\\udce9' has .*bytes that are not UTF-8"),
    ],
)  # fmt: skip
def test_folders_of_another_form_are_one_clear_line(tmp_path, folders, options, message):
    for name in folders:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message) as caught:
        image_folder.read(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="path .*none' is not a folder"):
        image_folder.read(tmp_path / "none")


@pytest.mark.parametrize("name", ["birds", "my_birds2", "b"])
def test_names_that_will_do(name):
    image_folder.check_name(name)


@pytest.mark.parametrize(
    "name, message",
    [
        ("My-Birds", "lower-case words"),
        ("2birds", "lower-case words"),
        ("birds_", "lower-case words"),
        ("", "lower-case words"),
        ("../birds", "lower-case words"),
        ("cifar10", "another dataset"),
        ("digits", "another dataset"),
        ("imagenet_lt", "another dataset"),
        ("image_folder", "another dataset"),
    ],
)
def test_names_that_are_taken_or_malformed(name, message):
    with pytest.raises(ValueError, match=message):
        image_folder.check_name(name)


def test_from_folders_to_batches(tmp_path, capsys):
    fill(tmp_path / "birds", {"owl": 6, "wren": 6})
    (tmp_path / "birds" / "owl" / "note.txt").touch()
    assert run(tmp_path / "birds", tmp_path / "tfds", "--test_fraction=0.5", "--seed=3") == 0
    assert "ignored, no images by their extension: 1 .txt" in capsys.readouterr().out
    stored = {}
    for split in ("train", "test"):
        dataset = data.open_dataset("my_birds", split, str(tmp_path / "tfds"), image_size=4)
        assert dataset.source.class_names == ("owl", "wren")
        arrays = dataset.arrays()
        assert arrays["image"].shape == (6, 4, 4, 3)
        assert sorted(arrays["label"].tolist()) == [0, 0, 0, 1, 1, 1]
        stored |= {image.tobytes(): int(k) for image, k in zip(*arrays.values(), strict=True)}
    assert len(stored) == 12


def test_grey_folders_give_grey_batches(tmp_path):
    fill(tmp_path / "birds", {"owl": 2, "wren": 2}, "L")
    assert run(tmp_path / "birds", tmp_path, "--test_fraction=0") == 0
    dataset = data.open_dataset("my_birds", "train", str(tmp_path), image_size=6)
    assert dataset.source.image_shape == (6, 6, 1)


def test_grey_folders_and_mixed_ones_can_be_rgb(tmp_path, capsys):
    birds = tmp_path / "birds"
    fill(birds, {"owl": 2, "wren": 2}, "L")
    data_dir, arguments = tmp_path / "tfds", ("--test_fraction=0", "--channels=3")
    assert run(birds, data_dir, *arguments) == 0
    source = data.open_dataset("my_birds", "train", str(data_dir), image_size=6).source
    images, _ = source.read(np.arange(4))
    assert source.image_shape == (6, 6, 3) and images.std() > 20
    assert (images == images[..., :1]).all()

    (birds / "owl" / "colour.png").write_bytes(encode("RGB"))
    (birds / "wren" / "alpha.png").write_bytes(encode("RGBA"))
    assert run(birds, tmp_path / "mixed", *arguments) == 2
    assert "wren/alpha.png: alpha" in capsys.readouterr().out  # and not the grey ones
    assert run(birds, tmp_path / "mixed", *arguments, "--convert") == 0
    assert "converted to PNG: 1 alpha" in capsys.readouterr().out
    source = data.open_dataset("my_birds", "train", str(tmp_path / "mixed"), image_size=6).source
    assert len(source) == 6 and source.image_shape == (6, 6, 3)


@pytest.mark.parametrize("channels", [1, 2])
def test_colours_are_not_made_grey(tmp_path, capsys, channels):
    fill(tmp_path, {"owl": 2, "wren": 2})
    assert run(tmp_path, tmp_path / "tfds", f"--channels={channels}") == 2
    assert re.search(f"channels must be 3 .* got {channels}: colours", capsys.readouterr().err)


@pytest.mark.parametrize("name", ["Ä owl", "a\u200db", "\ufeffx", "x|y", "émeu\u0301", "鳥"])
def test_names_of_classes_are_read_back_as_they_are(tmp_path, name):
    fill(tmp_path / "birds", {name: 1, "wren": 1})
    assert run(tmp_path / "birds", tmp_path, "--test_fraction=0") == 0
    dataset = data.open_dataset("my_birds", "train", str(tmp_path), image_size=6)
    assert dataset.source.class_names == tuple(sorted([name, "wren"]))


def test_names_of_files_are_text_of_one_line(tmp_path, capsys):
    """They are so in messages, in the records, and so in lists of files."""
    birds = tmp_path / "bir\udcffds"
    fill(birds, {"owl": 1, "wren": 1})
    for name, content in (("caf\udce9\n.png", encode(seed=7)), ("\u2028.png", b"no image")):
        (birds / "owl" / name).write_bytes(content)
    (birds / "owl" / "note.t\udcfft").touch()
    assert run(birds, tmp_path, "--test_fraction=0", "--skip_bad") == 0
    out = capsys.readouterr().out
    assert "1 .t\\xfft" in out and "train: owl/\\u2028.png: not an image" in out
    assert (tmp_path / "my_birds_problems.txt").read_text().count("\n") == 1
    source = data.open_dataset("my_birds", "train", str(tmp_path), image_size=6).source
    stored = [file_name(record) for record in source.records.__getitems__([0, 1, 2])]
    assert sorted(stored) == ["owl/00.png", "owl/caf\\xe9\\n.png", "wren/00.png"]
    (tmp_path / "list.txt").write_text("owl/caf\\xe9\\n.png\n")
    assert stored[listed(str(tmp_path / "list.txt"), lambda: stored)[0]] == sorted(stored)[1]


def test_output_of_another_encoding_and_odd_directories_are_no_tracebacks(tmp_path, capsys):
    fill(tmp_path / "birds", {"Ä": 1, "wren": 1})
    odd = tmp_path / "d\udce9"
    assert run(tmp_path / "birds", odd, "--test_fraction=0") == 2
    assert re.search(r"data_dir '.*d\\udce9' is not UTF-8; choose another", capsys.readouterr().err)
    assert run(tmp_path / "birds", tmp_path, "--test_fraction=0") == 0
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")
    with contextlib.redirect_stdout(stream):
        assert command.main(["info", "my_birds", f"--data_dir={tmp_path}"]) == 0
    stream.seek(0)
    assert "\\xc4 " in stream.read()


def test_what_is_no_file_is_a_bad_image_and_hangs_nothing(tmp_path, capsys):
    birds = tmp_path / "birds"
    fill(birds, {"owl": 1, "wren": 1})
    os.mkfifo(birds / "owl" / "pipe.png")
    assert run(birds, tmp_path, "--test_fraction=0") == 2
    assert "train: owl/pipe.png: empty, or cannot be opened" in capsys.readouterr().out
    assert image_folder.read(birds, 0.0)[0].channels == 3


def test_a_class_that_is_emptied_says_by_which_files(tmp_path, capsys):
    birds = tmp_path / "birds"
    fill(birds, {"owl": 1, "wren": 1})
    (birds / "owl" / "00.png").write_bytes(b"no image")
    (birds / "owl" / "turned.png").write_bytes(encode("RGBA"))
    (birds / "wren" / "bad.png").touch()
    assert run(birds, tmp_path, "--test_fraction=0", "--skip_bad") == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[2:] == [
        "  train: owl/00.png: not an image that Pillow can read",
        "  train: owl/turned.png: alpha",
    ]
    assert "1 classes (owl) have no training images but bad ones; nothing was written" in err
    assert "mend them or add others, or re-encode" in err and "--skip_bad" not in err


@pytest.mark.parametrize(
    "change", ["--path", "--test_fraction=0.4", "--seed=1", "--channels=3", None]
)
def test_prepared_is_said_of_the_same_images_alone(tmp_path, capsys, change):
    fill(tmp_path / "birds", {"owl": 3, "wren": 3})
    fill(tmp_path / "fish", {"cod": 3, "eel": 3})
    assert run(tmp_path / "birds", tmp_path) == 0
    other = tmp_path / ("fish" if change == "--path" else "birds" if change else "fish/../birds")
    again = run(other, tmp_path, *([change] if change and change != "--path" else []))
    out, err = capsys.readouterr()
    if change:
        assert again == 2 and "already prepared" not in out
        assert re.search("already prepared in .*birds, 0.2 of .*choose another --name, or", err)
    else:
        assert again == 0 and "my_birds: already prepared in" in out


def test_unusual_images_stop_are_left_out_or_are_converted(tmp_path, capsys):
    birds = tmp_path / "birds"
    fill(birds, {"owl": 2, "wren": 2})
    turned = Image.Exif()
    turned[0x0112] = 6
    (birds / "owl" / "grey.jpg").write_bytes(encode("L", kind="JPEG"))
    (birds / "owl" / "turned.jpg").write_bytes(encode(kind="JPEG", exif=turned))
    (birds / "wren" / "alpha.png").write_bytes(encode("RGBA"))
    assert run(birds, tmp_path / "stop", "--test_fraction=0") == 2
    out, err = capsys.readouterr()
    listed = (tmp_path / "stop" / "my_birds_problems.txt").read_text().splitlines()
    assert listed == [
        "train: owl/grey.jpg: grey",
        "train: owl/turned.jpg: EXIF rotation",
        "train: wren/alpha.png: alpha",
    ]
    assert all(line in out for line in listed)
    assert re.search("3 of 7 images .*--skip_bad.*--convert; .*--channels=3$", err.splitlines()[-1])

    assert run(birds, tmp_path / "skip", "--test_fraction=0", "--skip_bad") == 0
    out = capsys.readouterr().out
    assert "train: 4 images" in out and "were left out: 3" in out

    (birds / "wren" / "cut.jpg").write_bytes(encode(kind="JPEG")[:-100])
    (birds / "wren" / "dead.jpg").symlink_to("nothing")
    assert run(birds, tmp_path / "both", "--test_fraction=0", "--convert") == 2
    out = capsys.readouterr().out
    assert "wren/cut.jpg: cut off" in out and "wren/dead.jpg: empty, or cannot be opened" in out
    assert run(birds, tmp_path / "both", "--test_fraction=0", "--convert", "--skip_bad") == 0
    out = capsys.readouterr().out
    assert "train: 7 images" in out and "were left out: 2" in out
    assert "converted to PNG: 1 EXIF rotation, 1 alpha, 1 grey" in out
