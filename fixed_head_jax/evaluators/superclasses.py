"""Unsupervised classification by superclass: levels of a hierarchy, and the BREEDS sets.

A mapping [K] gives each class, sorted by id, the number of its superclass or -1. Superclasses are
nodes of a tree at one depth that cover at least one class, numbered by sorted id.

    level k        all nodes at depth k, also those that are classes, or cover only one
    entity13       nodes at depth 3 that cover at least 20 classes
    entity30       nodes at depth 4 that cover at least 8
    living17       nodes at depth 5 that cover at least 4, below "living thing"
    nonliving26    the same below "non-living thing"

The names count the superclasses of ImageNet in the tree of BREEDS, which leaves 110 classes out.
Unlike BREEDS itself, each set has all classes below its nodes, not as many of each.

Source: Santurkar et al. 2021, https://arxiv.org/abs/2008.04859 (the files:
https://github.com/MadryLab/BREEDS-Benchmarks), as used in https://arxiv.org/abs/2103.10994.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from fixed_head_jax.evaluators import clustering

LEVELS = (2, 3, 4, 5, 6)
# Depth, fewest classes, and the node that they have to be under.
BREEDS = {
    "entity13": (3, 20, None),
    "entity30": (4, 8, None),
    "living17": (5, 4, "n00004258"),
    "nonliving26": (5, 4, "n00021939"),
}
# `mapping_checksum` of what the BREEDS tree gives for the 1000 ImageNet classes.
CHECKSUMS = {
    "level2": "0d331cffd9165623", "level3": "f05bc1ec2f612773", "level4": "7e97c466683bac79",
    "level5": "192dcb862322196b", "level6": "2884beeeff759966",
    "entity13": "40904e64d926bd53", "entity30": "81e82738720a5f36",
    "living17": "520ff643808804f1", "nonliving26": "e2de693303fa573e",
}  # fmt: skip
# sha256 of the files; line ends can change them, so that it is mappings that are compared.
FILE_CHECKSUMS = {
    "class_hierarchy.txt": "039cfaddf9732855b93f7899ba4b5ba6d80f8dbe15cfaad566f575b6c8ce0216",
    "dataset_class_info.json": "be90503d57a001f95e094a81dc4de90772bfc58546ca58061d6474799829afd0",
    "node_names.txt": "322af45711ed69a7b199f11225bd964c7dae71df3c586498bef2f7c9e031dedb",
}
_IMAGENET = ("n00001740", "858fd8cc1983d57f")  # root of its tree; checksum of its sorted ids


class Hierarchy(NamedTuple):
    """A tree of node ids and the classes that it orders.

    Attributes:
        root: the node without a parent.
        parents: parent of every other node.
        classes: ids of the classes, sorted; they need not all be in the tree.
    """

    root: str
    parents: dict[str, str]
    classes: tuple[str, ...]


def read_hierarchy(folder: str | Path) -> Hierarchy:
    """Reads a tree and its classes.

    Args:
        folder: has class_hierarchy.txt, one "parent child" a line, and dataset_class_info.json, a
            list of [number, id, name] whose numbers are the ranks of the sorted ids.

    Raises:
        ValueError: if a file is missing or malformed, if the pairs do not make one tree, or if
            `check_imagenet` does.
    """
    paths = [Path(folder) / name for name in ("class_hierarchy.txt", "dataset_class_info.json")]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path} does not exist; name a folder with the files of BREEDS")
    tree, classes = (path.read_text(encoding="utf-8") for path in paths)
    hierarchy = Hierarchy(*_parse_tree(tree), _parse_classes(classes))
    if (hierarchy.root, mapping_checksum(hierarchy.classes)) == _IMAGENET:
        check_imagenet(hierarchy)
    return hierarchy


def _parse_tree(text) -> tuple[str, dict[str, str]]:
    """Returns the root and the parent of every other node."""
    parents = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line.split()) != 2:
            raise ValueError(f"class_hierarchy.txt line {number}: {line!r} is not 'parent child'")
        parent, child = line.split()
        if child in parents:
            raise ValueError(f"class_hierarchy.txt line {number}: keep one parent of {child!r}")
        parents[child] = parent
    roots = sorted(set(parents.values()) - set(parents))
    if len(roots) != 1:
        raise ValueError(f"class_hierarchy.txt has {len(roots)} roots {roots[:5]}; a tree has one")
    reached = set(roots)
    while new := {child for child, parent in parents.items() if parent in reached} - reached:
        reached |= new
    if lost := sorted(set(parents) - reached):
        raise ValueError(f"class_hierarchy.txt has a cycle through {lost[:5]}; make it a tree")
    return roots[0], parents


def _parse_classes(text):
    """Returns the sorted ids."""
    form = "dataset_class_info.json must be a list of [number, id, name]"
    try:
        # Adding a string refuses ids that are none.
        numbers = {name + "": number for number, name, *_ in json.loads(text)}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{form}: {error}") from error
    for rank, name in enumerate(sorted(numbers)):
        if numbers[name] != rank:
            raise ValueError(f"{form}; {name!r} has {numbers[name]}, not {rank}, its rank by id")
    return tuple(sorted(numbers))


def _path(hierarchy, node):
    """Lists the nodes from the root down to this one; empty if it is not in the tree."""
    path = [node]
    while path[-1] in hierarchy.parents:
        path.append(hierarchy.parents[path[-1]])
    return path[::-1] if path[-1] == hierarchy.root else []


def level_superclasses(hierarchy: Hierarchy, level: int) -> Int[np.ndarray, " k"]:
    """Maps each class to the node at depth `level`, 0 for the root, that it is or lies below.

    Raises:
        ValueError: on a negative level.
    """
    if level < 0:
        raise ValueError(f"level={level}; the depth of a node is 0 (the root) or more")
    return _number(hierarchy, level)


def breeds_superclasses(hierarchy: Hierarchy, name: str) -> Int[np.ndarray, " k"]:
    """Maps each class to its superclass in the set `name` of `BREEDS`.

    Raises:
        ValueError: on an unknown name.
    """
    if name not in BREEDS:
        raise ValueError(f"name={name!r} is no BREEDS set; choose from {', '.join(BREEDS)}")
    return _number(hierarchy, *BREEDS[name])


def _number(hierarchy, level, fewest=1, above=None):
    """Numbers the nodes at one depth that cover enough classes; returns that of each class."""
    paths = [_path(hierarchy, name) for name in hierarchy.classes]
    nodes = [path[level] if len(path) > level and above in (None, *path) else "" for path in paths]
    kept = sorted(node for node, size in Counter(nodes).items() if node and size >= fewest)
    numbers = {node: number for number, node in enumerate(kept)}
    return np.array([numbers.get(node, -1) for node in nodes], np.int64)


def _mappings(hierarchy):
    """Returns the mapping of every level and set under its name in the metrics."""
    levels = {f"level{level}": level_superclasses(hierarchy, level) for level in LEVELS}
    return levels | {name: breeds_superclasses(hierarchy, name) for name in BREEDS}


def mapping_checksum(mapping: Int[np.ndarray, "_"] | Sequence[int] | Sequence[str]) -> str:
    """Returns the first 16 hex digits of the sha256 of the entries, joined by commas."""
    return hashlib.sha256(",".join(str(entry) for entry in mapping).encode()).hexdigest()[:16]


def check_imagenet(hierarchy: Hierarchy) -> None:
    """Checks that a tree over the 1000 ImageNet classes gives the superclasses of the paper.

    Raises:
        ValueError: if a mapping has another checksum than `CHECKSUMS`.
    """
    for name, mapping in _mappings(hierarchy).items():
        if (found := mapping_checksum(mapping)) != CHECKSUMS[name]:
            wrong = f"{name} has checksum {found}, not {CHECKSUMS[name]}"
            raise ValueError(f"{wrong}; use the BREEDS files, with sha256 {FILE_CHECKSUMS}")


def superclass_scores(
    contingency: Shaped[np.ndarray, "p l"], mapping: Int[np.ndarray, "_"]
) -> dict[str, float]:
    """Scores predicted clusters by superclass, on the examples of covered classes.

    Clusters are assigned to classes, not superclasses (`assign_clusters`, on these examples); an
    example is right if the class of its cluster and its own have the same superclass. A cluster
    that got an uncovered class, or none, is wrong.

    Args:
        contingency: examples of each cluster (row) and class (column).
        mapping: superclass of each class; -1 for none.

    Returns:
        "acc", and "nmi", "ami", "ari" with the classes, not the superclasses; in percent.

    Raises:
        ValueError: if the mapping has another length, or no example of a covered class is there.
    """
    if (given := len(mapping)) != (needed := contingency.shape[1]):
        raise ValueError(f"mapping has {given} entries; give one for each of {needed} columns")
    covered = np.where(mapping[None, :] >= 0, contingency, 0)
    if not covered.any():
        raise ValueError("no example has a covered class; give another mapping or more examples")
    predictions, labels = clustering.expand_contingency(covered)
    counts = clustering.contingency_matrix(predictions, labels)
    # Uncovered columns and those past the classes are -1; no example left here has that.
    superclasses = np.append(mapping, np.full(len(counts), -1))[: len(counts)]
    agrees = superclasses[clustering.assign_clusters(counts), None] == superclasses[None, :]
    scores = clustering.clustering_scores(predictions, labels)
    scores["acc"] = float(counts[agrees].sum() / counts.sum())
    return {name: 100 * score for name, score in scores.items()}


def superclass_metrics(
    contingency: Shaped[np.ndarray, "p l"], hierarchy: Hierarchy, class_names: Sequence[str]
) -> dict[str, float]:
    """Scores predicted clusters on levels 2 to 6 and the four BREEDS sets.

    Args:
        contingency: of `clustering.contingency_sums`, over the whole split.
        class_names: ids of the labels in their order; those not in the hierarchy are uncovered.

    Returns:
        `superclass_scores` by names like "level2/acc" and "entity13/nmi", in percent. A level or
        set that covers no example is left out.

    Raises:
        ValueError: if no class is covered, or the number of names is not that of the columns.
    """
    if (given := len(class_names)) != (needed := contingency.shape[1]):
        raise ValueError(f"class_names has {given} names; give one for each of {needed} columns")
    if not any(_path(hierarchy, name) for name in set(hierarchy.classes) & set(class_names)):
        raise ValueError(f"no class is covered: class_names={class_names[:3]}; use ids of the tree")
    metrics: dict[str, float] = {}
    for name, by_class in _mappings(hierarchy).items():
        numbers = dict(zip(hierarchy.classes, by_class.tolist(), strict=True))
        mapping = np.array([numbers.get(class_name, -1) for class_name in class_names])
        if contingency[:, mapping >= 0].any():
            scores = superclass_scores(contingency, mapping)
            metrics |= {f"{name}/{score}": value for score, value in scores.items()}
    return metrics
