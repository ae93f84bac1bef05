"""Files as torch writes them, without torch: pickles by hand, in opcodes of protocol 2."""

import io
import pickle
import struct
import zipfile

import numpy as np

NUMBERS = np.arange(24, dtype=np.float32)
REBUILD = "torch._utils._rebuild_tensor_v2"
_KINDS = {"float32": "Float", "float64": "Double", "int64": "Long"}


def plain(value):
    return pickle.dumps(value, protocol=2)[2:-1]


def name(dotted):
    module, _, last = dotted.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(dotted, *arguments):
    return name(dotted) + b"(" + b"".join(arguments) + b"tR"


def storage(key="0", kind="torch.FloatStorage", count=24, more=b""):
    content = plain("storage") + name(kind) + plain(key) + plain("cpu") + plain(count) + more
    return b"(" + content + b"tQ"


def tensor(shape, strides, offset=0, function=REBUILD, **where):
    arguments = map(plain, (offset, shape, strides, False))
    return call(function, storage(**where), *arguments, call("collections.OrderedDict"))


def mapping(**items):
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def write(path, content, storages=None, order="little", **options):
    """Writes the format of today: a zip archive."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("weights/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("weights/byteorder", order)
        for key, data in ({"0": NUMBERS} if storages is None else storages).items():
            archive.writestr(f"weights/data/{key}", bytes(data))
    return path


def write_older(path, content, storages=None, little_endian=True, magic=0x1950A86A20F9469CFC6C):
    """Writes the format before torch 1.6: pickles in a row, then the storages."""
    storages = {"0": NUMBERS} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"int": 4}}
    file = io.BytesIO()
    for part in (plain(magic), plain(1001), plain(system), content, plain(list(storages))):
        file.write(b"\x80\x02" + part + b".")
    for data in storages.values():
        file.write(struct.pack("<q", data.size) + data.tobytes())
    path.write_bytes(file.getvalue())
    return path


def save(path, tree, writer=write):
    """Writes dicts of arrays and of what else pickles, as `torch.save` does."""
    storages = {}

    def encode(value):
        if isinstance(value, dict):
            return b"}(" + b"".join(plain(k) + encode(v) for k, v in value.items()) + b"u"
        if not isinstance(value, np.ndarray):
            return plain(value)
        key = str(len(storages))
        storages[key] = np.ascontiguousarray(value)
        strides = tuple(step // value.itemsize for step in np.empty_like(value, order="C").strides)
        kind = f"torch.{_KINDS[value.dtype.name]}Storage"
        return tensor(value.shape, strides, key=key, kind=kind, count=value.size)

    return writer(path, encode(tree), storages)
