"""Files of `torch.save`, read without torch: tensors and nothing else.

The one format is a zip archive (torch 1.6 and later), `NAME/data.pkl` and the storages
`NAME/data/KEY` beside it; the other, before it, several pickles in a row with the storages behind
them. Pickles are read by `plain_pickle`, which calls nothing but the functions below.
"""

import dataclasses
import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from fixed_head_jax.pretrained.plain_pickle import Name, read_pickle, to_dict

_MAGIC = 0x1950A86A20F9469CFC6C  # in front of the older format
_DTYPES: dict[str, DTypeLike] = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers in a row, kept under `key`."""

    key: str | int
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    """Part of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_):
    """Takes what torch keeps of a tensor; whether it has a gradient comes last, and is dropped."""
    numbers = (offset, *shape, *strides)
    is_tensor = type(storage) is Storage and type(shape) is type(strides) is tuple
    if not is_tensor or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("what is rebuilt is no tensor")
    if len(shape) != len(strides):
        raise ValueError(f"tensor of shape {shape} has strides {strides}")
    return Tensor(storage, offset, shape, strides)


# What stands in a training checkpoint; None: what a state dict does without.
_KNOWN: dict[str, Callable[..., Any] | None] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "collections.OrderedDict": lambda pairs=(): to_dict(pairs),
    "collections.defaultdict": lambda factory=None: {},
    **dict.fromkeys(_DTYPES),
    **{f"torch.{name}": None for name in ("Size", "device")},
    **{f"torch.{np.dtype(dtype).name}": None for dtype in _DTYPES.values()},
    # Best accuracies, milestones of a schedule, the options of the run.
    **{f"{place}.{name}": None for place in ("builtins", "__builtin__") for name in
       ("dict", "float", "int", "list", "set")},
    "_codecs.encode": None,
    "argparse.Namespace": None,
    "collections.Counter": None,
    "numpy.dtype": None,
    "numpy.ndarray": None,
    **{f"numpy.{core}.{name}": None for core in ("core", "_core") for name in
       ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")},
}  # fmt: skip


def read_torch(path: str | Path, select: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """Reads the tensors of a file of `torch.save`; nothing in it is executed.

    Args:
        path: of the file.
        select: takes what the file holds, in dicts, lists, numbers and texts, and returns the dict
            whose tensors are wanted.

    Returns:
        Name -> array; two tensors on one storage share their memory.

    Raises:
        UnknownNameError: if it holds objects that are neither tensors nor plain data.
        Exception: of many kinds, if it is damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _arrays(select, *_open_archive(archive))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _arrays(select, *_open_pickles(content))


def _open_archive(archive):
    """Returns what a zip archive holds, how to read storages, and whether bytes are swapped."""
    (pickle,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    folder = pickle.removesuffix("data.pkl")

    def read(name):
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed, as torch never does")
        return archive.read(name)

    is_big = f"{folder}byteorder" in archive.namelist() and read(f"{folder}byteorder") == b"big"
    with io.BytesIO(read(pickle)) as file:
        tree = read_pickle(file, _KNOWN, _storage)
    return tree, lambda storage: read(f"{folder}data/{storage.key}"), is_big


def _open_pickles(content):
    """Returns the same of the older format: pickles in a row, and storages behind them."""
    storages: dict[Any, Storage] = {}

    def find(what):
        storage = _storage(what)
        return storages.setdefault(storage.key, storage)

    magic, _, system, tree, keys = (read_pickle(content, _KNOWN, find) for _ in range(5))
    if magic != _MAGIC:
        raise ValueError("it does not start as torch's files do")
    start, places = content.tell(), {}
    for key in keys:
        (count,) = struct.unpack_from("<q", content, start)
        if count != storages[key].count:
            raise ValueError(f"storage {key} holds {count} numbers, not {storages[key].count}")
        places[key] = start + 8
        start += 8 + _num_bytes(storages[key])

    def read(storage):
        return content[places[storage.key] : places[storage.key] + _num_bytes(storage)]

    return tree, read, not system["little_endian"]


def _storage(what):
    """Takes what a pickle says of a storage: its type, key, device and size."""
    kind, dtype, key, _, count, *view = what
    if kind != "storage" or type(dtype) is not Name or type(key) not in (str, int) or any(view):
        raise ValueError("what is kept outside is no storage")
    if type(count) is not int or count < 0:
        raise ValueError(f"storage {key} has {count!r} numbers")
    return Storage(key, np.dtype(_DTYPES[dtype.name]), count)


def _num_bytes(storage):
    return storage.count * storage.dtype.itemsize


def _arrays(select, tree, read, is_swapped):
    """Returns the arrays of the tensors that are selected."""
    buffers, arrays = {}, {}
    for name, tensor in select(tree).items():
        if type(tensor) is not Tensor:
            continue
        storage = tensor.storage
        if storage not in buffers:
            data = read(storage)
            if len(data) != _num_bytes(storage):
                raise ValueError(f"storage {storage.key} is not of {_num_bytes(storage)} bytes")
            buffers[storage] = _native(data, storage.dtype.itemsize if is_swapped else 1)
        arrays[str(name)] = _array(tensor, buffers[storage])
    return arrays


def _native(data, item_size):
    """Returns bytes that can be written to, those of every number turned round."""
    return np.frombuffer(bytearray(data), f"u{item_size}").byteswap(inplace=True)


def _array(tensor, buffer):
    """Returns a tensor on the bytes of its storage."""
    count, item_size = math.prod(tensor.shape), tensor.storage.dtype.itemsize
    spans = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    # An expanded tensor would be as large as its shape says as soon as it is copied.
    if count and max(count, tensor.offset + sum(spans) + 1) > tensor.storage.count:
        raise ValueError(f"tensor of shape {tensor.shape} is larger than its storage")
    if not count:
        return np.zeros(tensor.shape, tensor.storage.dtype)
    strides = [stride * item_size for stride in tensor.strides]
    return np.ndarray(
        tensor.shape, tensor.storage.dtype, buffer, tensor.offset * item_size, strides
    )
