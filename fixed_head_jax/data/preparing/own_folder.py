"""A folder of a user's photographs, prepared the first time that it is named."""

import hashlib
import os
import re
from pathlib import Path

from fixed_head_jax.data.preparing import image_folder
from fixed_head_jax.data.preparing.prepare import dataset_path, prepare
from fixed_head_jax.data.preparing.scratch import is_complete
from fixed_head_jax.display.numbers import format_classes


def prepare_folder(path: str | Path, data_dir: str = "", unlabelled: bool = False) -> str:
    """Prepares a folder of photographs, unless that was done, and returns the dataset's name.

    Unusual images (grey, CMYK, turned by a tag ...) are re-encoded; those that cannot be read are
    left out and listed in DATA_DIR/NAME_problems.txt. The name is the folder's with a digest of the
    names and sizes of its files: a folder that has changed is another dataset.

    Args:
        path: of the form that `image_folder.read` takes, or without labels of any.
        data_dir: directory of prepared datasets, made if missing; empty for TFDS's default.
        unlabelled: whether to read all images in it, and no labels.

    Raises:
        ValueError: if the folder is not of that form, or none of its images can be used.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data.path={str(path)!r} is not a folder; name that of your photographs")
    name = f"{_slug(folder)}_{'unlabelled_' * unlabelled}{_digest(folder)}"
    target = dataset_path(name, data_dir)
    if is_complete(target):
        return name
    print(f"preparing {folder} as {name!r} in {target}", flush=True)
    if unlabelled:
        definition = image_folder.read_unlabelled(folder, channels=3)
    else:
        definition, _ = image_folder.read(folder, channels=3)
    report = prepare(name, definition, data_dir, skip_bad=True, unusual="convert", progress=True)
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    print(f"{format_classes(len(definition.class_names))}; images: {counts}", flush=True)
    if report.left_out:
        problems = target.parents[1] / f"{name}_problems.txt"
        problems.write_text("\n".join(report.left_out) + "\n", "utf-8", "backslashreplace")
        print(f"{len(report.left_out):,} could not be used, listed in {problems}", flush=True)
    return name


def _slug(folder):
    """Returns the name of a folder as that of a dataset."""
    words = re.findall("[a-z0-9]+", folder.resolve().name.lower())
    return "_".join(["folder", *words])


def _digest(folder):
    """Returns what differs where names or sizes of the files in a folder do."""
    digest = hashlib.sha256()
    for parent, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            file = Path(parent, name)
            size = file.stat().st_size if file.exists() else 0
            digest.update(os.fsencode(file.relative_to(folder)) + f"\0{size}\0".encode())
    return digest.hexdigest()[:8]
