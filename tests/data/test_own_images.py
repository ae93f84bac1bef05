"""Images of one's own in the forms that people have them: tables, Hugging Face, WebDataset."""

import csv
import io
import json
import sys
import tarfile
from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.data import __main__ as command
from fixed_head_jax.data import open_dataset
from fixed_head_jax.data.preparing import huggingface, labels_file, own_splits, webdataset_shards
from fixed_head_jax.data.preparing.own_images import prepare_own_images

NAMES = ("owl", "cat", "ant")  # not sorted: the order is the dataset's own


def encode(level):
    file = io.BytesIO()
    Image.fromarray(np.full((5, 4, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def read(name, split, data_dir):
    """Returns the class name of each level of a split's images."""
    source = open_dataset(name, split, str(data_dir), image_size=4).source
    images, labels = source.read(np.arange(len(source)))
    levels = images[:, 0, 0, 0].tolist()
    return {level: source.class_names[i] for level, i in zip(levels, labels, strict=True)}, source


# Of all forms: image i is of level 10 i and class i % 3.
EXPECTED = {10 * i: NAMES[i % 3] for i in range(12)}


def write_parquet(file, rows, label="label", names=NAMES, extra=None):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra formats")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra formats")
    columns = {
        "image": [{"bytes": encode(10 * i), "path": f"{i}.png"} for i in rows],
        label: [i % 3 if names else NAMES[i % 3] for i in rows],
        **(extra or {}),
    }
    features = {"image": {"_type": "Image"}}
    if names:
        features[label] = {"_type": "ClassLabel", "names": list(names)}
    table = pyarrow.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".arrow":
        with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_stream(out, table.schema) as w:
            w.write_table(table, max_chunksize=5)
    else:
        parquet.write_table(table, file, row_group_size=3)


def write_shard(file, rows, label):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for i in rows:
            members = {f"{i:03}.png": encode(10 * i), **{f"{i:03}{e}": v for e, v in label(i)}}
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    "files",
    [
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
         "data/validation-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/train/0001.parquet",
         "default/validation/0000.parquet"),
        ("train/data-00000-of-00002.arrow", "train/data-00001-of-00002.arrow",
         "validation/data-00000-of-00001.arrow"),
    ],
    ids=["hub", "converter", "save_to_disk"],
)  # fmt: skip
def test_hugging_face_files(tmp_path, capsys, files):
    for file, rows in zip(files, (range(4), range(4, 9), range(9, 12)), strict=True):
        write_parquet(tmp_path / "birds" / file, rows)
    name = prepare_own_images(f"hf:{tmp_path / 'birds'}", str(tmp_path / "data"))
    assert name.startswith("hf_birds_")
    assert "3 classes; images: 9 train, 3 validation" in capsys.readouterr().out
    train, source = read(name, "train", tmp_path / "data")
    assert source.class_names == NAMES
    assert train | read(name, "validation", tmp_path / "data")[0] == EXPECTED
    assert prepare_own_images(f"hf:{tmp_path / 'birds'}", str(tmp_path / "data")) == name


