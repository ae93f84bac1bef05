"""Image classifiers whose classification layer is fixed, redesigned or learned without labels.

The names of `__all__` are imported where they are first used: `import fixed_head_jax` alone loads
neither JAX nor the package. `docs/design.md` says what its rooms hold.
"""

import importlib
from typing import Any

from fixed_head_jax.devices import compiler

compiler.mend()  # before JAX starts

__version__ = "0.1.0"
_HOMES = {
    "load_config": "configs",
    "train": "commands.runs",
    "evaluate": "commands.runs",
    "load": "inference",
    "get_model": "model",
    "get_backbone": "backbones",
    "get_head": "heads",
    "frames": "heads",
    "accounting": "",
    "pretrained": "",
    "self_classifier_loss": "losses.self_classifier",
    "clustering_scores": "evaluators.clustering",
    "knn_accuracy": "evaluators.knn",
    "linear_probe_accuracy": "evaluators.linear_probe",
    "open_dataset": "data",
    "make_augment": "augment",
    "make_view_augment": "augment",
    "make_optimizer": "optim",
    "Rule": "optim",
    "Schedule": "optim",
    "make_schedule": "optim",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if not home:
        return importlib.import_module(f"{__name__}.{name}")
    module = importlib.import_module(f"{__name__}.{home}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
