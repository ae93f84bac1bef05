"""What the keys of a config may hold: one table says the default, the range and the meaning.

A table maps dotted keys, as the command line names them, to a `Key`. Ranges are written as
intervals: "[0, 1)" holds 0 and not 1; infinity and NaN are in none.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from fixed_head_jax.settings.lookup import closest


class Kind(NamedTuple):
    """A set of values.

    Attributes:
        type: that a config stores them as.
        words: what they are, to follow "must be".
        holds: whether a value is one of them.
        names: all of them, where they are names.
        store: makes what a config stores of a value; None: `type`.
    """

    type: type
    words: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()
    store: Callable[[Any], Any] | None = None


class Key(NamedTuple):
    """A key of a config.

    Attributes:
        default: its value where nothing is said; None leaves it to the part that reads the key,
            and is a value of the key, then.
        kind: the other values that it may have.
        meaning: what they do.
    """

    default: Any
    kind: Kind
    meaning: str


def number(interval: str = "(-inf, inf)") -> Kind:
    """Returns the finite numbers of an interval."""
    inside = _interval(interval)
    return Kind(float, f"a number in {interval}", lambda x: _is(x, Real) and inside(x))


def whole(interval: str) -> Kind:
    """Returns the whole numbers of an interval."""
    inside = _interval(interval)
    return Kind(int, f"a whole number in {interval}", lambda x: _is(x, Integral) and inside(x))


def choice(*names: str) -> Kind:
    """Returns these names."""
    words = f"one of {', '.join(names)}"
    return Kind(str, words, lambda x: isinstance(x, str) and x in names, names)


def each(kind: Kind, length: int | None = None, distinct: bool = False) -> Kind:
    """Returns the tuples of values of a kind: of a length, if given, and none twice."""

    def holds(values):
        return (
            isinstance(values, tuple | list)
            and all(map(kind.holds, values))
            and length in (None, len(values))
            and not (distinct and len(set(values)) < len(values))
        )

    count = "" if length is None else f"{length} "
    words = f"a tuple of {count}values, each {kind.words}" + ", none twice" * distinct
    return Kind(tuple, words, holds)


def ascending(kind: Kind, length: int | None = None, strictly: bool = False) -> Kind:
    """Returns the tuples of numbers of a kind that go up: of a length, if given."""
    tuples = each(kind, length, strictly)
    words = f"{tuples.words}, smallest first"
    return Kind(tuple, words, lambda x: tuples.holds(x) and list(x) == sorted(x))


def either(empty: Any, kind: Kind) -> Kind:
    """Returns the values of a kind, and one that stands for none."""
    return Kind(kind.type, f"{empty!r} or {kind.words}", lambda x: x == empty or kind.holds(x))


FLAG = Kind(bool, "True or False", lambda x: isinstance(x, bool))
TEXT = Kind(str, "a text without control characters", lambda x: _is_text(x))
PATH = TEXT._replace(words="a path", store=os.path.expanduser)
PATTERN = Kind(str, "a regular expression", lambda x: isinstance(x, str) and _compiles(x))
PATTERNS = each(PATTERN)
FACTORS = Kind(  # one for each pattern
    tuple,
    "a tuple of pairs (regular expression, number >= 0), such as (('^head/', 10.0),)",
    lambda x: isinstance(x, tuple | list) and all(map(_is_factor, x)),
)


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


def _interval(text):
    low, high = map(float, text[1:-1].split(","))
    above = (lambda x: low <= x) if text[0] == "[" else (lambda x: low < x)
    below = (lambda x: x <= high) if text[-1] == "]" else (lambda x: x < high)
    return lambda x: above(x) and below(x)


def _is(value, number_type):
    return isinstance(value, number_type) and not isinstance(value, bool)


def _is_text(value):
    return isinstance(value, str) and not re.search(r"[\x00-\x1f\x7f]", value)


def _compiles(pattern):
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_factor(pair):
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    pattern, factor = pair
    return PATTERN.holds(pattern) and _is(factor, Real) and 0 <= factor < math.inf
