"""Keys of a config: one place says the default, the range and the meaning of each.

A group of keys is a frozen dataclass, which cannot be made with a value that its keys may not have;
a table maps dotted keys, as the command line names them, to a `Key`.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from fixed_head_jax.settings.kinds import Kind
from fixed_head_jax.settings.lookup import closest


class Key(NamedTuple):
    """A key of a config.

    Attributes:
        default: its value where nothing is said; None leaves it to the part that reads the key,
            and is a value of the key, then.
        kind: the other values that it may have.
        meaning: what they do.
        fixes: what of a run the value fixes, which says when another may take its place. One of
            "training": what is learned; "run": how this run went, which its checkpoints do not
            hold; "length": when it ends; "evaluations": when and in what parts it evaluates;
            "nothing" that is trained.
    """

    default: Any
    kind: Kind
    meaning: str
    fixes: str = "training"


def option(default: Any, kind: Kind, meaning: str, fixes: str = "training") -> Any:
    """Returns a field of a `Group`; arguments as of `Key`."""
    return dataclasses.field(default=default, metadata={"key": Key(default, kind, meaning, fixes)})


class Group:
    """What frozen dataclasses of `option`s have in common: they check their values when made.

    `class Views(Group, name="views")` is the group of the keys "views.*".

    Raises:
        ValueError: if any value is wrong, naming them all.
    """

    group_name: str
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # of the subclasses
    __no_type_check__ = True  # values of other types are refused below, in one line

    def __init_subclass__(cls, name: str) -> None:
        cls.group_name = name

    def __post_init__(self) -> None:
        prefix = f"{self.group_name}."
        values = {
            prefix + field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        for key, value in check(keys_of(type(self)), values).items():
            object.__setattr__(self, key.removeprefix(prefix), value)


def read(group: type[Group], config: Any) -> Any:
    """Returns the group that a config, nested by the parts of its keys' names, holds."""
    for part in group.group_name.split("."):
        config = config[part]
    return group(**{field.name: config[field.name] for field in dataclasses.fields(group)})


def keys_of(group: type[Group]) -> dict[str, Key]:
    """Returns the keys of a group by their dotted names."""
    return {
        f"{group.group_name}.{one.name}": one.metadata["key"] for one in dataclasses.fields(group)
    }


def check(keys: Mapping[str, Key], values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the values of keys.

    Args:
        keys: the table.
        values: dotted key -> value, of some of the keys.

    Returns:
        The values as a config stores them: a number of NumPy's as one of Python's, the home
        folder in a path by its name.

    Raises:
        ValueError: if any is wrong, naming them all, or is of no key.
    """
    check_names(keys, values)
    faults = [
        f"{key}={value!r} must be {_words(keys[key])}{closest(str(value), keys[key].kind.names)}"
        for key, value in values.items()
        if not (value is None and keys[key].default is None) and not keys[key].kind.holds(value)
    ]
    if faults:
        raise ValueError("; ".join(faults))
    stores = {key: keys[key].kind.store or keys[key].kind.type for key in values}
    return {key: None if v is None else stores[key](v) for key, v in values.items()}


def check_names(keys: Mapping[str, Key], names: Iterable[str]) -> None:
    """Raises ValueError, saying what else may have been meant, unless all names are keys."""
    faults = [f"there is no key {name}{_hint(name, keys)}" for name in names if name not in keys]
    if faults:
        raise ValueError("; ".join(faults))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a ConfigDict's groups as one level of dotted keys, as the command line names them."""
    flat = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def listing(keys: Mapping[str, Key], part: str = "") -> str:
    """Returns a text that says of every key whose name has `part` in it all that the table says."""
    return "\n".join(
        f"{name} = {key.default!r}\n    {key.meaning}\n    {_words(key)}"
        for name, key in keys.items()
        if part in name
    )


def _words(key):
    return key.kind.words + (" or None" if key.default is None else "")


def _hint(key, keys):
    """Returns what else may have been meant: keys of that last name, of that group, or alike."""
    same_name = [name for name in keys if name.split(".")[-1] == key.split(".")[-1]]
    in_group = [name for name in keys if name.startswith(f"{key}.")]
    likely = same_name or in_group
    if not likely:
        return closest(key, keys)
    return f" (did you mean {', '.join(likely[:5])}{', ...' if likely[5:] else ''}?)"
