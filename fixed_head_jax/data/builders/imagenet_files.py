"""The official files of ImageNet (ILSVRC 2012), shared by the datasets made of them."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from fixed_head_jax.data.builders import archives

HOMEPAGE = "https://image-net.org/download-images.php"
_DEVKIT = "ILSVRC2012_devkit_t12"


def find_train(manual_dir: Path | None) -> Path:
    """Returns `ILSVRC2012_img_train.tar`, or the folder `train` with a folder for each class.

    Raises:
        ValueError: if there is neither.
    """
    return archives.find(manual_dir, ("ILSVRC2012_img_train.tar", "train"), HOMEPAGE)


def find_validation(manual_dir: Path | None) -> Path:
    """Returns `ILSVRC2012_img_val.tar`, or the folder `val`.

    Raises:
        ValueError: if there is neither.
    """
    return archives.find(manual_dir, ("ILSVRC2012_img_val.tar", "val"), HOMEPAGE)


def train_images(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[archives.Member]:
    """Iterates over the training images, one pass over the archive.

    Args:
        path: from `find_train`.
        is_wanted: of a class (WNID), whether to read its images.

    Yields:
        Members named `train/<wnid>/<wnid>_<number>.JPEG`.
    """
    if path.is_dir():
        images = archives.members(path)
    else:  # an archive of archives, one for each class
        images = archives.nested_members(path, lambda name: is_wanted(name.removesuffix(".tar")))
    for image in images:
        file = image.name.rpartition("/")[2]
        wnid = file.partition("_")[0]
        if file.endswith(".JPEG") and is_wanted(wnid):
            yield image._replace(name=f"train/{wnid}/{file}")


def validation_images(path: Path) -> Iterator[tuple[str, archives.Member]]:
    """Iterates over the validation images, one pass over the archive.

    Args:
        path: from `find_validation`.

    Yields:
        (name of the folder that the image is in, member named `val/ILSVRC2012_val_<number>.JPEG`).
    """
    for image in archives.members(path):
        folder, _, file = image.name.rpartition("/")
        if file.endswith(".JPEG"):
            yield folder.rpartition("/")[2], image._replace(name=f"val/{file}")


def validation_classes(manual_dir: Path | None) -> dict[str, str]:
    """Returns the WNID of each validation image, by its name as in `validation_images`.

    Args:
        manual_dir: holds `ILSVRC2012_devkit_t12.tar.gz`, or the folder extracted from it.

    Raises:
        ValueError: if it is missing or damaged.
    """
    path = archives.find(manual_dir, (f"{_DEVKIT}.tar.gz", _DEVKIT), HOMEPAGE)
    truth = f"{_DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
    meta = f"{_DEVKIT}/data/meta.mat"
    files = dict(archives.pick(archives.members(path), [truth, meta], "the development kit"))
    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(files[meta]), squeeze_me=True)["synsets"])
        wnids = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
        numbers = [int(line) for line in files[truth].split()]
        return {
            f"val/ILSVRC2012_val_{position:08}.JPEG": wnids[number]
            for position, number in enumerate(numbers, 1)
        }
    except Exception as error:  # scipy raises many kinds on damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read the classes in {str(path)!r}: {reason}") from error
