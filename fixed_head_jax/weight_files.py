"""Files of weights: reading without ever executing what they hold."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

_CONTAINERS = ("state_dict_ema", "state_dict", "model")
_CONVERSION = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "save_file({k: v.contiguous() for k, v in d.get('state_dict', d).items()}, sys.argv[2])\" "
    "IN.pth OUT.safetensors"
)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a weights file: .safetensors, or .pth/.pt where torch is installed.

    Nothing in the file is executed: torch reads it with `weights_only=True`.

    Raises:
        ValueError: if it is missing, damaged, of another kind, or needs torch.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights file {str(path)!r} does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{str(path)!r} is not a whole .safetensors file: {error}") from error
    if path.suffix in (".pth", ".pt"):
        return _read_torch(path)
    raise ValueError(f"{str(path)!r} is neither .safetensors nor .pth/.pt; convert it first")


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"reading {str(path)!r} needs torch, which is not installed; install it, or convert "
            f"the file where it is: {_CONVERSION}"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{str(path)!r} is damaged, or holds more than weights: {reason}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{str(path)!r} holds a {type(loaded).__name__}, not a state dict")
    return {
        name: value.float().numpy()
        for name, value in unwrap(loaded).items()
        if isinstance(value, torch.Tensor)
    }


def unwrap(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state dict inside a training checkpoint, or the argument if it is one itself."""
    for key in _CONTAINERS:
        if isinstance(state_dict.get(key), Mapping):
            return unwrap(state_dict[key])
    return state_dict
