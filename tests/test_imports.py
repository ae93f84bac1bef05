"""Holds the rules of `docs/design.md` by reading its table of rooms and the package's imports."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fixed_head_jax"
FILES = sorted([*ROOT.glob("main.py"), *ROOT.glob(PACKAGE + "/**/*.py")])
# Prefix of an import -> where in the package it may stand beside main.py: files, or
# folders (ending in "/").
ALLOWED = {
    "absl.flags": ("settings/config_flag.py", "commands/"),
    "ml_collections": ("settings/config_flag.py", "training/", "configs/", "commands/"),
    "flax.linen": ("layers/", "backbones/", "heads/", "model.py"),
    "tensorflow_datasets": ("data/",),
    "cv2": ("data/", "display/"),
    "PIL": ("data/", "display/"),
    "simplejpeg": ("data/",),
}
# Rooms whose files do not import each other, and the leaves that they may.
LEAVES = {
    "heads": ("frames", "parts"),
    "backbones": ("positions",),
    "tasks": ("neighbor_queue", "task"),
    "losses": (),
    "evaluators": ("classification", "clustering", "evaluator", "sums"),
    "augment": ("autoaugment", "operations", "streams"),
}
BANNED = ("utils.py", "helpers.py", "base.py")
ROW = re.compile(r"^\| `(\w+)` \|.*\| ([\w, -]+) \|$", re.MULTILINE)


def read_rooms() -> dict[str, tuple[str, ...]]:
    """Returns the table of rooms: what each stands on."""
    rows = ROW.findall((ROOT / "docs" / "design.md").read_text())
    return {room: tuple(re.findall(r"\w+", below)) for room, below in rows}


ROOMS = read_rooms()


def imports(source: str) -> set[str]:
    """Returns every module and name that the source imports, as dotted paths."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def is_under(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def violations(path: str, source: str) -> list[str]:
    """Returns what the file at `path` (relative to the root) imports against the rules."""
    names = imports(source)
    found = [f"{path}: relative import {name}" for name in names if name.startswith(".")]
    if not path.startswith(PACKAGE + "/"):
        return found
    place = path.removeprefix(PACKAGE + "/")
    for prefix, places in ALLOWED.items():
        here = any(place == one or one[-1] == "/" and place.startswith(one) for one in places)
        if not here and any(is_under(name, prefix) for name in names):
            found.append(f"{path}: imports {prefix}, which only {', '.join(places)} may")
    room = re.split(r"[/.]", place)[0]
    ours = {name.removeprefix(PACKAGE + ".") for name in names if is_under(name, PACKAGE)}
    if room in ROOMS:
        found += [
            f"{path}: imports {name}; {room} stands on {', '.join(ROOMS[room])}"
            for name in ours
            if not is_under(name, room, *ROOMS[room])
            or (room == "backbones" and is_under(name, "heads") and name != "heads.frames")
        ]
    if room in LEAVES and not place.endswith("__init__.py"):
        leaves = [f"{room}.{leaf}" for leaf in LEAVES[room]]
        found += [
            f"{path}: imports its sibling {name}"
            for name in ours
            if is_under(name, room) and not is_under(name, *leaves)
        ]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports(file):
    assert not violations(file.relative_to(ROOT).as_posix(), file.read_text())


def test_rooms_are_listed_once_and_stand_on_those_above():
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert set(ROOMS) == folders | {"model"}
    above = []
    for room, below in ROOMS.items():
        assert set(below) <= set(above)
        above.append(room)


def test_the_table_names_no_arrow_that_is_not_there():
    for room, below in ROOMS.items():
        files = (ROOT / PACKAGE).glob(f"{room}.py" if room == "model" else f"{room}/**/*.py")
        names = set().union(*(imports(file.read_text()) for file in files))
        assert not [one for one in below if not any(is_under(n, f"{PACKAGE}.{one}") for n in names)]


def test_tests_mirror_the_rooms():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= set(ROOMS)


def test_no_file_is_named_for_nothing():
    assert not [file for file in FILES if file.name in BANNED]


@pytest.mark.parametrize(
    "path, source",
    [
        ("training/loop.py", "from absl import flags"),
        ("optim/optimizer.py", "import ml_collections"),
        ("losses/margin.py", "from flax import linen as nn"),
        ("training/loop.py", "import tensorflow_datasets as tfds"),
        ("heads/cosine.py", "from fixed_head_jax.heads import fixed"),
        ("heads/cosine.py", "from fixed_head_jax.heads.fixed import Random"),
        ("losses/margin.py", "from fixed_head_jax.heads import frames"),
        ("evaluators/knn.py", "from fixed_head_jax.model import get_model"),
        ("evaluators/knn.py", "from fixed_head_jax.evaluators.kmeans import kmeans_clusters"),
        ("backbones/vit.py", "from fixed_head_jax.heads.linear import Linear"),
        ("storage/files.py", "from fixed_head_jax.display import tables"),
        ("data/sources.py", "from fixed_head_jax import augment"),
        ("augment/mix.py", "from . import color"),
    ],
)
def test_the_rules_catch(path, source):
    assert violations(f"{PACKAGE}/{path}", source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("main.py", "from absl import flags"),
        (PACKAGE + "/training/loop.py", "from absl import logging"),
        (PACKAGE + "/heads/cosine.py", "from fixed_head_jax.heads import frames"),
        (PACKAGE + "/backbones/cifar_resnet.py", "from fixed_head_jax.heads import frames"),
        (PACKAGE + "/backbones/vit.py", "from fixed_head_jax.layers.convolution import Conv"),
        (PACKAGE + "/tasks/supervised.py", "from fixed_head_jax.losses import margin"),
        (PACKAGE + "/heads/__init__.py", "from fixed_head_jax.heads import fixed"),
    ],
)
def test_the_rules_allow(path, source):
    assert not violations(path, source)