def test_hugging_face_labels_that_are_names_or_need_choosing(tmp_path):
    write_parquet(tmp_path / "text" / "train.parquet", range(12), "kind", None)
    definition = huggingface.read(f"{tmp_path / 'text'}#kind")
    assert definition.class_names == ("ant", "cat", "owl") and set(definition.splits) == {
        *("train", "test"),
    }
    with pytest.raises(ValueError, match="no column that is plainly the label; add #COLUMN"):
        huggingface.read(str(tmp_path / "text"))
    assert huggingface.read(str(tmp_path / "text"), unlabelled=True).class_names == ()
    both = {"labels": [0] * 12}
    write_parquet(tmp_path / "two" / "train.parquet", range(12), extra=both)
    with pytest.raises(ValueError, match="labels may be label or labels; add #COLUMN .* #label"):
        huggingface.read(str(tmp_path / "two"))
    assert huggingface.read(f"{tmp_path / 'two'}#label").class_names == NAMES
    with pytest.raises(ValueError, match="no column 'x' among image, label, labels"):
        huggingface.read(f"{tmp_path / 'two'}#x")
    (tmp_path / "two" / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="cannot be read"):
        huggingface.read(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="has no .parquet or .arrow files"):
        huggingface.read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (lambda i: [(".cls", str(i % 3).encode())], NAMES),
        (lambda i: [(".cls", NAMES[i % 3].encode())], None),
        (lambda i: [(".json", json.dumps({"label": i % 3}).encode())], NAMES),
    ],
    ids=["numbers and classes.txt", "names", "json"],
)
def test_webdataset_shards(tmp_path, capsys, label, names):
    pytest.importorskip("webdataset", reason="needs the extra formats")
    for shard, rows in (
        ("train-000", range(5)),
        ("train-001", range(5, 9)),
        ("val-0", range(9, 12)),
    ):
        write_shard(tmp_path / "birds" / f"{shard}.tar", rows, label)
    if names:
        (tmp_path / "birds" / "classes.txt").write_text("\n".join(names) + "\n")
    name = prepare_own_images(f"wds:{tmp_path / 'birds'}", str(tmp_path / "data"))
    assert "3 classes; images: 9 train, 3 val" in capsys.readouterr().out
    train, source = read(name, "train", tmp_path / "data")
    assert source.class_names == (names or tuple(sorted(NAMES)))
    assert train | read(name, "val", tmp_path / "data")[0] == EXPECTED
    pattern = f"{tmp_path / 'birds'}/train-{{000..001}}.tar"
    definition = webdataset_shards.read(pattern, fraction=0.5)
    assert set(definition.splits) == {"train", "test"} and sum(definition.counts.values()) == 9


def test_shards_that_are_wrong(tmp_path):
    pytest.importorskip("webdataset", reason="needs the extra formats")
    write_shard(tmp_path / "a.tar", range(3), lambda i: [])
    with pytest.raises(ValueError, match="'000' of a.tar has no .cls, .*set data.unlabelled=True"):
        webdataset_shards.read(str(tmp_path))
    definition = webdataset_shards.read(str(tmp_path), unlabelled=True)
    assert [example.label for example in definition.splits["train"]()] == [-1] * 3
    with pytest.raises(ValueError, match="shards that are not there: .*b.tar"):
        webdataset_shards.read(str(tmp_path / "b.tar"))
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ValueError, match="cannot be read"):
        webdataset_shards.read(str(tmp_path))


@pytest.fixture
def folder(tmp_path):
    """Images 0.png to 11.png, half of them in a folder."""
    for i in range(12):
        place = tmp_path / "photos" / ("inner" * (i % 2))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(encode(10 * i))
    return tmp_path / "photos"


def write_table(folder, rows, head=None, name="labels.csv"):
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows([*([head] if head else []), *rows])
    return folder / name


PLACES = [f"inner/{i}.png" if i % 2 else f"{i}.png" for i in range(12)]


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (None, lambda i: (PLACES[i], NAMES[i % 3])),
        (("Class", "other", "file_name"), lambda i: (NAMES[i % 3], "x", f"{i}.png")),
        (("id", "breed"), lambda i: (str(i), NAMES[i % 3])),
        (("image", "label", "split"),
         lambda i: (PLACES[i], NAMES[i % 3], "train" if i < 9 else "test")),
    ],
    ids=["no head", "head", "stems", "splits"],
)  # fmt: skip
def test_a_table_of_labels(folder, tmp_path, head, row):
    table = write_table(folder, [row(i) for i in range(12)], head)
    name = prepare_own_images(table, str(tmp_path / "data"))
    train, source = read(name, "train", tmp_path / "data")
    test, _ = read(name, "test", tmp_path / "data")
    assert source.class_names == ("ant", "cat", "owl") and train | test == EXPECTED
    assert (
        set(test) == {90, 100, 110} if len(head or ()) == 3 and "split" in head else len(test) > 1
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("0.png", "owl"), ("9.jpg", "cat")], "1 of 2 files are not in .*: 9.jpg"),
        ([("0.png", "owl"), ("0.png", "cat")], "2 files that are named before: '0.png' .line 1."),
        ([("0.png", "owl"), ("2.png", " ")], "1 files without a label: '2.png' .line 2."),
        ([("0.png", "owl"), ("2.png", "owl")], "at least 2 classes, got 1: owl"),
        ([("0.png",)], "must have a column named file"),
        ([("0.png", "owl"), ("2.png",)], "1 lines have fewer cells than the first, such as line 2"),
        ([], "must have a column named file"),
    ],
)
def test_tables_that_are_wrong(folder, rows, message):
    with pytest.raises(ValueError, match=message):
        labels_file.read(write_table(folder, rows))


