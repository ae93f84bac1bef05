"""Builds an entry of an explicit dict by name, with errors that say what would have worked."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def build(kind: str, entries: Mapping[str, Callable], name: str, options: Mapping[str, Any]) -> Any:
    """Calls `entries[name](**options)` after checking the name and the option names.

    Args:
        kind: what the entries are ("head", "backbone"), for the messages.
        entries: name -> callable; modules and functions alike.
        name: the entry wanted.
        options: keyword arguments for it.

    Returns:
        What the entry returns.

    Raises:
        ValueError: on an unknown name or option, with the known ones and the closest match.
    """
    if name not in entries:
        hint = closest(name, entries)
        raise ValueError(f"unknown {kind} {name!r}{hint}; known: {_names(entries)}")
    known = [key for key in inspect.signature(entries[name]).parameters if key not in _LINEN_FIELDS]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{kind} {name!r} has no option {option!r}{closest(option, known)}; "
                f"it takes: {_names(known)}"
            )
    return entries[name](**options)


def check_choice(field: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, naming the field and what is known, unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"unknown {field} {value!r}; known: {_names(known)}")


def closest(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" with the name that is most like `name`, or an empty text."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


_LINEN_FIELDS = ("parent", "name")


def _names(known) -> str:
    return ", ".join(known) or "none"
