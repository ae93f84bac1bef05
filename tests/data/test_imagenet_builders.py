"""Definitions of ImageNet, its subsets and ImageNet-LT, from small archives."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from fixed_head_jax.data.builders import DEFINITIONS, imagenet_subset
from tests.data.small_archives import labels, names_as_content, refuses, tar, write

# ImageNet

WNIDS = ["n01440764", "n02099601", "n03000247", "n07747607"]
VALIDATION = [2, 0, 3, 1, 0, 2]  # classes of the validation images, by number from 1
TRAIN_FILES = [f"{wnid}_{i}.JPEG" for wnid in WNIDS for i in (10, 7, 33)]


def validation_file(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def write_imagenet(folder: Path, layout: str) -> None:
    """Writes ImageNet as the official archives or as a folder for each class."""
    if layout == "folders":
        train = [f"train/{file.split('_')[0]}/{file}" for file in TRAIN_FILES]
        val = [f"val/{WNIDS[k]}/{validation_file(i)}" for i, k in enumerate(VALIDATION, 1)]
        write(folder, "train", names_as_content([*train, "train/n01440764/notes.txt"]))
        write(folder, "val", names_as_content(val))
        return
    inner = {
        f"{wnid}.tar": tar(names_as_content(f for f in TRAIN_FILES if f.startswith(wnid)))
        for wnid in reversed(WNIDS)
    }
    write(folder, "ILSVRC2012_img_train.tar", inner)
    val = [validation_file(i) for i in range(1, len(VALIDATION) + 1)]
    write(folder, "ILSVRC2012_img_val.tar", names_as_content(val))
    # The numbers of the development kit are not in the order of the WNIDs.
    number_of = {0: 40, 1: 20, 2: 30, 3: 10}
    synsets = np.empty((4, 1), [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for k, number in number_of.items():
        synsets[k, 0] = (number, WNIDS[k], "a, b")
    savemat(meta := io.BytesIO(), {"synsets": synsets})
    truth = "".join(f"{number_of[k]}\n" for k in VALIDATION)
    data = "ILSVRC2012_devkit_t12/data/"
    files = {
        data + "ILSVRC2012_validation_ground_truth.txt": truth.encode(),
        data + "meta.mat": meta.getvalue(),
    }
    write(folder, "ILSVRC2012_devkit_t12.tar.gz", files)


def write_subset(folder: Path, monkeypatch, num_classes: int, members: list[int]) -> None:
    wnids = [WNIDS[k] for k in members]
    sha256 = hashlib.sha256("\n".join(wnids).encode()).hexdigest()[:16]
    monkeypatch.setitem(imagenet_subset.SHA256, num_classes, sha256)
    lines = [f"{wnid} Some Animal\n" for wnid in wnids]
    (folder / f"imagenet_{num_classes}.txt").write_text("".join(lines))


@pytest.mark.parametrize("layout", ["archives", "folders"])
@pytest.mark.parametrize("num_classes, members", [(50, [2]), (100, [1, 2]), (200, [0, 2, 3])])
def test_imagenet_subsets_hold_the_classes_of_the_list(
    tmp_path, monkeypatch, layout, num_classes, members
):
    write_imagenet(tmp_path, layout)
    write_subset(tmp_path, monkeypatch, num_classes, members)
    definition = DEFINITIONS[f"imagenet_{num_classes}"](tmp_path)
    assert definition.counts == {"validation": 50 * num_classes}
    assert definition.class_names == tuple(WNIDS[k] for k in members)
    assert labels(definition, "train") == {
        f"train/{WNIDS[k]}/{file}": label
        for label, k in enumerate(members)
        for file in TRAIN_FILES
        if file.startswith(WNIDS[k])
    }
    assert labels(definition, "validation") == {
        f"val/{validation_file(i)}": members.index(k)
        for i, k in enumerate(VALIDATION, 1)
        if k in members
    }


def test_the_checksums_are_the_published_ones():
    assert imagenet_subset.SHA256 == {
        50: "ac8134b3c52e7579",
        100: "fe8959b5f87ec663",
        200: "fca8e3dd52db9f95",
    }


def test_another_list_of_classes_is_refused(tmp_path):
    write_imagenet(tmp_path, "folders")
    (tmp_path / "imagenet_50.txt").write_text("n01440764 tench\n")
    message = "the sha256 of its 1 WNIDs starts with [0-9a-f]{16}, not ac8134b3c52e7579; get it"
    refuses("imagenet_50", tmp_path, message)


def test_imagenet_needs_its_development_kit(tmp_path, monkeypatch):
    write_imagenet(tmp_path, "archives")
    write_subset(tmp_path, monkeypatch, 50, [0, 1])
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    data = "ILSVRC2012_devkit_t12/data/"
    files = [data + "ILSVRC2012_validation_ground_truth.txt", data + "meta.mat"]
    write(tmp_path, kit.name, names_as_content(files))
    refuses("imagenet_50", tmp_path, "cannot read the classes in '.*devkit_t12.tar.gz'")
    kit.unlink()
    refuses("imagenet_50", tmp_path, "no ILSVRC2012_devkit_t12.tar.gz or ILSVRC2012_devkit_t12 in")


# ImageNet-LT


def write_lt(folder: Path, **changes: str) -> dict[str, dict[str, int]]:
    train = [f"train/{file.split('_')[0]}/{file}" for file in TRAIN_FILES]
    train = {name: WNIDS.index(name.split("/")[1]) for name in train}
    lists = {
        "train": {name: label for name, label in train.items() if not name.endswith("_33.JPEG")},
        "val": {name: label for name, label in train.items() if name.endswith("_33.JPEG")},
        "test": {f"val/{validation_file(i)}": k for i, k in enumerate(VALIDATION, 1)},
    }
    for split, listed in lists.items():
        lines = [f"{name} {label}" for name, label in reversed(listed.items())]
        text = changes.get(split, "\n".join(lines) + "\n")
        (folder / f"ImageNet_LT_{split}.txt").write_text(text)
    return lists


@pytest.mark.parametrize("layout", ["archives", "folders", "flat"])
def test_imagenet_lt_goes_by_its_lists(tmp_path, layout):
    write_imagenet(tmp_path, "archives" if layout == "archives" else "folders")
    if layout == "flat":
        for path in list((tmp_path / "val").glob("*/*")):
            path.rename(tmp_path / "val" / path.name)
    lists = write_lt(tmp_path)
    definition = DEFINITIONS["imagenet_lt"](tmp_path)
    assert definition.counts == {"train": 115_846, "validation": 20_000, "test": 50_000}
    assert definition.class_names == tuple(WNIDS)
    assert labels(definition, "train") == lists["train"]
    assert labels(definition, "validation") == lists["val"]
    assert labels(definition, "test") == lists["test"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(val="n01440764_10.JPEG 0\n"), "line 'n01440764_10.JPEG 0' of .*val.txt' is not"),
        (dict(train="train/n01440764/n01440764_10.JPEG\n"), "line .* is not 'train/... label'"),
        (dict(test=""), "ImageNet_LT_test.txt' is empty"),
        (dict(test="val/ILSVRC2012_val_00000001.JPEG 4\n"), "LT_test.txt has labels that"),
        (dict(train="train/a/a_1.JPEG 0\ntrain/b/b_1.JPEG 0\n"), "its 2 classes one label each"),
        (dict(train="train/a/a_1.JPEG 1\ntrain/b/b_1.JPEG 2\n"), "its 2 classes one label each"),
        (
            dict(test="val/ILSVRC2012_val_00000007.JPEG 1\nval/ILSVRC2012_val_00000001.JPEG 2\n"),
            "1 of the 2 files of ImageNet_LT_test.txt are not in '.*val.tar', among .*00000007",
        ),
    ],
)
def test_imagenet_lt_lists_must_fit(tmp_path, changes, message):
    write_imagenet(tmp_path, "archives")
    write_lt(tmp_path, **changes)
    refuses("imagenet_lt", tmp_path, message)
