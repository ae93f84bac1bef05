"""Names and layouts: where a variable of ours lies in a torch state dict.

Submodules are named as in torchvision and timm, so one rule serves every backbone: the path of a
variable, joined by dots, with `kernel` and a norm's `scale` called weight, `mean` and `var` called
running_mean and running_var. The classifier is "head" here; each backbone's `torch_head` is its
name outside.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fixed_head_jax.weight_files import unwrap

Path = tuple[str, ...]  # collection, part of the model, submodules ..., leaf
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}  # of a kernel [kh, kw, in, out] or [in, out]


def name_of(path: Path) -> str:
    """Returns the plain torch name of a variable.

    Stored class vectors are `head.fixed_weight`: under a classifier's own name, learned weights
    could take the place of fixed ones unseen.
    """
    collection, part, *modules, leaf = path
    if part == "head":
        names = _LEAVES if modules else {"kernel": "weight"}  # the scale of a head is no norm's
        leaf = (
            "fixed_weight" if (collection, leaf) == ("fixed", "kernel") else names.get(leaf, leaf)
        )
        return ".".join(["head", *modules, leaf])
    prefix = [] if part == "backbone" else [part]
    return ".".join([*prefix, *modules, _LEAVES.get(leaf, leaf)])


def axes_of(path: Path, ndim: int) -> tuple[int, ...]:
    """Returns the order of the axes in torch: kernels are [out, in, kh, kw] or [out, in] there."""
    return _AXES[ndim] if path[-1] == "kernel" else tuple(range(ndim))


def plain_names(state_dict: Mapping[str, Any], torch_head: str) -> dict[str, np.ndarray]:
    """Returns plain name -> array: prefixes removed, the classifier called "head".

    Takes training checkpoints, `module.` anywhere, the `backbone.` of a Self-Classifier release
    (whose own heads become `head.mlp_head` and `head.cls_0` ...) and `shortcut` for `downsample`
    (the STL-10 ResNet-18 of Shalev et al.). Counters of batches are dropped.

    Raises:
        ValueError: if two names are the same one plainly.
    """
    plain = {}
    for given, value in unwrap(state_dict).items():
        name = re.sub(r"(^|\.)module\.", r"\1", str(given))
        name = re.sub(r"^backbone\.", "", name)
        name = re.sub(r"\bshortcut\.", "downsample.", name)
        name = re.sub(rf"^{re.escape(torch_head)}\.", "head.", name)
        name = re.sub(r"^(mlp_head|cls_\d+)\.", r"head.\1.", name)
        if name.endswith("num_batches_tracked"):
            continue
        if name in plain:
            raise ValueError(f"the weights hold {name!r} twice, once as {given!r}; remove one")
        plain[name] = np.asarray(value)
    return plain


def to_detectron2(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Renames a ResNet's state dict to detectron2's R-50 layout, without the classifier.

    `layerK` becomes `res(K + 1)`, everything outside the stages gets `stem.` in front, `bnK`
    becomes `convK.norm`, `downsample.0` and `.1` become `shortcut` and `shortcut.norm`. Pickled
    to a .pkl file, the result is what detectron2's MODEL.WEIGHTS takes.

    Raises:
        ValueError: if the names are not those of a ResNet.
    """
    if "layer4.0.conv1.weight" not in state_dict:
        raise ValueError("state_dict has no layer4.0.conv1.weight; detectron2 needs a ResNet")
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith("fc."):
            continue
        name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        name = name if name.startswith("res") else f"stem.{name}"
        name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[name] = value
    return {"model": renamed, "__author__": "fixed_head_jax", "matching_heuristics": True}
