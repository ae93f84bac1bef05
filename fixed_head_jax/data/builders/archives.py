"""Reads the files of an archive or a folder, one after the other, without extracting anything."""

import contextlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_TAR_BLOCK = 512  # bytes; a tar archive ends with two of zeros


class Member(NamedTuple):
    """A file of an archive or a folder.

    Attributes:
        name: its path there, with "/"; the files of a folder have the folder's name in front, as
            in an archive of it.
        source: the archive or folder, for messages.
        open: opens the file for reading bytes; works until the next member is asked for.
    """

    name: str
    source: str
    open: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        """Returns the whole file; raises ValueError naming the source if it cannot be read."""
        with _readable(self.source), self.open() as file:
            return file.read()


def find(manual_dir: Path | None, names: Sequence[str], homepage: str) -> Path:
    """Returns the first of some files or folders that there is.

    Args:
        manual_dir: where the user has put them.
        names: what will do, best first.
        homepage: where they are published, for the message.

    Raises:
        ValueError: if there is none of them.
    """
    wanted = " or ".join(names)
    if manual_dir is None:
        raise ValueError(
            f"manual_dir is not set; set it to the folder that holds {wanted} (from {homepage})"
        )
    for name in names:
        path = manual_dir / name
        if path.is_file() or path.is_dir():  # opening a named pipe would hang
            return path
    raise ValueError(
        f"no {wanted} in manual_dir {str(manual_dir)!r}; get it from {homepage} and put it there"
    )


def members(path: Path) -> Iterator[Member]:
    """Iterates over the files of an archive, in its order, or of a folder, by name.

    It is one pass that holds one header at a time (of a .zip its whole index).

    Args:
        path: folder, or file that ends in .tar, .tar.gz, .tgz or .zip.

    Raises:
        ValueError: if `path` is of another kind, cut off or damaged, or if a member is a link or a
            device, absolute, or outside of it ("..").
    """
    if path.is_dir():
        with _readable(str(path)):
            yield from _folder_members(path, path.name, str(path))
    elif path.name.endswith(".zip"):
        yield from _zip_members(path)
    elif path.name.endswith(_TAR_SUFFIXES):
        with _readable(str(path)), path.open("rb") as file:
            yield from _tar_members(file, str(path))
    else:
        known = ", ".join((*_TAR_SUFFIXES, ".zip"))
        raise ValueError(f"{str(path)!r} is neither a folder nor an archive ({known})")


def nested_members(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Iterates over the files of tar archives that lie in a tar archive.

    Args:
        path: the outer archive.
        is_wanted: of the name of an inner archive, whether to read it; others are skipped.

    Yields:
        Members named "inner archive/file".

    Raises:
        ValueError: as `members`.
    """
    for outer in members(path):
        if is_wanted(outer.name):
            with outer.open() as file:
                for inner in _tar_members(file, f"{path}/{outer.name}"):
                    yield inner._replace(name=f"{outer.name}/{inner.name}")


def pick(
    candidates: Iterable[Member], names: Collection[str], listing: str
) -> Iterator[tuple[str, bytes]]:
    """Reads the named members, in their own order; stops at the last of them.

    Args:
        candidates: members to pick from.
        names: of the members wanted.
        listing: what lists these names, for the message.

    Raises:
        ValueError: after the last candidate, if some are not there.
    """
    missing = set(names)
    source = "the archives"
    for member in candidates if missing else ():
        source = repr(member.source)
        if member.name in missing:
            missing.remove(member.name)
            yield member.name, member.read()
            if not missing:
                return
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(names)} files of {listing} are not in {source}, "
            f"among them {min(missing)!r}; get the whole archive"
        )


def _tar_members(file, source):
    with _readable(source), tarfile.open(fileobj=file) as archive:
        while (header := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every header
            name = _checked_name(header.name, source)
            if header.isfile():
                yield Member(name, source, partial(tarfile.ExFileObject, archive, header))
            elif not header.isdir():
                raise _not_a_file(name, source)
        # After the first block of zeros; tarfile takes a missing or damaged header for one.
        if archive.fileobj.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
            raise EOFError("it does not end as a tar archive does")
        while archive.fileobj.read(1 << 16):  # what is compressed has its checksum at the end
            pass


def _zip_members(path):
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _checked_name(info.filename, str(path))
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _not_a_file(name, str(path))
            if not info.is_dir():
                yield Member(name, str(path), partial(archive.open, info))


def _folder_members(folder, prefix, source):
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = f"{prefix}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _folder_members(entry.path, name, source)
        elif entry.is_file(follow_symlinks=False):
            yield Member(name, source, partial[IO[bytes]](open, entry.path, "rb"))
        else:
            raise _not_a_file(name, source)


def _checked_name(name: str, source: str) -> str:
    # The Windows form knows both separators and drive letters.
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise ValueError(f"{source!r} holds {name!r}, which points outside of it; do not use it")
    return path.as_posix()


def _not_a_file(name: str, source: str) -> ValueError:
    return ValueError(f"{source!r} holds {name!r}, a link or device; put the file itself there")


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turns what a damaged file raises into one line that names it."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(
            f"cannot read {source!r}: {reason}; if it is cut off or damaged, download it again"
        ) from error
