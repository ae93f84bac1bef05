"""Superclasses of a hierarchy made up here, the worked numbers, and BREEDS where its files are.

entity - animal - mammal - dog - toy dog - c0, c1, c2, c3      (depth 5; dog is depth 3)
                               - c4                            (depth 4)
                - fish - c5                                    (depth 3)
       - thing - tool - c6                                     (depth 3)
               - c7                                            (depth 2)
       - void - nothing                                        (no class)
and c8 outside.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fixed_head_jax.evaluators import superclasses
from fixed_head_jax.evaluators.superclasses import (
    BREEDS,
    CHECKSUMS,
    FILE_CHECKSUMS,
    breeds_superclasses,
    check_imagenet,
    level_superclasses,
    mapping_checksum,
    read_hierarchy,
    superclass_metrics,
    superclass_scores,
)

TREE = """\
entity animal
animal mammal
mammal dog
dog toydog
toydog c0
toydog c1
toydog c2
toydog c3
dog c4
animal fish
fish c5
entity thing
thing tool
tool c6
thing c7
entity void
void nothing
"""
NAMES = [f"c{i}" for i in range(9)]
E1 = [1, 1, 0, 0, 0, 0, 2, 2, 2, 1]
E2 = [4, 4, 0, 0, 0, 3, 2, 2, 1, 1]


def write(folder, tree=TREE, classes=None):
    entries = [[i, name, f"class {i}"] for i, name in enumerate(NAMES)]
    (folder / "class_hierarchy.txt").write_text(tree)
    text = json.dumps(entries) if classes is None else classes
    (folder / "dataset_class_info.json").write_text(text)
    return folder


@pytest.fixture
def hierarchy(tmp_path):
    return read_hierarchy(write(tmp_path))


def contingency_of(predictions, shape):
    counts = np.zeros(shape)
    np.add.at(counts, (predictions, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]), 1)
    return counts


def test_reads_the_tree(hierarchy):
    assert hierarchy.root == "entity"
    assert hierarchy.classes == tuple(NAMES)
    assert len(hierarchy.parents) == 17 and hierarchy.parents["c4"] == "dog"


@pytest.mark.parametrize(
    "level, expected",
    [
        (0, [0, 0, 0, 0, 0, 0, 0, 0, -1]),
        (1, [0, 0, 0, 0, 0, 0, 1, 1, -1]),  # animal, thing
        (2, [2, 2, 2, 2, 2, 1, 3, 0, -1]),  # c7, fish, mammal, tool
        (3, [2, 2, 2, 2, 2, 0, 1, -1, -1]),  # c5, c6, dog
        (4, [1, 1, 1, 1, 0, -1, -1, -1, -1]),  # c4, toydog
        (5, [0, 1, 2, 3, -1, -1, -1, -1, -1]),
        (6, [-1] * 9),
    ],
)
def test_levels(hierarchy, level, expected):
    assert level_superclasses(hierarchy, level).tolist() == expected


def test_breeds_rule(hierarchy, monkeypatch):
    for name in BREEDS:
        assert breeds_superclasses(hierarchy, name).tolist() == [-1] * 9
    monkeypatch.setitem(BREEDS, "entity13", (3, 5, None))
    assert breeds_superclasses(hierarchy, "entity13").tolist() == [0] * 5 + [-1] * 4
    monkeypatch.setitem(BREEDS, "entity13", (3, 6, None))
    assert breeds_superclasses(hierarchy, "entity13").tolist() == [-1] * 9
    monkeypatch.setitem(BREEDS, "living17", (2, 1, "animal"))
    assert breeds_superclasses(hierarchy, "living17").tolist() == [1] * 5 + [0] + [-1] * 3


def test_unknown_level_and_set(hierarchy):
    with pytest.raises(ValueError, match="level=-1"):
        level_superclasses(hierarchy, -1)
    with pytest.raises(ValueError, match="entity14.*choose from entity13"):
        breeds_superclasses(hierarchy, "entity14")


@pytest.mark.parametrize(
    "tree, message",
    [
        ("a b\na b c\n", "line 2: 'a b c' is not 'parent child'"),
        ("a b\n\na c\n", "line 2: ''"),
        ("a b\na c\nb c\n", "line 3: keep one parent of 'c'"),
        ("a b\nc d\n", r"2 roots \['a', 'c'\]"),
        ("a b\nb a\n", "0 roots"),
        ("", "0 roots"),
        ("a b\nc d\nd c\n", r"cycle through \['c', 'd'\]"),
    ],
)
def test_refuses_what_is_no_tree(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        read_hierarchy(write(tmp_path, tree))


@pytest.mark.parametrize(
    "classes, message",
    [
        ("[[0, 'c0']]", "must be a list"),
        ('[[0, "c0"], 3]', "must be a list"),
        ('[[0, "c0"], [1]]', "must be a list"),
        ("[[0, 7]]", "must be a list"),
        ('[[1, "c0"], [0, "c1"]]', "'c0' has 1, not 0"),
        ('[[0, "c0"], [1, "c0"]]', "'c0' has 1, not 0"),
    ],
)
def test_refuses_malformed_classes(tmp_path, classes, message):
    with pytest.raises(ValueError, match=message):
        read_hierarchy(write(tmp_path, classes=classes))


@pytest.mark.parametrize("name", ["class_hierarchy.txt", "dataset_class_info.json"])
def test_refuses_a_missing_file(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist"):
        read_hierarchy(tmp_path)


def test_checksum():
    expected = hashlib.sha256(b"0,1,-1,12").hexdigest()[:16]
    assert mapping_checksum(np.array([0, 1, -1, 12])) == expected
    assert mapping_checksum([0, 1, -1, 12]) == expected


def test_another_tree_over_imagenet_is_refused(hierarchy, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="level2 has checksum .* sha256"):
        check_imagenet(hierarchy)
    marks = ("entity", mapping_checksum(NAMES))
    monkeypatch.setattr(superclasses, "_IMAGENET", marks)
    with pytest.raises(ValueError, match="level2 has checksum"):
        read_hierarchy(tmp_path)


def test_worked_numbers():
    mapping = np.array([0, 0, 1])
    scores = superclass_scores(contingency_of(E2, (5, 3)), mapping)
    assert list(scores) == ["nmi", "ami", "ari", "acc"]
    expected = [67.871602, 44.224087, 32.432432, 100]
    np.testing.assert_allclose(list(scores.values()), expected, rtol=0, atol=5e-7)
    assert superclass_scores(contingency_of(E1, (3, 3)), mapping)["acc"] == pytest.approx(90)


def test_only_covered_examples_count_and_no_uncovered_class_is_right():
    counts = np.array(
        [
            [7, 0, 2, 0],
            [0, 5, 0, 90],
            [3, 1, 0, 8],
            [0, 0, 0, 50],  # its examples are all uncovered
        ]
    )
    mapping = np.array([4, 4, 9, -1])
    scores = superclass_scores(counts, mapping)
    # Clusters 0, 1, 2 with labels 0, 1, 2: 0-0, 1-1 and 2-2 match 12, 2-0 and 0-2 only 10.
    assert scores["acc"] == pytest.approx(100 * 12 / 18)
    alone = superclass_scores(counts[:3, :3], mapping[:3])
    assert scores == pytest.approx(alone, rel=1e-12)


def test_a_cluster_without_a_class_of_its_own_is_wrong():
    # Two clusters, two labels that occur: one gets a column past the only class with examples.
    counts = np.array([[6, 0], [4, 1], [0, 0]])
    scores = superclass_scores(counts[:, :1], np.array([0]))
    assert scores["acc"] == pytest.approx(100)  # over-clustering: both take label 0
    scores = superclass_scores(np.array([[6, 0, 0], [4, 0, 2], [3, 0, 0]]), np.array([0, -1, 0]))
    assert scores["acc"] == pytest.approx(100)
    # As many clusters as labels, cluster 1 is given the uncovered class 1 or the class 2.
    scores = superclass_scores(np.array([[6, 0, 1], [4, 0, 0]]), np.array([0, -1, 1]))
    assert scores["acc"] == pytest.approx(100 * 6 / 11)


def test_scores_refuse():
    counts = np.array([[1, 2], [3, 0]])
    with pytest.raises(ValueError, match="mapping has 3 entries"):
        superclass_scores(counts, np.array([0, 0, 1]))
    for mapping in ([-1, -1], [-1, 0]):
        with pytest.raises(ValueError, match="no example has a covered class"):
            superclass_scores(counts * np.array([[1, 0]]), np.array(mapping))


def test_metrics_match_names_not_positions(hierarchy):
    rng = np.random.default_rng(0)
    names = ["c7", "c0", "cat", "c5", "c1", "c4", "c8", "c6"]
    counts = rng.integers(0, 9, (10, 8)) + 12 * np.eye(10, 8, dtype=np.int64)
    metrics = superclass_metrics(counts, hierarchy, names)
    mappings = {
        "level2": [0, 2, -1, 1, 2, 2, -1, 3],
        "level3": [-1, 2, -1, 0, 2, 2, -1, 1],
        "level4": [-1, 1, -1, -1, 1, 0, -1, -1],
        "level5": [-1, 0, -1, -1, 1, -1, -1, -1],
    }
    expected = {
        f"{level}/{name}": score
        for level, mapping in mappings.items()
        for name, score in superclass_scores(counts, np.array(mapping)).items()
    }
    assert metrics == pytest.approx(expected, rel=1e-12)
    assert 0 < metrics["level2/acc"] < 100


def test_metrics_leave_out_what_has_no_examples(hierarchy):
    counts = np.zeros((3, 9))
    counts[0, 7], counts[1, 5] = 4, 6
    metrics = superclass_metrics(counts, hierarchy, NAMES)
    assert {name.split("/")[0] for name in metrics} == {"level2", "level3"}
    assert metrics["level2/acc"] == metrics["level3/acc"] == 100


def test_metrics_refuse(hierarchy):
    with pytest.raises(ValueError, match="class_names has 2 names"):
        superclass_metrics(np.ones((2, 3)), hierarchy, ["c0", "c1"])
    for names in (["cat", "ship"], ["c8", "cat"]):
        with pytest.raises(ValueError, match="no class is covered"):
            superclass_metrics(np.ones((2, 2)), hierarchy, names)


@pytest.mark.skipif("SUPERCLASS_DIR" not in os.environ, reason="needs the BREEDS files")
def test_imagenet():
    folder = Path(os.environ["SUPERCLASS_DIR"])
    tree = (folder / "class_hierarchy.txt").read_bytes()
    assert hashlib.sha256(tree).hexdigest() == FILE_CHECKSUMS["class_hierarchy.txt"]
    hierarchy = read_hierarchy(folder)
    check_imagenet(hierarchy)
    assert len(hierarchy.parents) == 1327
    covered = {"level2": 890, "level3": 890, "level4": 890, "level5": 887, "level6": 616}
    covered |= {"entity13": 771, "entity30": 639, "living17": 223, "nonliving26": 157}
    assert list(covered) == list(CHECKSUMS)
    for name, count in covered.items():
        if name in BREEDS:
            mapping = breeds_superclasses(hierarchy, name)
            assert mapping.max() + 1 == int(name[-2:])
        else:
            mapping = level_superclasses(hierarchy, int(name[-1]))
        assert (mapping >= 0).sum() == count
