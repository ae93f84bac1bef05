"""Names and layouts: where a variable of ours lies in a torch state dict.

Submodules are named as in torchvision and timm, so one rule serves every backbone: the path of a
variable, joined by dots, with `kernel` and a norm's `scale` called weight, `mean` and `var` called
running_mean and running_var. The classifier is "head" here; each backbone's `torch_head` is its
name outside. Other code has other names; `plain_names` takes those of the releases that the package
unites, their heads included.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fixed_head_jax.pretrained.files import unwrap

Path = tuple[str, ...]  # collection, part of the model, submodules ..., leaf
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
CONSTANTS = ("head.kappa",)  # what a release stores beside the variables; a field of our head
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


def plain_names(state_dict: Mapping[str, Any], backbone: Any) -> dict[str, np.ndarray]:
    """Returns plain name -> array: wrappers removed, the classifier called "head".

    Takes training checkpoints, and of releases:

    - Self-Classifier: `backbone.`; its heads become `head.mlp_head` and `head.cls_0` ...;
    - t-vMF: its head's `s_` becomes `head.raw_scale`, its constant `kappa` is `head.kappa`;
    - Shalev et al.: `shortcut` for `downsample` (its class vectors are not part of the file).

    `module.` and `_orig_mod.`, which parallel and compiled modules put before their names, go
    wherever they are; a `model.` or `backbone.` goes only in front, and not where the backbone has
    a part of that name. Counters of batches are dropped.

    Args:
        state_dict: torch name -> array, or a checkpoint that holds one, see `unwrap`.
        backbone: whose `torch_head` and `layers` tell its own names.

    Raises:
        ValueError: if two names are the same one plainly.
    """
    parts = {path.split(".")[0] for layer in backbone.layers for path in layer}
    outer = "|".join({"model", "backbone"} - parts)
    plain = {}
    for given, value in unwrap(state_dict).items():
        name = re.sub(r"(?<![^.])(module|_orig_mod)\.", "", str(given))
        name = re.sub(rf"^(({outer})\.)+", "", name) if outer else name
        name = re.sub(r"\bshortcut\.", "downsample.", name)
        name = re.sub(rf"^{re.escape(backbone.torch_head)}\.", "head.", name)
        name = re.sub(r"^(mlp_head|cls_\d+)\.", r"head.\1.", name)
        name = re.sub(r"^head\.s_$", "head.raw_scale", name)
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
