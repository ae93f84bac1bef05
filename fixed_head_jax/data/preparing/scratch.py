"""Folders for unfinished work: a dataset appears under its name whole or not at all."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"


@contextlib.contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """Makes a folder `root/.name-...` that is gone afterwards, whatever happens.

    What killed processes left behind is removed first. A live process holds the lock of its
    folder, which the kernel frees when it dies: process ids would be of no use on a disk shared
    between machines.

    Args:
        root: directory on the disk where the work will be kept.
        name: dataset, for the name of the folder.

    Raises:
        OSError: if `root` cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f".{name}-*"):
        _remove_if_dead(left)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    with open(folder / f"new_{_LOCK}", "w") as lock:
        try:
            with contextlib.suppress(OSError):  # a disk without locks: nobody will remove it
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Only now can others see the lock: nobody finds it free while we are alive.
                os.rename(lock.name, folder / _LOCK)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    with contextlib.suppress(OSError):  # held by a live process, or gone already
        with open(folder / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, target: Path) -> None:
    """Renames `folder` to `target`; of several processes the first one wins.

    Raises:
        OSError: if `target` cannot be written, or holds something else than a dataset.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not is_complete(target):
            raise


def is_complete(path: Path) -> bool:
    """Returns whether there is a dataset at `path` (.../name/version)."""
    # TFDS's is_prepared warns about a directory that is not there.
    return Path(path, "dataset_info.json").exists()
