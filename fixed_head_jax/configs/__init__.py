"""Experiments, one file each, and `common`: every key of a config.

`--config=digits` names the file here; a path to a file of one's own does as well.
"""

import importlib.util
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from fixed_head_jax.settings import config_flag


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns the config of an experiment, complete, checked and locked.

    Args:
        name: of an experiment here, or a file's path; with its variants, as "digits:hadamard".
        overrides: other values by dotted key, `{"optim.lr": 0.05}`.

    Raises:
        ValueError: if there is no such experiment, variant or key, or a value is wrong.
    """
    from fixed_head_jax.configs import common  # it imports what has keys: seconds

    module, variant = load_file(config_flag.find_file(name))
    return common.override(module.get_config(variant), dict(overrides or {}))


def load_file(file: str) -> tuple[ModuleType, str]:
    """Returns the module of "path.py" or "path.py:variant", and the variant, or an empty text."""
    path, _, variant = file.partition(":")
    spec = importlib.util.spec_from_file_location("experiment_file", path)
    assert spec is not None and spec.loader is not None  # of a path that ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, variant
