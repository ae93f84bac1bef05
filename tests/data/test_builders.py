"""Definitions of datasets, from small archives in the official layout."""

import json

import cv2
import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits

from fixed_head_jax.data.builders import DEFINITIONS
from tests.data.small_archives import labels, names_as_content, refuses, tar, write

OFFICIAL = sorted(set(DEFINITIONS) - {"digits"})


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
