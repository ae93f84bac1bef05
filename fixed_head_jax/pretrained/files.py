"""Files of weights: reading without ever executing what they hold."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fixed_head_jax.pretrained import addresses
from fixed_head_jax.pretrained.downloads import fetch, is_public
from fixed_head_jax.pretrained.plain_pickle import UnknownNameError
from fixed_head_jax.pretrained.torch_files import read_torch
from fixed_head_jax.settings.lookup import closest

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar", ".ckpt")
_CONTAINERS = ("state_dict_ema", "state_dict", "model_state_dict", "model_state", "model")


def read_weights(source: str | Path) -> dict[str, np.ndarray]:
    """Reads a weights file: .safetensors, or .pth, .pt, .pth.tar or .ckpt as torch writes them.

    Nothing in the file is executed, and torch is not needed.

    Args:
        source: the file, or the name of public weights, see `downloads.fetch`.

    Raises:
        ValueError: if it is missing, damaged, of another kind or holds code, or cannot be fetched.
    """
    path = fetch(str(source)) if is_public(source) else Path(source)
    if not path.is_file():
        hint = closest(str(source), addresses.KNOWN)
        raise ValueError(f"weights file {str(path)!r} does not exist{hint}")
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
        arrays = read_torch(path, unwrap)
    except UnknownNameError as error:
        why = _reason(_printable(error))
        raise ValueError(f"{str(path)!r} cannot be read: {why}") from error
    except Exception as error:  # of many kinds: whatever is wrong, the file cannot be read
        why = f"{type(error).__name__}: {_printable(error)}"
        raise ValueError(
            f"{str(path)!r} cannot be read: damaged, or not a file of weights ({why})"
        ) from error
    if not arrays:
        raise ValueError(f"{str(path)!r} holds no weights")
    return arrays


def _printable(error):
    """Returns what an error says in one line: it may repeat what a hostile file holds."""
    text = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:120]


def _reason(name):
    """Says why a file that names something of Python is refused."""
    if re.fullmatch(r"torch\.(\w+Storage|[a-z]\w+|(_utils|_tensor|storage)\.\w+)", name):
        return (
            f"its tensors are of a kind that is not read here ({name}); save them, with torch, as "
            "plain ones of float32"
        )
    return (
        f"it holds a Python object, {name}, and not weights alone, so it is not opened; "
        "if you trust where it comes from, keep its tensors only, with torch, as .safetensors"
    )


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