def test_the_command_takes_them_all(folder, tmp_path, capsys):
    table = write_table(folder, [(PLACES[i], 10 - i % 3) for i in range(11)], name="../l.csv")
    arguments = ["prepare", "image_folder", f"--path={folder}", "--name=mine"]
    arguments += [f"--data_dir={tmp_path / 'data'}", f"--labels={table}"]
    assert command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "left out, not named by the labels: 1 images" in out and "mine: 3 classes" in out
    assert read("mine", "train", tmp_path / "data")[1].class_names == ("8", "9", "10")
    assert command.main(arguments) == 0 and "already prepared" in capsys.readouterr().out
    assert command.main([*arguments, "--test_fraction=0.5"]) == 2
    assert "of something else" in capsys.readouterr().err
    arguments[2:4] = [f"--path={folder}", "--name=loose"]
    assert command.main([*arguments[:-1], "--unlabelled"]) == 0
    assert "loose: no labels" in capsys.readouterr().out
    assert command.main([*arguments[:-1], "--labels=x.csv", "--unlabelled"]) == 2
    assert "'x.csv' is for a folder of images" in capsys.readouterr().err


def test_what_is_not_installed_says_how_to(tmp_path, monkeypatch):
    (tmp_path / "a.tar").touch()
    (tmp_path / "a.parquet").touch()
    for name, kind in (("pyarrow", "hf"), ("webdataset", "wds")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=r"pip install 'fixed_head_jax\[formats\]'"):
            prepare_own_images(f"{kind}:{tmp_path}/*.tar" if kind == "wds" else f"hf:{tmp_path}")


def test_classes_are_held_out_alike():
    labels = np.array([0] * 10 + [1] * 1 + [2] * 5)
    out = own_splits.held_out(labels, 0.2, 0)
    assert np.bincount(labels[out], minlength=3).tolist() == [2, 0, 1]


def test_names_of_classes_may_stand_in_the_card_of_a_dataset(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra formats")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra formats")
    rows = {"img": [encode(10 * i) for i in range(12)], "kind": [i % 3 for i in range(12)]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "train.parquet")  # bytes, no metadata
    names = "".join(f"          '{i}': {name}\n" for i, name in enumerate(NAMES))
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: img\n    dtype: image\n  - name: kind\n"
        f"    dtype:\n      class_label:\n        names:\n{names}---\n# Birds\n"
    )
    definition = huggingface.read(str(tmp_path))
    assert definition.class_names == NAMES
    found = {e.encoded: NAMES[e.label] for part in definition.splits.values() for e in part()}
    assert found == {encode(level): name for level, name in EXPECTED.items()}
    (tmp_path / "README.md").write_text("---\ndataset_info: [1, 2\n---\n")
    with pytest.raises(ValueError, match="README.md' does not describe classes as cards do"):
        huggingface.read(str(tmp_path))


