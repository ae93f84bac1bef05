"""ImageNet-50, -100 and -200: the classes of the lists that clustering is measured on."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import archives, imagenet_files
from fixed_head_jax.data.builders.definition import Definition, Example

_LISTS = "https://github.com/wvangansbeke/Unsupervised-Classification (data/imagenet_subsets)"
# Number of classes -> start of the sha256 of the WNIDs, joined by newlines.
SHA256 = {50: "ac8134b3c52e7579", 100: "fe8959b5f87ec663", 200: "fca8e3dd52db9f95"}


def imagenet_subset(num_classes: int, manual_dir: Path | None) -> Definition:
    """Defines `imagenet_50`, `imagenet_100` or `imagenet_200`; labels are places in the list.

    The lists are sorted by WNID, each a part of the next. (The first k classes of ImageNet are
    not here: that is `first_classes` of a prepared `imagenet2012`.)

    Args:
        num_classes: 50, 100 or 200.
        manual_dir: holds `imagenet_<num_classes>.txt` (a line begins with a WNID) and the images:
            `ILSVRC2012_img_train.tar` or `train/<wnid>/`, and `ILSVRC2012_img_val.tar` with
            `ILSVRC2012_devkit_t12.tar.gz`, which has its labels, or `val/<wnid>/`.

    Raises:
        ValueError: if one of them is missing or damaged, or the list is another.

    Source: W. Van Gansbeke et al., SCAN: Learning to Classify Images without Labels, ECCV 2020.
    """
    wnids = _read_wnids(manual_dir, num_classes)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    train = imagenet_files.find_train(manual_dir)
    validation = imagenet_files.find_validation(manual_dir)
    classes = {} if validation.is_dir() else imagenet_files.validation_classes(manual_dir)
    return Definition(
        class_names=wnids,
        splits={
            "train": partial(_train, train, labels),
            "validation": partial(_validation, validation, labels, classes),
        },
        counts={"validation": 50 * num_classes},
        description=f"ImageNet-{num_classes}: {num_classes} classes of ILSVRC 2012.",
        homepage=imagenet_files.HOMEPAGE,
    )


def _read_wnids(manual_dir: Path | None, num_classes: int) -> tuple[str, ...]:
    path = archives.find(manual_dir, (f"imagenet_{num_classes}.txt",), _LISTS)
    lines = path.read_text(encoding="utf-8").splitlines()
    wnids = tuple(line.split()[0] for line in lines if line.strip())
    sha256 = hashlib.sha256("\n".join(wnids).encode()).hexdigest()
    if not sha256.startswith(SHA256[num_classes]):
        raise ValueError(
            f"{str(path)!r} is not the list of ImageNet-{num_classes}: the sha256 of its "
            f"{len(wnids)} WNIDs starts with {sha256[:16]}, not {SHA256[num_classes]}; get it "
            f"from {_LISTS}"
        )
    return wnids


def _train(path: Path, labels: Mapping[str, int]) -> Iterator[Example]:
    for image in imagenet_files.train_images(path, labels.__contains__):
        yield Example(image.name, image.read(), labels[image.name.split("/")[1]])


def _validation(
    path: Path, labels: Mapping[str, int], classes: Mapping[str, str]
) -> Iterator[Example]:
    for folder, image in imagenet_files.validation_images(path):
        wnid = classes.get(image.name, folder)
        if wnid in labels:
            yield Example(image.name, image.read(), labels[wnid])
