"""What there is: the keys of configs, and the experiments."""

import importlib
import inspect
from collections.abc import Callable, Mapping

from fixed_head_jax.settings import config_flag, schema


def list_keys(part: str = "") -> str:
    """Returns default, range and meaning of the keys whose names have `part` in them."""
    from fixed_head_jax.configs import common

    lines = schema.listing(common.KEYS, part).splitlines()
    for i, line in enumerate(lines):
        name, equals, default = line.partition(" = ")
        if default == "None" and (own := _own_defaults(name)):
            lines[i] = f"{name}{equals}None ({own})"
    return "\n".join(lines) or f"no key has {part!r} in its name"


def _own_defaults(key):
    """Returns what None is to the parts that read an option: "0.35 of cosface; 0.5 of arcface"."""
    from fixed_head_jax.backbones import BACKBONES
    from fixed_head_jax.heads import EMBEDDING_HEADS, HEADS
    from fixed_head_jax.layers.pooling import POOLINGS
    from fixed_head_jax.tasks import TASKS

    group, _, option = key.rpartition(".")
    groups: dict[str, Mapping[str, Callable]] = {
        "model.backbone_options": BACKBONES,
        "model.head_options": {**HEADS, **EMBEDDING_HEADS},
        "model.pool_options": POOLINGS,
        "task.options": TASKS,
    }
    readers: dict[str, list[str]] = {}
    for name, part in groups.get(group, {}).items():
        parameter = inspect.signature(part).parameters.get(option)
        if parameter is not None and parameter.default not in (None, parameter.empty):
            readers.setdefault(repr(parameter.default), []).append(name)
    if len(readers) == 1:
        return next(iter(readers))
    return "; ".join(f"{default} of {', '.join(names)}" for default, names in readers.items())


def list_experiments(part: str = "") -> str:
    """Returns names, subjects and variants of the experiments that have `part` in their names."""
    lines = []
    for name in config_flag.experiments():
        if part not in name:
            continue
        module = importlib.import_module(f"fixed_head_jax.configs.{name}")
        subject, _, _ = (inspect.getdoc(module) or "").partition("\n")  # none under python -OO
        lines.append(f"{name}\n    {subject}")
        try:
            module.get_config("?")
        except ValueError as error:  # it names those that there are
            lines.append(f"    variants: {str(error).partition('known: ')[2]}")
    return "\n".join(lines) or f"no experiment has {part!r} in its name"


LISTINGS = {"keys": list_keys, "configs": list_experiments}