def test_a_split_whose_labels_nobody_knows_is_left_out(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra formats")
    write_parquet(tmp_path / "train.parquet", range(12))
    write_parquet(tmp_path / "test.parquet", range(12), extra={"label": [-1] * 12})
    definition = huggingface.read(str(tmp_path))
    assert definition.left_out == "left out, splits without labels: test"
    assert sum(definition.counts.values()) == 12 and set(definition.splits) == {"train", "test"}
    write_parquet(tmp_path / "test.parquet", range(12), extra={"label": [-1] * 11 + [0]})
    with pytest.raises(ValueError, match="11 images of the split 'test' have no label"):
        huggingface.read(str(tmp_path))


def test_exchanged_labels_are_another_dataset(folder, tmp_path):
    names = set()
    for shift in (0, 1):
        table = write_table(folder, [(PLACES[i], NAMES[(i + shift) % 3]) for i in range(12)])
        names.add(prepare_own_images(table, str(tmp_path / "data")))
    assert len(names) == 2


@pytest.mark.parametrize(
    ("path", "split"),
    [("data/train-00000-of-00003.parquet", "train"), ("birds-val-000.tar", "val"),
     ("Test/0.parquet", "test"), ("training.tar", None), ("extra-000.tar", None),
     ("imagenet1k-validation-00.tar", "validation"), ("test/train-000.tar", "train")],
)  # fmt: skip
def test_splits_are_words_of_a_path(path, split):
    assert own_splits.split_of(PurePath(path)) == split


def test_numbers_are_places_and_texts_are_names():
    names = ("7", "2", "0")
    assert own_splits.number_classes([0, 2, 1], names)[1].tolist() == [0, 2, 1]
    assert own_splits.number_classes(["0", "7", "2"], names)[1].tolist() == [2, 0, 1]
    assert own_splits.number_classes(["10", "9", "-1"])[0] == ("-1", "9", "10")
    for labels, classes, message in (
        ([0, 3, -1], names, "none of the 3 classes: -1, 3; mend"),
        ([0, 1], ("a", "a"), "there twice, .*: 'a'; rename"),
        ([0, 1], ("a", " b"), "blanks at their ends .*: ' b'; rename"),
        (["", "a"], None, "names that are empty"),
    ):
        with pytest.raises(ValueError, match=message):
            own_splits.number_classes(labels, classes)


def test_draws_that_cannot_be(folder):
    table = write_table(folder, [(PLACES[i], NAMES[i % 3]) for i in range(12)])
    for options in ({"fraction": 1.5}, {"seed": -1}):
        with pytest.raises(ValueError, match="test_fraction must be in"):
            labels_file.read(table, **options)


def test_tables_with_a_split_first_and_blank_lines(folder):
    splits = ["Train" if i < 9 else "test" for i in range(12)]
    rows = [(splits[i], f"./{PLACES[i]}", NAMES[i % 3]) for i in range(12)]
    definition = labels_file.read(write_table(folder, rows[:-1], ("split", "path", "class")))
    assert definition.counts == {"train": 9, "test": 2}
    assert definition.left_out == "left out, not named by the labels: 1 images: inner/11.png"
    rows = [("path", "class"), ("0.png", "a"), (), ("2.png", "")]
    with pytest.raises(ValueError, match="1 files without a label: '2.png' .line 4.; mend"):
        labels_file.read(write_table(folder, rows))
    with pytest.raises(ValueError, match="2 lines name an image that another one names.*0.png, 0;"):
        labels_file.read(write_table(folder, [("0.png", "a"), ("0", "b"), ("2.png", "b")]))
    (folder / "inner" / "0.png").write_bytes(encode(7))  # 0.png is still the one named in full
    definition = labels_file.read(write_table(folder, [("0.png", "a"), ("2.png", "b")]), None, 0.0)
    assert [example.name for example in definition.splits["train"]()] == ["0.png", "2.png"]
    with pytest.raises(ValueError, match="1 names are of several files .*folders too: 0$"):
        labels_file.read(write_table(folder, [("0", "a"), ("2.png", "b")]))


CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: kind
    dtype:
      class_label:
        names:
          '0': owl
          '2': ant
          '1': cat
---
# Birds
"""


def write_plain(file, rows, labels):
    """Writes parquet as pandas does, without what the datasets library adds."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra formats")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra formats")
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"image": [encode(10 * i) for i in rows], "kind": labels})
    parquet.write_table(table, file)


def test_classes_of_a_card_and_splits_that_are_left_out(tmp_path, capsys):
    data = tmp_path / "birds" / "data"
    write_plain(data / "train-00000-of-00001.parquet", range(12), [i % 3 for i in range(12)])
    write_plain(data / "test-00000-of-00001.parquet", range(2), [-1, -1])
    write_plain(data / "extra-00000-of-00001.parquet", range(2), [0, 1])
    (tmp_path / "birds" / "README.md").write_text(CARD)
    name = prepare_own_images(f"hf:{tmp_path / 'birds'}", str(tmp_path / "data"))
    out = capsys.readouterr().out
    assert "3 classes: owl, cat, ant\n" in out and "3 classes; images: 9 train, 3 test" in out
    assert "files named for no split: extra-00000-of-00001.parquet; left out, splits without" in out
    train, source = read(name, "train", tmp_path / "data")
    assert source.class_names == NAMES
    assert train | read(name, "test", tmp_path / "data")[0] == EXPECTED
    (tmp_path / "birds" / "README.md").write_text(CARD.replace("owl", "elf"))
    assert prepare_own_images(f"hf:{tmp_path / 'birds'}", str(tmp_path / "data")) != name
    (tmp_path / "birds" / "README.md").write_text("---\ndataset_info: [\n---\n")
    with pytest.raises(ValueError, match="README.md' does not describe classes"):
        huggingface.read(str(tmp_path / "birds"))


