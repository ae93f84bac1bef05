"""What there is: the keys of configs, and the experiments."""

import importlib
import inspect

from fixed_head_jax.settings import config_flag, schema


def list_keys(part: str = "") -> str:
    """Returns default, range and meaning of the keys whose names have `part` in them."""
    from fixed_head_jax.configs import common

    return schema.listing(common.KEYS, part) or f"no key has {part!r} in its name"


def list_experiments(part: str = "") -> str:
    """Returns names, subjects and variants of the experiments that have `part` in their names."""
    lines = []
    for name in config_flag.experiments():
        if part not in name:
            continue
        module = importlib.import_module(f"fixed_head_jax.configs.{name}")
        lines.append(f"{name}\n    {inspect.getdoc(module).splitlines()[0]}")
        try:
            module.get_config("?")
        except ValueError as error:  # it names those that there are
            lines.append(f"    variants: {str(error).partition('known: ')[2]}")
    return "\n".join(lines) or f"no experiment has {part!r} in its name"


LISTINGS = {"keys": list_keys, "configs": list_experiments}
