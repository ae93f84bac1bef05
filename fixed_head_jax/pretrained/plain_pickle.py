"""Pickles of plain data, read by their opcodes: nothing in them is imported, built or called.

The standard library's unpickler calls what a file tells it to. To restrict the names that it finds
leaves the rest: attributes set on whatever was built, a memo as large as the file says. Here
`pickletools` splits a pickle into opcodes, and those that plain data is made of are carried out on
Python's own numbers, texts and containers.
"""

import io
import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class UnknownNameError(ValueError):
    """A pickle holds an object that is no plain data; the message is its dotted name."""


class Name(NamedTuple):
    """Stands for a class or function that a pickle names."""

    name: str


Known = Mapping[str, Callable[..., Any] | None]


def read_pickle(file: io.BytesIO | mmap.mmap, known: Known, find: Callable[[Any], Any]) -> Any:
    """Reads a pickle of protocol 2 or later, up to its end and no further.

    Args:
        file: bytes in memory, or mapped to it, at the start of the pickle.
        known: dotted names that may stand in it -> what takes the arguments given for that name;
            None where what would come of them is not needed: it is None then.
        find: takes what the pickle says of something that is kept outside of it.

    Returns:
        The object: numbers, texts, bytes, tuples, lists (for sets, too), dicts (what has another
        key than a text or a whole number is left out), `Name`, and what `known` and `find` return.

    Raises:
        UnknownNameError: on a name that is not known.
        Exception: of many kinds, if the pickle is damaged or holds more than plain data.
    """
    machine = _Machine([], [], {}, known, find)
    for opcode, value, _ in pickletools.genops(file):  # type: ignore[arg-type]  # mmap will do
        if opcode.name == "STOP":
            return machine.stack.pop()
        if opcode.name not in _STEPS:
            raise ValueError(f"opcode {opcode.name} stands in no pickle of plain data")
        _STEPS[opcode.name](machine, value)
    raise ValueError("the pickle has no end")


class _Machine(NamedTuple):
    stack: list
    marks: list  # heights of the stack
    memo: dict
    known: Known
    find: Callable[[Any], Any]

    def pop(self, count):
        items = [self.stack.pop() for _ in range(count)]
        return items[::-1]

    def pop_marked(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_name(self, module, name):
        if f"{module}.{name}" not in self.known:
            raise UnknownNameError(f"{module}.{name}")
        self.stack.append(Name(f"{module}.{name}"))

    def reduce(self):
        name, arguments = self.pop(2)
        if type(name) is not Name or type(arguments) is not tuple:
            raise ValueError("what is called is no name, or has no arguments")
        function = self.known[name.name]
        self.stack.append(function(*arguments) if function else None)

    def add(self, items):
        if type(self.stack[-1]) is not list:
            raise ValueError("what is added to is no list")
        self.stack[-1].extend(items)

    def put(self, items):
        if type(self.stack[-1]) is not dict:
            raise ValueError("what is put into is no dict")
        self.stack[-1].update(to_dict(zip(items[::2], items[1::2], strict=True)))


def to_dict(pairs: Any) -> dict[str | int, Any]:
    """Returns a dict of pairs, but for those whose key is neither a text nor a whole number.

    To hash other keys is not safe: that of a tuple in a tuple, and so on, overflows C's stack.
    """
    return {key: value for key, value in pairs if type(key) in (str, int)}


_VALUES = (
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
)  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, value: None),
    **dict.fromkeys(_VALUES, lambda machine, value: machine.stack.append(value)),
    "NONE": lambda machine, value: machine.stack.append(None),
    "NEWTRUE": lambda machine, value: machine.stack.append(True),
    "NEWFALSE": lambda machine, value: machine.stack.append(False),
    "MARK": lambda machine, value: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine, value: machine.stack.append({}),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, value: machine.stack.append([])),
    "EMPTY_TUPLE": lambda machine, value: machine.stack.append(()),
    "TUPLE1": lambda machine, value: machine.stack.append(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, value: machine.stack.append(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, value: machine.stack.append(tuple(machine.pop(3))),
    "TUPLE": lambda machine, value: machine.stack.append(tuple(machine.pop_marked())),
    "APPEND": lambda machine, value: machine.add(machine.pop(1)),
    **dict.fromkeys(
        ("APPENDS", "ADDITEMS"), lambda machine, value: machine.add(machine.pop_marked())
    ),
    "SETITEM": lambda machine, value: machine.put(machine.pop(2)),
    "SETITEMS": lambda machine, value: machine.put(machine.pop_marked()),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"),
        lambda machine, value: machine.memo.update({value: machine.stack[-1]}),
    ),
    "MEMOIZE": lambda machine, value: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"),
        lambda machine, value: machine.stack.append(machine.memo[value]),
    ),
    "GLOBAL": lambda machine, value: machine.push_name(*value.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, value: machine.push_name(*machine.pop(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, value: machine.reduce()),
    "BUILD": lambda machine, value: machine.pop(1),  # what an object knows beside its items
    "BINPERSID": lambda machine, value: machine.stack.append(machine.find(*machine.pop(1))),
}
