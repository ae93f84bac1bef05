"""Holds the dependency rules of the package by reading its imports.

Inside a folder of siblings only the `LEAVES` may be imported by the others, and a backbone may
import frames: the thesis' shortcuts are made of them.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fixed_head_jax"
FILES = sorted(
    [*ROOT.glob("main.py"), *ROOT.glob("configs/**/*.py"), *ROOT.glob(PACKAGE + "/**/*.py")]
)
# Prefix of an import -> where it may stand: files, or folders (ending in "/").
ALLOWED = {
    "absl.flags": ["main.py", PACKAGE + "/config_flag.py"],
    "ml_collections": [
        "main.py",
        "configs/",
        *(PACKAGE + place for place in ("/config_flag.py", "/train.py", "/experiment/")),
    ],
    "flax.linen": [
        PACKAGE + place
        for place in ("/backbones/", "/heads/", "/batch_norm.py", "/pooling.py", "/model.py")
    ],
    "tensorflow_datasets": [PACKAGE + "/data/"],
    "cv2": [PACKAGE + "/data/"],
    "PIL": [PACKAGE + "/data/"],
    "simplejpeg": [PACKAGE + "/data/"],
}
SIBLINGS = ("heads", "backbones", "tasks", "losses", "evaluators", "augment")
LEAVES = (
    "augment.autoaugment", "augment.operations", "augment.streams", "backbones.layers",
    "backbones.positions", "heads.frames", "heads.parts", "evaluators.clustering",
    "evaluators.sums", "tasks.task",
)  # fmt: skip
BANNED = ("utils.py", "helpers.py", "base.py")


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


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(path: str, source: str) -> list[str]:
    """Returns what the file at `path` (relative to the root) imports against the rules."""
    names = imports(source)
    found = [f"{path}: relative import {name}" for name in names if name.startswith(".")]
    for prefix, places in ALLOWED.items():
        here = any(
            path == place or (place[-1] == "/" and path.startswith(place)) for place in places
        )
        if not here and any(is_under(name, prefix) for name in names):
            found.append(f"{path}: imports {prefix}, which only {', '.join(places)} may")
    folder, _, file = path.rpartition("/")
    for sibling in SIBLINGS:
        home = f"{PACKAGE}/{sibling}"
        if not (folder == home or folder.startswith(home + "/")) or file == "__init__.py":
            continue
        for name in names:
            leaf = any(is_under(name, f"{PACKAGE}.{leaf}") for leaf in LEAVES)
            if is_under(name, f"{PACKAGE}.{sibling}") and not leaf:
                found.append(f"{path}: imports its sibling {name}")
        across = [
            other
            for other in SIBLINGS
            if other != sibling and (sibling, other) != ("tasks", "losses")
        ]
        found += [
            f"{path}: imports {name}"
            for name in names
            if any(is_under(name, f"{PACKAGE}.{other}") for other in across)
            and (sibling, name) != ("backbones", f"{PACKAGE}.heads.frames")
            or is_under(name, f"{PACKAGE}.model")
        ]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports(file):
    assert not violations(file.relative_to(ROOT).as_posix(), file.read_text())


def test_no_file_is_named_for_nothing():
    assert not [file for file in FILES if file.name in BANNED]


@pytest.mark.parametrize(
    "path, source",
    [
        (PACKAGE + "/train.py", "from absl import flags"),
        (PACKAGE + "/optim.py", "import ml_collections"),
        (PACKAGE + "/losses/margin.py", "from flax import linen as nn"),
        (PACKAGE + "/train.py", "import tensorflow_datasets as tfds"),
        (PACKAGE + "/heads/cosine.py", "from fixed_head_jax.heads import fixed"),
        (PACKAGE + "/heads/cosine.py", "from fixed_head_jax.heads.fixed import Random"),
        (PACKAGE + "/losses/margin.py", "from fixed_head_jax.heads import frames"),
        (PACKAGE + "/evaluators/knn.py", "from fixed_head_jax.model import get_model"),
        (PACKAGE + "/augment/mix.py", "from . import color"),
    ],
)
def test_the_rules_catch(path, source):
    assert violations(path, source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("main.py", "from absl import flags"),
        (PACKAGE + "/train.py", "from absl import logging"),
        (PACKAGE + "/heads/cosine.py", "from fixed_head_jax.heads import frames"),
        (PACKAGE + "/backbones/vit.py", "from fixed_head_jax.backbones.layers import Conv"),
        (PACKAGE + "/tasks/supervised.py", "from fixed_head_jax.losses import margin"),
        (PACKAGE + "/heads/__init__.py", "from fixed_head_jax.heads import fixed"),
    ],
)
def test_the_rules_allow(path, source):
    assert not violations(path, source)
