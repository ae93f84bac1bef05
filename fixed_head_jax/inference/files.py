"""The photographs that a user names: files, folders, patterns and lists."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from fixed_head_jax.data.preparing import image_folder


def find_images(names: Sequence[str]) -> Iterator[Path]:
    """Finds images in the order of their names, one after the other: there may be millions.

    Args:
        names: files, of any name; folders, whose visible files of the endings of images are taken,
            those of the folders in them too; patterns such as "holiday/*.jpg"; or text files (.txt)
            that name files, one on each line.

    Raises:
        ValueError: if a name is of nothing that there is.
    """
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from image_folder.find_images(path)
        elif path.suffix == ".txt" and path.is_file():
            with path.open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from (Path(line.rstrip("\r\n")) for line in lines if line.strip())
        elif path.exists():
            yield path
        elif glob.has_magic(name):
            yield from map(Path, sorted(glob.glob(str(path), recursive=True)))
        else:
            raise ValueError(f"--images={name!r} is no file, no folder and no pattern")