def test_a_card_of_several_configurations(tmp_path):
    info = CARD.split("---\n")[1].replace("dataset_info:\n", "").replace("\n  ", "\n    ")
    infos = f"dataset_info:\n- config_name: a\n  {info.strip()}\n- config_name: b\n  features: []\n"
    (tmp_path / "README.md").write_text(f"---\n{infos}---\n")
    for place in "ab":
        write_plain(tmp_path / place / "train-0.parquet", range(6), [i % 3 for i in range(6)])
    assert huggingface.read(f"{tmp_path / 'a'}", 0.5).class_names == NAMES
    assert huggingface.read(f"{tmp_path / 'b'}#kind", 0.5).class_names == ("0", "1", "2")
    with pytest.raises(ValueError, match="'train' lie in several folders .*: a, b; name one"):
        huggingface.read(str(tmp_path))


def test_labels_that_are_missing(tmp_path):
    write_plain(tmp_path / "train.parquet", range(6), [0, 1, None, 0, 1, 2])
    with pytest.raises(ValueError, match="1 images of the split 'train' have no label"):
        huggingface.read(f"{tmp_path}#kind")
    write_plain(tmp_path / "train.parquet", range(2), ["a", "b"])
    write_parquet(tmp_path / "test.parquet", range(2))
    with pytest.raises(ValueError, match="have other columns than each other"):
        huggingface.read(f"{tmp_path}#kind")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ((".json", b"{"), "'000' of train.tar has a label that cannot be read"),
        ((".json", b'{"label": [1]}'), r"has the label \[1\]; it must be a whole number or a name"),
        ((".json", b'{"label": null}'), "3 images of the split 'train' have no label"),
        ((".json", b'[{"label": 1}]'), "'000' of train.tar has no .cls, and no .json with a label"),
        ((".cls", b"\xff"), "'000' of train.tar has a label that cannot be read"),
        ((".cls", b"5"), "none of the 2 classes: 5"),
    ],
)
def test_labels_of_shards_that_are_wrong(tmp_path, label, message):
    pytest.importorskip("webdataset", reason="needs the extra formats")
    write_shard(tmp_path / "train.tar", range(3), lambda i: [label])
    (tmp_path / "classes.txt").write_text("a\nb\n\n")
    with pytest.raises(ValueError, match=message):
        webdataset_shards.read(str(tmp_path))


def test_shards_without_images_and_cut_off(tmp_path):
    pytest.importorskip("webdataset", reason="needs the extra formats")
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.left.png"))
    with pytest.raises(ValueError, match="there is no image in train.tar; members .*KEY.jpg"):
        webdataset_shards.read(str(tmp_path))
    write_shard(tmp_path / "train.tar", range(12), lambda i: [(".cls", str(i % 3).encode())])
    whole = (tmp_path / "train.tar").read_bytes()
    (tmp_path / "train.tar").write_bytes(whole[:7000])
    with pytest.raises(ValueError, match="cannot be read"):
        webdataset_shards.read(str(tmp_path))


def test_parquet_files_are_not_kept_in_memory(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra formats")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra formats")
    size, rng = 2**15, np.random.default_rng(0)
    rows = {"image": [rng.bytes(size) for _ in range(512)], "label": [i % 2 for i in range(512)]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "train.parquet", row_group_size=32)
    del rows
    definition = huggingface.read(str(tmp_path), fraction=0.0)
    before, most = pyarrow.total_allocated_bytes(), 0
    for _ in definition.splits["train"]():
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 256 * size
