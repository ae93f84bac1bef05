"""One way to read archives and folders: names, order, and what is refused."""

import io
import os
import random
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from fixed_head_jax.data.builders import archives

KINDS = [".tar", ".tar.gz", ".tgz", ".zip", ""]
TAR_KINDS = [".tar", ".tar.gz"]
RANDOM = {f"top/{i}": random.Random(i).randbytes(600) for i in range(20)}
FILES = {"top/b/2.jpg": b"two" * 700, "top/a.txt": b"", "top/b/1.jpg": b"one", "top/c.jpg": b"c"}


def write_tar(target, files: dict[str, bytes], kind: str = ".tar") -> None:
    mode = "w:" if kind == ".tar" else "w:gz"
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def write(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    """Writes the files, all under top/, as an archive or ("") a folder, and returns its path."""
    path = folder / f"top{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif kind:
        with path.open("wb") as target:
            write_tar(target, files, kind)
    else:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return path


def read(path: Path) -> list[tuple[str, bytes]]:
    return [(member.name, member.read()) for member in archives.members(path)]


def refuses(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_files(tmp_path, kind):
    path = write(tmp_path, kind, FILES)
    before = sorted(tmp_path.rglob("*"))
    in_order = sorted(FILES.items()) if kind == "" else list(FILES.items())
    assert read(path) == in_order
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_names_are_normalised(tmp_path, kind):
    path = write(tmp_path, kind, {"./top//a/./1.jpg": b"1", "top\\b\\2.jpg": b"2"})
    assert [name for name, _ in read(path)] == ["top/a/1.jpg", "top/b/2.jpg"]


def test_folders_and_empty_archives_hold_no_files(tmp_path):
    with tarfile.open(tmp_path / "top.tar", "w") as archive:
        archive.addfile(folder := tarfile.TarInfo("./"))
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert read(write(tmp_path, ".zip", {"top/": b""})) == []
    assert read(write(tmp_path, ".tar.gz", {})) == []


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize(
    "name", ["/top/a", "../a", "top/../../a", "C:/a", "..\\a", "\\\\host\\a\\b"]
)
def test_names_that_point_outside_are_refused(tmp_path, kind, name):
    path = write(tmp_path, kind, {"top/good.jpg": b"1", name: b"2"})
    refuses(path, r"holds .*, which points outside of it")
    with pytest.raises(ValueError) as caught:
        read(path)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("kind", TAR_KINDS)
@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path, kind, type):
    path = tmp_path / f"top{kind}"
    with tarfile.open(path, "w" if kind == ".tar" else "w:gz") as archive:
        header = tarfile.TarInfo("top/odd.jpg")
        header.type, header.linkname = type, "top/a.jpg"
        archive.addfile(header)
    refuses(path, "'top/odd.jpg', a link or device")


def test_links_of_a_zip_are_refused(tmp_path):
    path = tmp_path / "top.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("top/odd.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    refuses(path, "'top/odd.jpg', a link or device")


@pytest.mark.parametrize("target", ["file", "folder", "nowhere"])
def test_links_inside_a_folder_are_refused_but_it_may_be_one(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    path = write(tmp_path, "", FILES)
    (tmp_path / "link").symlink_to(path)
    assert [member.read() for member in archives.members(tmp_path / "link")] == [
        content for _, content in sorted(FILES.items())
    ]
    (path / "b" / "odd.jpg").symlink_to(tmp_path / target)
    refuses(path, "'top/b/odd.jpg', a link or device")


def test_a_pipe_inside_a_folder_is_refused(tmp_path):
    path = write(tmp_path, "", FILES)
    os.mkfifo(path / "odd.jpg")
    refuses(path, "'top/odd.jpg', a link or device")


# An archive of FILES in tar: the first file's header is at 0, its data at 512 ... 3072, the
# second's header, of no data, at 3072, the third's at 3584.
@pytest.mark.parametrize("size", [0, 100, 512, 700, 2612, 3072, 3200, 3584, 4096, 4608, 5632])
def test_a_cut_tar_is_refused(tmp_path, size):
    path = write(tmp_path, ".tar", FILES)
    path.write_bytes(path.read_bytes()[:size])
    refuses(path, "cannot read .*; if it is cut off or damaged, download it again")


@pytest.mark.parametrize("kind", [".tar.gz", ".zip"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_a_cut_compressed_archive_is_refused(tmp_path, kind, share):
    path = write(tmp_path, kind, RANDOM)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuses(path, "cannot read .*; if it is cut off or damaged, download it again")


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_archive_is_refused(tmp_path, kind, share):
    path = write(tmp_path, kind, RANDOM)
    content = bytearray(path.read_bytes())
    # Of a tar only the headers have a checksum; each of these files takes 1,536 bytes.
    middle = round(20 * share) * 1536 + 148 if kind == ".tar" else int(len(content) * share)
    content[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(content)
    refuses(path, "cannot read .*; if it is cut off or damaged, download it again")


def test_the_checksum_at_the_end_of_a_compressed_archive_counts(tmp_path):
    path = write(tmp_path, ".tar.gz", {"top/a.jpg": b"1"})
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(4) + content[-4:])
    refuses(path, "cannot read .*CRC")


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_what_is_no_archive_is_refused(tmp_path, kind):
    path = tmp_path / f"top{kind}"
    path.write_bytes(b"<html>Sign in to download</html>" * 40)
    refuses(path, "cannot read ")


def test_other_kinds_are_refused(tmp_path):
    (tmp_path / "top.rar").touch()
    refuses(tmp_path / "top.rar", "neither a folder nor an archive .*.tar, .tar.gz, .tgz, .zip")


# Archives of archives


@pytest.fixture
def nested(tmp_path):
    """Archives a, b and c of two files each, in one."""
    inner = {}
    for name in "abc":
        write_tar(target := io.BytesIO(), {f"{name}_{i}": f"{name}{i}".encode() for i in range(2)})
        inner[f"{name}.tar"] = target.getvalue()
    return write(tmp_path, ".tar", inner), inner


def test_nested_archives_are_read_where_wanted(nested):
    path, _ = nested
    found = archives.nested_members(path, lambda name: name != "b.tar")
    assert [(member.name, member.read()) for member in found] == [
        ("a.tar/a_0", b"a0"),
        ("a.tar/a_1", b"a1"),
        ("c.tar/c_0", b"c0"),
        ("c.tar/c_1", b"c1"),
    ]


def test_a_damaged_nested_archive_is_named(nested, tmp_path):
    _, inner = nested
    path = write(tmp_path, ".tar", {**inner, "b.tar": inner["b.tar"][:1024]})
    assert len(list(archives.nested_members(path, lambda name: name != "b.tar"))) == 4
    with pytest.raises(ValueError, match="cannot read '.*/top.tar/b.tar': "):
        list(archives.nested_members(path, lambda name: True))


def test_memory_depends_neither_on_the_number_of_files_nor_on_the_archives(tmp_path):
    write_tar(inner := io.BytesIO(), {f"{i}.jpg": bytes(1000) for i in range(2000)})
    path = write(tmp_path, ".tar", {"big.tar": inner.getvalue()})
    del inner
    tracemalloc.start()
    try:
        count = sum(len(m.read()) for m in archives.nested_members(path, lambda name: True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 2_000_000
    assert peak < 300_000  # 2,000 headers alone would be 1,000,000


# Finding and picking


def test_find_takes_the_first_there_is(tmp_path):
    (tmp_path / "b").mkdir()
    assert archives.find(tmp_path, ("a.tar", "b"), "home") == tmp_path / "b"
    (tmp_path / "a.tar").touch()
    assert archives.find(tmp_path, ("a.tar", "b"), "home") == tmp_path / "a.tar"


def test_find_says_what_is_missing_and_where_it_is_published(tmp_path):
    with pytest.raises(ValueError, match="^no a.tar or a in manual_dir '.*'; get it from home"):
        archives.find(tmp_path, ("a.tar", "a"), "home")
    with pytest.raises(ValueError, match=r"manual_dir is not set; .* a.tar or a \(from home\)"):
        archives.find(None, ("a.tar", "a"), "home")


@pytest.mark.parametrize("kind", KINDS)
def test_pick_reads_the_named_files_in_the_order_of_the_archive(tmp_path, kind):
    path = write(tmp_path, kind, FILES)
    wanted = ["top/c.jpg", "top/b/2.jpg"]
    expected = [(name, FILES[name]) for name in reversed(wanted)]
    assert list(archives.pick(archives.members(path), wanted, "a.txt")) == expected


def test_pick_stops_at_the_last_file(tmp_path):
    path = write(tmp_path, ".tar", FILES)
    path.write_bytes(path.read_bytes()[:4000])
    assert len(list(archives.pick(archives.members(path), ["top/a.txt"], "a.txt"))) == 1
    assert list(archives.pick(archives.members(path), [], "a.txt")) == []


def test_pick_counts_what_is_missing(tmp_path):
    path = write(tmp_path, ".tar", FILES)
    names = ["top/z.jpg", "top/a.txt", "top/y.jpg"]
    message = r"2 of the 3 files of a.txt are not in '.*top.tar', among them 'top/y.jpg'"
    with pytest.raises(ValueError, match=message):
        list(archives.pick(archives.members(path), names, "a.txt"))
