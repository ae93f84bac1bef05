"""Files of torch: read without it, and never executed, whatever they hold."""

import argparse
import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.pretrained.files import read_weights
from fixed_head_jax.pretrained.plain_pickle import read_pickle
from tests.pretrained.torch_pickles import (
    NUMBERS,
    REBUILD,
    call,
    mapping,
    name,
    plain,
    storage,
    tensor,
    write,
    write_older,
)
from tests.pretrained.weights import small_dict

WHOLE = mapping(a=tensor((2, 3, 4), (12, 4, 1)))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(params=[write, write_older])
def save(request, file):
    return lambda content, **options: request.param(file, content, **options)


def test_tensors_lie_anywhere_in_their_storage(save):
    content = mapping(
        whole=tensor((2, 3, 4), (12, 4, 1)),
        turned=tensor((4, 3, 2), (1, 4, 12)),
        part=tensor((3, 2), (4, 2), offset=9),
        number=tensor((), (), offset=23),
        empty=tensor((0, 5), (5, 1)),
        older=tensor((24,), (1,), function="torch._utils._rebuild_tensor"),
        learned=call("torch._utils._rebuild_parameter", tensor((2,), (1,)), plain(True), plain({})),
    )
    read = read_weights(save(content))
    whole = NUMBERS.reshape(2, 3, 4)
    expected = {
        "whole": whole, "turned": whole.T, "part": NUMBERS[9:21].reshape(3, 4)[:, :4:2],
        "number": NUMBERS[23], "empty": np.zeros((0, 5)), "older": NUMBERS, "learned": NUMBERS[:2],
    }  # fmt: skip
    assert set(read) == set(expected)
    for key, value in read.items():
        assert value.dtype == np.float32 and value.shape == np.shape(expected[key])
        assert np.array_equal(value, expected[key])
    read["whole"][:] = 0  # arrays are the caller's own


