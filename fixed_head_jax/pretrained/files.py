"""Files of weights: reading without ever executing what they hold."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".ckpt")
_CONTAINERS = ("state_dict_ema", "state_dict", "model_state_dict", "model_state", "model")
# One line for a machine that has torch; `unwrap`'s containers, and tensors alone.
CONVERSION = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    f"d = next((d[k] for k in {_CONTAINERS} if k in d), d); "
    "h = {'head.' + k: v for k, v in d.get('fc_state_dict', {}).items()}; "
    "d = {**d.get('feat_state_dict', d), **h}; "
    "save_file({k: v.detach().clone().contiguous() for k, v in d.items() "
    'if isinstance(v, torch.Tensor)}, sys.argv[2])" IN.pth OUT.safetensors'
)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a weights file: .safetensors, or .pth, .pt, .pth.tar or .ckpt where torch is installed.

    Nothing in the file is executed: torch reads it with `weights_only=True`.

    Raises:
        ValueError: if it is missing, damaged, of another kind, needs torch or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights file {str(path)!r} does not exist")
    if path.name.endswith(TORCH_SUFFIXES):
        return _read_torch(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{str(path)!r} is neither .safetensors nor {', '.join(TORCH_SUFFIXES)}")
    try:
        return load_file(path)
    except Exception as error:  # of many kinds: whatever is wrong, the file cannot be read
        raise ValueError(f"{str(path)!r} is not a whole .safetensors file: {error}") from error


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"reading {str(path)!r} needs torch, which is not installed; install it, or convert "
            f"the file where it is: {CONVERSION}"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {
            str(name): value.detach().to_dense().float().numpy()
            for name, value in unwrap(loaded).items()
            if isinstance(value, torch.Tensor)
        }
    except Exception as error:  # torch raises many kinds on damaged files
        raise ValueError(f"{str(path)!r} cannot be read: {_reason(error)}") from error


def _reason(error):
    """Says in one line why torch refused a file; its own text advises to execute it."""
    blocked = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error))
    if blocked:
        return (
            f"it holds a Python object, {blocked[1]}, and not weights alone, so it is not opened; "
            "if you trust where it comes from, keep its tensors only, with torch, as .safetensors"
        )
    return f"damaged, or not a file of weights ({type(error).__name__})"


def unwrap(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state dict inside a training checkpoint, or the argument if it is one itself.

    Of the t-vMF release, which keeps two, the classifier's names get `head.` in front.
    """
    if isinstance(state_dict.get("feat_state_dict"), Mapping):
        head = state_dict.get("fc_state_dict", {})
        return {**state_dict["feat_state_dict"], **{f"head.{k}": v for k, v in head.items()}}
    for key in _CONTAINERS:
        if isinstance(state_dict.get(key), Mapping):
            return unwrap(state_dict[key])
    return state_dict
