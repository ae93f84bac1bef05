"""Definitions of datasets, from small archives in the official layout."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits

from fixed_head_jax.data.builders import DEFINITIONS, imagenet_subset

OFFICIAL = sorted(set(DEFINITIONS) - {"digits"})


def names_as_content(names) -> dict[str, bytes]:
    """Returns files that hold their own names: definitions never look into an image."""
    return {name: name.encode() for name in names}


def tar(files: dict[str, bytes], mode: str = "w:") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return target.getvalue()


def write(folder: Path, archive: str, files: dict[str, bytes]) -> None:
    """Writes an archive, or, where it has no suffix, the files themselves."""
    if "." in archive:
        (folder / archive).write_bytes(tar(files, "w:" if archive.endswith(".tar") else "w:gz"))
        return
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def labels(definition, split: str) -> dict[str, int]:
    """Returns name -> label of a split, after checking that every image is what it is called."""
    examples = list(definition.splits[split]())
    assert examples == list(definition.splits[split]())
    assert all(Path(e.name).name == Path(e.encoded.decode()).name for e in examples)
    found = {example.name: example.label for example in examples}
    assert len(found) == len(examples)
    return found


def refuses(name: str, folder: Path | None, message: str) -> str:
    with pytest.raises(ValueError, match=message) as caught:
        definition = DEFINITIONS[name](folder)
        for split in definition.splits:
            list(definition.splits[split]())
    assert "\n" not in str(caught.value)
    return str(caught.value)


# All of them


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_missing_archive_is_named_with_its_place_and_home(tmp_path, name):
    message = refuses(name, tmp_path, "^no .* in manual_dir .*; get it from https://")
    assert repr(str(tmp_path)) in message and len(message) < 300
    refuses(name, None, "manual_dir is not set; .* holds .* https://")


def test_digits_are_those_of_sklearn():
    definition = DEFINITIONS["digits"](None)
    assert definition.counts == {"train": 1442, "test": 355}
    assert (definition.channels, definition.image_shape, definition.shuffled) == (
        1,
        (8, 8, 1),
        False,
    )
    assert definition.class_names == tuple("0123456789")
    reference, order = load_digits(), {}
    for split, count in definition.counts.items():
        examples = list(definition.splits[split]())
        assert len(examples) == count
        order[split] = [int(example.name) for example in examples]
        images = [
            cv2.imdecode(np.frombuffer(e.encoded, np.uint8), cv2.IMREAD_UNCHANGED) for e in examples
        ]
        expected = np.round(reference.images[order[split]] * 255 / 16)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal([e.label for e in examples], reference.target[order[split]])
    assert sorted(order["train"] + order["test"]) == list(range(1797))
    for label in range(10):
        members = np.flatnonzero(reference.target == label)
        assert [i for i in order["test"] if reference.target[i] == label] == members[4::5].tolist()


# FGVC Aircraft

AIRCRAFT = "fgvc-aircraft-2013b/data"


def write_aircraft(folder, archive, **changes):
    lists = {
        "variants": "707-320\nF-16A/B\nModel B200\n",
        "images_variant_train": "0000003 Model B200\n0000001 707-320\n",
        "images_variant_val": "0000005 F-16A/B\n",
        "images_variant_test": "0000004 Model B200\n0000002 F-16A/B\n",
        "images_variant_trainval": "not read",
        **changes,
    }
    files = {f"{AIRCRAFT}/{name}.txt": text.encode() for name, text in lists.items()}
    images = names_as_content(f"{AIRCRAFT}/images/{i:07}.jpg" for i in range(1, 6))
    readme = {"fgvc-aircraft-2013b/README.html": b""}
    write(folder, archive, {**readme, **images, **files})


@pytest.mark.parametrize("archive", ["fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b"])
def test_aircraft_has_one_list_of_classes(tmp_path, archive):
    write_aircraft(tmp_path, archive)
    definition = DEFINITIONS["fgvc_aircraft"](tmp_path)
    assert definition.counts == {"train": 3334, "validation": 3333, "test": 3333}
    assert definition.class_names == ("707-320", "F-16A/B", "Model B200")
    path = AIRCRAFT + "/images/{:07}.jpg"
    assert labels(definition, "train") == {path.format(1): 0, path.format(3): 2}
    assert labels(definition, "validation") == {path.format(5): 1}
    assert labels(definition, "test") == {path.format(2): 1, path.format(4): 2}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images_variant_val": "0000005 F-16\n"}, "line '0000005 F-16' of .*val.txt.* no variant"),
        ({"images_variant_test": "1 707-320\n2 707-320\n"}, "2 of the 2 files of .*test.txt"),
    ],
)
def test_aircraft_lists_must_fit(tmp_path, change, message):
    write_aircraft(tmp_path, "fgvc-aircraft-2013b.tar.gz", **change)
    refuses("fgvc_aircraft", tmp_path, message)


def test_aircraft_needs_its_lists(tmp_path):
    write(tmp_path, "fgvc-aircraft-2013b.tar.gz", names_as_content([f"{AIRCRAFT}/variants.txt"]))
    refuses("fgvc_aircraft", tmp_path, "3 of the 4 files of .*, among them '.*_test.txt'")


# Caltech-256

CALTECH = {"001.ak47": 60, "056.dog": 51, "198.spider": 50, "257.clutter": 52}
STRAYS = [
    "256_ObjectCategories/198.spider/RENAME2",
    "256_ObjectCategories/056.dog/greg/vision309/056_0001.jpg",
    "256_ObjectCategories/056.dog/._056_0001.jpg",
    "256_ObjectCategories/056_0001.jpg",
    "256_ObjectCategories/300.empty/Thumbs.db",
]


@pytest.mark.parametrize("archive", ["256_ObjectCategories.tar", "256_ObjectCategories"])
@pytest.mark.parametrize("clutter", [False, True])
def test_caltech_splits_by_the_number_of_the_image(tmp_path, archive, clutter):
    path = "256_ObjectCategories/{0}/{1}_{2:04}.jpg".format
    images = [path(c, c[:3], i) for c, count in CALTECH.items() for i in range(1, count + 1)]
    write(tmp_path, archive, names_as_content([*STRAYS, *reversed(images)]))
    definition = DEFINITIONS["caltech256_30" + "_clutter" * clutter](tmp_path)
    classes = list(CALTECH)[: 3 + clutter]
    assert definition.class_names == tuple(classes)
    spans = {"train": (1, 30), "validation": (31, 50), "test": (51, 60)}
    for split, (first, last) in spans.items():
        assert labels(definition, split) == {
            path(name, name[:3], number): label
            for label, name in enumerate(classes)
            for number in range(first, min(last, CALTECH[name]) + 1)
        }
    expected = (7710, 5140, 17757) if clutter else (7680, 5120, 16980)
    assert tuple(definition.counts[split] for split in spans) == expected
    assert definition.counts.keys() == spans.keys()


def test_caltech_without_images_is_refused(tmp_path):
    write(tmp_path, "256_ObjectCategories.tar", names_as_content(["other/001.ak47/001_0001.jpg"]))
    refuses("caltech256_30", tmp_path, "holds no image named 256_ObjectCategories/<class>/")


def test_a_cut_archive_is_named(tmp_path):
    files = names_as_content(f"256_ObjectCategories/001.a/001_{i:04}.jpg" for i in range(1, 9))
    content = tar(files)
    (tmp_path / "256_ObjectCategories.tar").write_bytes(content[:5000])
    refuses("caltech256_30", tmp_path, "cannot read '.*256_ObjectCategories.tar'")


# Stanford Cars


def write_cars(folder, archive):
    """Writes 14 training images of class 1, 11 of class 2, and after each fifth a test image."""
    rows = []
    for number, count in ((1, 14), (2, 11)):
        for i in range(count):
            rows.append((number, 0))
            if i % 5 == 4:
                rows.append((number, 1))
    names = [f"car_ims/{i:06}.jpg" for i in range(1, len(rows) + 1)]
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    annotations = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, (number, test) in enumerate(rows):
        annotations[0, i] = (names[i], 1, 2, 3, 4, np.uint8(number), np.uint8(test))
    class_names = np.empty((1, 2), object)
    class_names[0] = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012"]
    content = {"annotations": annotations, "class_names": class_names}
    savemat(folder / "cars_annos.mat", content)
    write(folder, archive, names_as_content(names))
    return [(name, number - 1, test) for name, (number, test) in zip(names, rows, strict=True)]


@pytest.mark.parametrize("archive", ["car_ims.tgz", "car_ims"])
def test_cars_are_tuned_on_the_first_eleven_training_images(tmp_path, archive):
    rows = write_cars(tmp_path, archive)
    definition = DEFINITIONS["stanford_cars"](tmp_path)
    assert definition.counts == {"train": 5988, "validation": 2156, "test": 8041}
    assert definition.class_names == ("AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012")
    training = [[(n, label) for n, label, test in rows if label == k and not test] for k in (0, 1)]
    assert labels(definition, "train") == dict(training[0][11:])
    assert labels(definition, "validation") == dict(training[0][:11] + training[1])
    assert labels(definition, "test") == {name: label for name, label, test in rows if test}


def test_cars_need_whole_annotations(tmp_path):
    write_cars(tmp_path, "car_ims.tgz")
    content = (tmp_path / "cars_annos.mat").read_bytes()
    (tmp_path / "cars_annos.mat").write_bytes(content[:1000])
    refuses("stanford_cars", tmp_path, "is not the cars_annos.mat of https://")
    savemat(tmp_path / "cars_annos.mat", {"annotations": [1]})
    refuses("stanford_cars", tmp_path, "is not the cars_annos.mat of https://")


# iNaturalist 2019


def write_inaturalist(folder, archive, packed=False, classes=("b", "a", "c")):
    """Writes two training images and one validation image of each class, numbered downwards."""
    everything = []
    for split, per_class in (("train2019.json", 2), ("val2019.json", 1)):
        names = [
            f"train_val2019/Plants/{k}/{split[0]}{i}.jpg"
            for i in range(per_class)
            for k in (2, 0, 1)
        ]
        content = {
            "images": [{"id": 7 * i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": 0, "image_id": 7 * i, "category_id": int(names[i].split("/")[2])}
                for i in reversed(range(len(names)))
            ],
            "categories": [{"id": k, "name": classes[k]} for k in (1, 2, 0)],
        }
        text = json.dumps(content).encode()
        if packed:
            write(folder, f"{split}.tar.gz", {split: text})
        else:
            (folder / split).write_bytes(text)
        everything += names
    extra = ["train_val2019/Plants/0/unlisted.jpg"]
    write(folder, archive, names_as_content(sorted(everything) + extra))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("archive", ["train_val2019.tar.gz", "train_val2019"])
def test_inaturalist_goes_by_its_annotations(tmp_path, archive, packed):
    write_inaturalist(tmp_path, archive, packed)
    definition = DEFINITIONS["inaturalist_2019"](tmp_path)
    assert definition.counts == {"train": 265_213, "validation": 3030}
    assert definition.class_names == ("b", "a", "c")
    path = "train_val2019/Plants/{0}/{1}{2}.jpg".format
    assert labels(definition, "train") == {path(k, "t", i): k for k in range(3) for i in range(2)}
    assert labels(definition, "validation") == {path(k, "v", 0): k for k in range(3)}


def test_inaturalist_needs_whole_annotations(tmp_path):
    write_inaturalist(tmp_path, "train_val2019.tar.gz")
    path = tmp_path / "val2019.json"
    content = json.loads(path.read_text())
    path.write_text(path.read_text()[:-5])
    refuses("inaturalist_2019", tmp_path, "is not the val2019.json of https://")
    path.write_text(json.dumps({**content, "annotations": []}))
    refuses("inaturalist_2019", tmp_path, "is not the val2019.json of https://.*KeyError: 0")
    content["categories"][0]["name"] = "other"
    path.write_text(json.dumps(content))
    refuses("inaturalist_2019", tmp_path, "have not the same categories")


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
