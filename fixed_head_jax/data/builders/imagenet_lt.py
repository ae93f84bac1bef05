"""ImageNet-LT: ImageNet with a long tail of classes that have few training images."""

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import archives, imagenet_files
from fixed_head_jax.data.builders.definition import Definition, Example

_HOMEPAGE = "https://github.com/zhmiao/OpenLongTailRecognition-OLTR"
_LISTS = {
    "train": "ImageNet_LT_train.txt",
    "validation": "ImageNet_LT_val.txt",
    "test": "ImageNet_LT_test.txt",
}


def imagenet_lt(manual_dir: Path | None) -> Definition:
    """Defines `imagenet_lt`: 1,000 classes, 115,846 / 20,000 / 50,000 images.

    In training a class has 5 to 1,280 images; `validation` has 20 of each class, taken from the
    training images of ImageNet, and `test` is ImageNet's validation set, 50 of each.

    Args:
        manual_dir: holds `ImageNet_LT_train.txt`, `ImageNet_LT_val.txt`, `ImageNet_LT_test.txt`
            and the images: `ILSVRC2012_img_train.tar` or `train/<wnid>/`, and
            `ILSVRC2012_img_val.tar` or `val/`.

    Raises:
        ValueError: if one of them is missing, or a list is not as published.

    Source: Z. Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019.
    """
    lists = {
        split: _read_list(archives.find(manual_dir, (name,), _HOMEPAGE))
        for split, name in _LISTS.items()
    }
    class_names = _class_names(lists["train"])
    for split, labels in lists.items():
        if max(labels.values()) >= len(class_names):
            raise ValueError(f"{_LISTS[split]} has labels that {_LISTS['train']} has not")
    train = imagenet_files.find_train(manual_dir)
    validation = imagenet_files.find_validation(manual_dir)
    return Definition(
        class_names=class_names,
        splits={s: partial(_examples, train, validation, lists[s], _LISTS[s]) for s in lists},
        counts={"train": 115_846, "validation": 20_000, "test": 50_000},
        description="ImageNet-LT: ILSVRC 2012 with a long tail of classes.",
        homepage=_HOMEPAGE,
    )


def _read_list(path: Path) -> dict[str, int]:
    """Returns the label of each image; a line is a path under train/ or val/, and the label."""
    labels = {}
    for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
        name, _, label = line.strip().rpartition(" ")
        if not name.startswith(("train/", "val/")) or not label.isdecimal():
            raise ValueError(
                f"line {line!r} of {str(path)!r} is not 'train/... label' or 'val/... label'; "
                f"get the list from {_HOMEPAGE}"
            )
        labels[name] = int(label)
    if not labels:
        raise ValueError(f"{str(path)!r} is empty; get it from {_HOMEPAGE}")
    return labels


def _class_names(labels: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the WNIDs by label, from the folders of the training images."""
    classes = sorted({(label, name.split("/")[1]) for name, label in labels.items()})
    if [label for label, _ in classes] != list(range(len(classes))):
        raise ValueError(
            f"{_LISTS['train']} does not give its {len({wnid for _, wnid in classes})} classes one "
            f"label each, from 0 on; get it from {_HOMEPAGE}"
        )
    return tuple(wnid for _, wnid in classes)


def _examples(
    train: Path, validation: Path, labels: Mapping[str, int], listing: str
) -> Iterator[Example]:
    wnids = {name.split("/")[1] for name in labels if name.startswith("train/")}
    sources = []
    if wnids:
        sources.append(imagenet_files.train_images(train, wnids.__contains__))
    if any(name.startswith("val/") for name in labels):
        sources.append(image for _, image in imagenet_files.validation_images(validation))
    for name, encoded in archives.pick(itertools.chain(*sources), labels, listing):
        yield Example(name, encoded, labels[name])