KINDS = {
    "Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip


@pytest.mark.parametrize("is_big", [False, True], ids=["little", "big"])
def test_dtypes_and_byte_orders(tmp_path, is_big):
    numbers = {kind: np.array([1, 0, 3]).astype(dtype) for kind, dtype in KINDS.items()}
    numbers["BFloat16"] = np.array([1.5, -2, 3e38], jnp.bfloat16)
    content = mapping(
        **{
            kind: tensor((3,), (1,), key=kind, kind=f"torch.{kind}Storage", count=3)
            for kind in numbers
        }
    )
    raw = {kind: value.view(f"u{value.itemsize}") for kind, value in numbers.items()}
    raw = {kind: value.byteswap() if is_big else value for kind, value in raw.items()}
    write(tmp_path / "new.pth", content, raw, order="big" if is_big else "little")
    write_older(tmp_path / "old.pth", content, raw, little_endian=not is_big)
    for file in ("new.pth", "old.pth"):
        read = read_weights(tmp_path / file)
        assert set(read) == set(numbers)
        for kind, value in numbers.items():
            assert read[kind].dtype == value.dtype and np.array_equal(read[kind], value)


def test_what_a_training_checkpoint_holds_beside_its_weights(save):
    """Numbers of numpy, options, sets, tuples as keys: all of it is left out."""
    beside = {
        "epoch": 3, "best": np.float64(81.5), "args": argparse.Namespace(lr=0.1, sizes=[1, (2, 3)]),
        "milestones": collections.Counter([30, 60]), "seen": {1, 2}, "mean": np.arange(3),
        "log": collections.defaultdict(list, {"loss": [1.5, None, True]}), ("a", 1): b"\xff",
    }  # fmt: skip
    items = b"".join(plain(key) + plain(value) for key, value in beside.items())
    state = call("collections.OrderedDict") + b"(" + plain("a") + tensor((24,), (1,)) + b"u"
    state += mapping(_metadata=plain({"": {"version": 1}})) + b"b"
    read = read_weights(save(b"}(" + items + plain("state_dict") + state + b"u"))
    assert list(read) == ["a"] and np.array_equal(read["a"], NUMBERS)


# Hostile files.


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


CODE = {
    "system": call("os.system", plain("touch touched")),
    "eval": call("builtins.eval", plain("open('touched', 'w')")),
    "exec, as Python 2 calls it": call("__builtin__.exec", plain("open('touched', 'w')")),
    "getattr": call("builtins.getattr", name("torch.FloatStorage"), plain("mro")),
    "a dotted path": b"\x80\x04" + plain("collections") + plain("OrderedDict.fromkeys") + b"\x93",
    "a module as a name": name("torch._utils.os.system"),
    "a class by INST": b"(" + plain("touch touched") + b"ios\nsystem\n",
    "a class by OBJ": b"(" + name("os.system") + plain("touch touched") + b"o",
    "numpy's own loader": call("numpy.load", plain("file")),
    "a registered extension": b"\x82\x01",
    "a text that is called": plain("torch._utils._rebuild_parameter") + b"(tR",
    "an argument that is called": call(
        "torch._utils._rebuild_parameter", call("collections.OrderedDict"), plain(1)
    )
    + b"(tR",
}


@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
def test_code_is_never_executed(save, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = mapping(a=tensor((24,), (1,)), b=code)
    built = mapping(a=tensor((24,), (1,))) + code + b"b"
    for content in (code, inside, built):
        path = save(content)
        with pytest.raises(ValueError, match=r"weights.pth' cannot be read: [^\n]*$"):
            read_weights(path)
    assert not (tmp_path / "touched").exists()


def test_a_plain_pickle_is_no_file_of_weights(tmp_path, file):
    touched = tmp_path / "touched"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps({"conv1.weight": Bomb(touched)}, protocol=protocol))
        with pytest.raises(ValueError, match="weights.pth"):
            read_weights(file)
    assert not touched.exists()


def test_what_cannot_be_read_is_named(save):
    with pytest.raises(ValueError, match="object, os.x.?.31m y, and not weights"):
        read_weights(save(call("os.x\x1b[31m\x0b\x0b y")))
    whole_model = mapping(model=call("torch.nn.modules.linear.Linear"))
    with pytest.raises(ValueError, match="object, torch.nn.modules.linear.Linear, and not weights"):
        read_weights(save(whole_model))
    sparse = mapping(a=call("torch._utils._rebuild_sparse_tensor", plain(1)))
    with pytest.raises(ValueError, match="kind that is not read here .*_rebuild_sparse_tensor"):
        read_weights(save(sparse))
    for content in (plain({"epoch": 1}), plain({}), plain({"model": {"a": 1}})):
        with pytest.raises(ValueError, match="holds no weights"):
            read_weights(save(content, storages={}))
    for content in (plain([1, 2]), plain(None), tensor((24,), (1,))):
        with pytest.raises(ValueError, match="damaged, or not a file of weights"):
            read_weights(save(content))


LIES = {
    "beyond its storage": tensor((24,), (1,), offset=1),
    "strides beyond it": tensor((2, 3), (30, 1)),
    "a negative stride": tensor((4,), (-1,), offset=3),
    "a negative offset": tensor((4,), (1,), offset=-4),
    "a negative size": tensor((-1,), (1,)),
    "a huge size": tensor((2**62, 2**62), (2**62, 1)),
    "an expanded number": tensor((2**40,), (0,)),
    "as many zeros": tensor((2**62, 2**62, 0), (0, 0, 0)),
    "no number for a size": tensor((1.0,), (1,)),
    "a list of sizes": tensor([4], [1]),
    "strides of another rank": tensor((4,), (1, 1)),
    "another count": tensor((4,), (1,), count=23),
    "a huge count": tensor((4,), (1,), count=2**62),
    "a negative count": tensor((4,), (1,), count=-24),
    "no count": tensor((4,), (1,), count=None),
    "another storage": tensor((4,), (1,), key="1"),
    "a path for a key": tensor((4,), (1,), key="../data.pkl"),
    "a view of a storage": tensor((4,), (1,), more=plain(("0", 0, 4))),
    "a type of nothing": tensor((4,), (1,), kind="collections.OrderedDict"),
    "a tensor of a tensor": call(REBUILD, tensor((4,), (1,)), *map(plain, (0, (4,), (1,)))),
    "no storage": call(REBUILD, plain("0"), *map(plain, (0, (4,), (1,)))),
    "too few arguments": call(REBUILD, storage()),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_tensors_outside_of_their_storage(save, lie):
    with pytest.raises(ValueError, match=r"damaged, or not a file of weights \(.*\)$"):
        read_weights(save(mapping(a=lie)))


NESTED = {
    "a dict in itself": b"}q\x00(" + plain("model") + b"h\x00u",
    "lists in lists": b"]" * 10**4 + b"a" * (10**4 - 1),
    "tuples in tuples as a key": b"})" + b"\x85" * 10**5 + plain(1) + b"s",
    "a memo of 16 GiB": plain({}) + b"r\xff\xff\xff\x7f",
    "a text of 4 GiB": b"X\xff\xff\xff\xff",
    "a number of 2 GiB": b"\x8b\xff\xff\xff\x7f",
    "nothing to put": b"",
    "a mark too few": plain(1) + b"t",
    "a memory of nothing": b"h\x07",
    "half a pair": b"}(" + plain(1) + b"u",
    "items of a text": plain("a") + b"(" + plain("b") + plain("c") + b"u",
}


@pytest.mark.parametrize("content", NESTED.values(), ids=NESTED)
def test_pickles_that_are_to_exhaust_the_reader(file, content):
    with pytest.raises(ValueError, match="weights.pth"):
        read_weights(write(file, content))


def test_a_key_that_cannot_be_hashed_is_left_out(save):
    content = b"}(" + plain((1, 2)) + plain(0) + b"]" + plain(0) + plain("a")
    assert list(read_weights(save(content + tensor((24,), (1,)) + b"u"))) == ["a"]


def test_archives_that_are_bombs(file):
    compressed = {"0": np.zeros(2**22, np.float32)}
    content = mapping(a=tensor((24,), (1,), count=2**22))
    write(file, content, compressed, compression=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 2**16
    with pytest.raises(ValueError, match="weights/byteorder is compressed"):
        read_weights(file)
    # Entries on the bytes of another one, so that few bytes become many arrays.
    keys = [str(key) for key in range(9)]
    content = mapping(**{key: tensor((24,), (1,), key=key) for key in keys})
    write(file, content, dict.fromkeys(keys, NUMBERS))
    data = bytearray(file.read_bytes())
    first = data.index(b"PK\x03\x04", data.index(b"weights/byteorder"))
    at = data.index(b"PK\x01\x02")
    while (at := data.find(b"weights/data/", at + 1)) >= 0:
        data[at - 4 : at] = struct.pack("<I", first)  # where the directory says that it starts
    file.write_bytes(data)
    with pytest.raises(ValueError, match="File name in directory 'weights/data/1' and header"):
        read_weights(file)


@pytest.mark.parametrize("keep", [0, 3, 4, 40, 0.5, -30, -1])
def test_truncated_files(save, file, keep):
    data = save(WHOLE).read_bytes()
    assert read_weights(file)
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="weights.pth' cannot be read: damaged"):
        read_weights(file)


def test_changed_bytes_of_an_archive_are_seen(file):
    data = bytearray(write(file, WHOLE).read_bytes())
    data[data.index(NUMBERS.tobytes()) + 7] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        read_weights(file)


def test_no_file_of_torch(file, tmp_path):
    write_older(file, WHOLE, magic=7)
    with pytest.raises(ValueError, match="does not start as torch's files do"):
        read_weights(file)
    for content in (b"<html>not found</html>", os.urandom(999), b"\0" * 999):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="damaged, or not a file of weights"):
            read_weights(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "none")
    with pytest.raises(ValueError, match="damaged, or not a file of weights"):
        read_weights(file)


def test_random_changes_never_do_more_than_fail(save, file):
    """Of files with a changed byte or two, each is read or refused in one line."""
    data, random, refused = save(WHOLE).read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        changed = bytearray(data)
        for place in random.integers(len(data), size=2):
            changed[place] = random.integers(256)
        file.write_bytes(changed)
        try:
            assert all(array.nbytes <= len(data) for array in read_weights(file).values())
        except ValueError as error:
            refused += "\n" not in str(error)
    assert refused > 30


def test_a_pickle_is_read_to_its_end_and_no_further():
    file = io.BytesIO(pickle.dumps({"a": [1, (2.5, "b")]}, 4) + b"rest")
    assert read_pickle(file, {}, lambda what: what) == {"a": [1, (2.5, "b")]}
    assert file.read() == b"rest"


# Against torch.


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"proto": 5}])
def test_the_same_as_torch_reads(file, options):
    torch = pytest.importorskip("torch", reason="the reader is compared with torch's")
    if "proto" in options:
        options = {"pickle_protocol": options["proto"]}
    tensors = {key: torch.from_numpy(value.copy()) for key, value in small_dict().items()}
    kernel = tensors["conv1.weight"]
    state_dict = tensors | {
        "turned": kernel.transpose(0, 1), "part": kernel[2:5, :, 1], "twice": kernel,
        "half": kernel.half(), "bfloat16": kernel.bfloat16(), "steps": torch.tensor(7),
        "last": kernel.to(memory_format=torch.channels_last), "learned": torch.nn.Parameter(kernel),
    }  # fmt: skip
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    saved = {
        "state_dict": state_dict, "epoch": 1, "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(), "rng": torch.get_rng_state(), "best": np.float64(0.5),
    }  # fmt: skip
    torch.save(saved, file, **options)
    read = read_weights(file)
    assert set(read) == set(state_dict)
    for key, value in state_dict.items():
        assert str(value.dtype) == f"torch.{read[key].dtype}"
        assert np.array_equal(read[key].astype("f8"), value.detach().double().numpy())
    torch.save(network.state_dict(), file, **options)
    assert list(read_weights(file)) == list(network.state_dict())
    torch.save(network, file, **options)
    with pytest.raises(ValueError, match="Python object, torch.nn.modules.container.Sequential"):
        read_weights(file)


def test_released_containers(file):
    head = {"weight": tensor((3, 8), (8, 1)), "s_": tensor((1,), (1,))}
    features = mapping(a=tensor((24,), (1,)))
    write(file, mapping(feat_state_dict=features, fc_state_dict=mapping(**head), stats=plain([1])))
    assert set(read_weights(file)) == {"a", "head.weight", "head.s_"}
    write(file, mapping(model_state=features, epoch=plain(1), acc=plain(81.5)))
    assert set(read_weights(file)) == {"a"}
