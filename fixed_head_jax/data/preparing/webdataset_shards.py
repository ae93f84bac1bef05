"""WebDataset shards: tar files of `KEY.jpg` with `KEY.cls`, or `KEY.json` that holds a label.

Read by the `webdataset` library. The names of the classes, a line each in the order of the labels,
may stand in `classes.txt` beside the shards.
"""

import glob
import json
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders.definition import Definition
from fixed_head_jax.data.preparing.own_splits import Split, define, group_by_split
from fixed_head_jax.data.preparing.text import shorten

NAMES = "classes.txt"
_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
_LABELS = ("cls", "label", "class")  # endings of members, or keys of a .json


def find_files(place: str) -> list[Path]:
    """Returns the shards of a dataset.

    Args:
        place: folder that holds .tar files, or a pattern of them, as `train-{000..012}.tar`,
            `train-*.tar`, or several with `::` between.

    Raises:
        ValueError: if the library is not installed, or there are none.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        found = sorted(folder.rglob("*.tar"))
    else:
        patterns = _load().shardlists.expand_urls(str(folder))
        found = [Path(name) for one in patterns for name in sorted(glob.glob(one)) or [one]]
    if missing := [str(file) for file in found if not file.is_file()]:
        raise ValueError(f"wds:{place} names shards that are not there: {shorten(missing)}")
    if not found:
        raise ValueError(f"wds:{place} has no .tar files; name their folder or a pattern of them")
    return found


def find_names(place: str) -> list[Path]:
    """Returns the file that names the classes, if there is one."""
    names = find_files(place)[0].parent / NAMES
    return [names] if names.is_file() else []


def read(
    place: str, fraction: float | None = None, seed: int = 0, unlabelled: bool = False
) -> Definition:
    """Defines the dataset that shards hold.

    Splits are those that shards, or their folders, are named after: `val-000.tar`, `test/000.tar`.

    Args:
        place: see `find_files`.
        fraction: see `own_splits.define`.
        seed: likewise.
        unlabelled: whether to leave the labels out.

    Raises:
        ValueError: if the library is not installed, a shard cannot be read, or the labels do not
            fit.
    """
    by_split, left_out = group_by_split(find_files(place))
    splits = {
        name: Split(() if unlabelled else _labels(place, group), partial(_images, place, group))
        for name, group in by_split.items()
    }
    class_names = next(map(_read_names, find_names(place)), None)
    where = "::".join(os.path.abspath(os.path.expanduser(one)) for one in place.split("::"))
    description = f"Images of the WebDataset shards {where}"
    return define(splits, description, class_names, fraction, seed, left_out)


def _read_names(path):
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}; mend it or move it") from error
    return [line.strip() for line in lines if line.strip()]


def _labels(place, files):
    samples = _samples(place, files)
    labels = [_label_of(place, sample) for sample in samples]
    if not labels:
        raise ValueError(
            f"wds:{place}: there is no image in {shorten([file.name for file in files])}; members "
            f"are to be named KEY.jpg, where endings are {', '.join(_IMAGES)}"
        )
    return labels


def _label_of(place, sample):
    """Returns the label of a sample: a number where it is one, else a name."""
    where = f"wds:{place}: {sample['__key__']!r} of {Path(sample['__url__']).name}"
    try:
        described = json.loads(sample.get("json", b"{}"))
        written = [sample[ending].decode().strip() for ending in _LABELS if ending in sample]
    except ValueError as error:  # UnicodeError and JSONDecodeError are such
        raise ValueError(f"{where} has a label that cannot be read: {error}") from error
    found = written or [described[key] for key in _LABELS if key in described]
    if not found:
        raise ValueError(
            f"{where} has no .cls, and no .json with a label; set data.unlabelled=True"
        )
    label = int(found[0]) if str(found[0]).removeprefix("-").isdecimal() else found[0]
    if label is not None and not isinstance(label, int | str):
        raise ValueError(f"{where} has the label {label!r}; it must be a whole number or a name")
    return label


def _images(place: str, files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for sample in _samples(place, files):
        shard, key = Path(sample["__url__"]).name, sample["__key__"]
        ending = next(ending for ending in _IMAGES if ending in sample)
        yield f"{shard}/{key}.{ending}", sample[ending]


def _samples(place, files):
    """Iterates over what shards hold of each image, as bytes by ending."""
    reader = _load().tariterators
    try:
        for file in files:
            with file.open("rb") as stream:
                opened = [{"url": str(file), "stream": stream}]
                for sample in reader.group_by_keys(reader.tar_file_expander(opened)):
                    if any(ending in sample for ending in _IMAGES):
                        yield sample
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise ValueError(f"wds:{place} cannot be read: {error}") from error


def _load():
    try:
        import webdataset
    except ImportError as error:
        raise ValueError(
            "wds:PATTERN needs webdataset: pip install 'fixed_head_jax[formats]'"
        ) from error
    return webdataset
