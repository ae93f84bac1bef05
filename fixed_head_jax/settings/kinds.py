"""Kinds of values that a key of a config may hold.

Ranges are written as intervals: "[0, 1)" holds 0 and not 1; infinity and NaN are in none, nor what
computing in float32 would make infinite, or 0 or 1 where these are outside.
"""

import math
import os
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

_LARGEST = 1e300  # far beyond float32, as which it is infinite


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
    one = kind.store or kind.type
    return Kind(tuple, words, holds, store=lambda values: tuple(map(one, values)))


def ascending(kind: Kind, length: int | None = None, strictly: bool = False) -> Kind:
    """Returns the tuples of numbers of a kind that go up: of a length, if given."""
    tuples = each(kind, length, strictly)
    words = f"{tuples.words}, smallest first"
    return tuples._replace(words=words, holds=lambda x: tuples.holds(x) and list(x) == sorted(x))


def either(empty: Any, kind: Kind) -> Kind:
    """Returns the values of a kind, and one that stands for none."""
    words = f"{empty!r} or {kind.words}"
    return kind._replace(words=words, holds=lambda x: x == empty or kind.holds(x))


def _interval(text):
    low, high = map(float, text[1:-1].split(","))
    above = (lambda x: low <= x) if text[0] == "[" else (lambda x: low < _as_computed(x))
    below = (lambda x: x <= high) if text[-1] == "]" else (lambda x: _as_computed(x) < high)
    return lambda x: bool(above(x) and below(x))


def _as_computed(x):
    """Returns a number as float32 has it, which may be a bound that it should not reach."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(min(max(x, -_LARGEST), _LARGEST))


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


FLAG = Kind(bool, "True or False", lambda x: isinstance(x, bool))
TEXT = Kind(str, "a text without control characters", lambda x: _is_text(x))
PATH = TEXT._replace(words="a path", store=os.path.expanduser)
PATTERN = Kind(str, "a regular expression", lambda x: isinstance(x, str) and _compiles(x))
PATTERNS = each(PATTERN)
FACTORS = Kind(  # one for each pattern
    tuple,
    "a tuple of pairs (regular expression, number >= 0), such as (('^head/', 10.0),)",
    lambda x: isinstance(x, tuple | list) and all(map(_is_factor, x)),
    store=lambda pairs: tuple((pattern, float(factor)) for pattern, factor in pairs),
)
COUNT, SOME = whole("[0, 1e9]"), whole("[1, 1e9]")
PIXELS = whole("[0, 65536]")
AT_LEAST_0, POSITIVE = number("[0, inf)"), number("(0, inf)")
SHARE, DECAY = number("[0, 1]"), number("[0, 1)")
EPOCHS = number("[0, 1e9]")
AREAS = ascending(number("(0, 1]"), 2)  # shares of an image's area, from and to
DEVIATIONS = ascending(POSITIVE, 2)
