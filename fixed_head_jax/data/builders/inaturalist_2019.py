"""iNaturalist 2019: 1,010 species, in training as uneven as they are observed."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from fixed_head_jax.data.builders import archives
from fixed_head_jax.data.builders.definition import Definition, Example

_HOMEPAGE = "https://github.com/visipedia/inat_comp/tree/master/2019"
_LISTS = {"train": "train2019.json", "validation": "val2019.json"}


def inaturalist_2019(manual_dir: Path | None) -> Definition:
    """Defines `inaturalist_2019`: 265,213 images to train, 3,030 (3 of each class) to validate.

    The labels of the official test images are not public.

    Args:
        manual_dir: holds `train_val2019.tar.gz`, or the folder extracted from it, and
            `train2019.json` and `val2019.json`, or the archives of them (`.json.tar.gz`).

    Raises:
        ValueError: if one of them is missing or damaged.

    Source: G. Van Horn et al., The iNaturalist Species Classification and Detection Dataset, CVPR
        2018; the challenge of 2019.
    """
    names = ("train_val2019.tar.gz", "train_val2019")
    path = archives.find(manual_dir, names, _HOMEPAGE)
    lists = {split: _read_list(manual_dir, name) for split, name in _LISTS.items()}
    class_names = lists["train"][0]
    if lists["validation"][0] != class_names:
        raise ValueError(
            f"train2019.json and val2019.json in {str(manual_dir)!r} have not the same categories; "
            f"get both from {_HOMEPAGE}"
        )
    return Definition(
        class_names=class_names,
        splits={s: partial(_examples, path, lists[s][1], _LISTS[s]) for s in _LISTS},
        counts={"train": 265_213, "validation": 3030},
        description="Plants and animals of 1,010 species (iNaturalist 2019).",
        homepage=_HOMEPAGE,
    )


def _read_list(manual_dir, name) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the names of the classes, by their number, and the label of each image."""
    path = archives.find(manual_dir, (name, name + ".tar.gz"), _HOMEPAGE)
    if path.name == name:
        text = path.read_bytes()
    else:
        ((_, text),) = archives.pick(archives.members(path), [name], "the annotations")
    try:
        content = json.loads(text)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        category_of = {note["image_id"]: note["category_id"] for note in content["annotations"]}
        labels = {
            image["file_name"]: label_of[category_of[image["id"]]] for image in content["images"]
        }
        return tuple(str(category["name"]) for category in categories), labels
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is not the {name} of {_HOMEPAGE} ({type(error).__name__}: {error})"
        ) from error


def _examples(path: Path, labels: Mapping[str, int], listing: str) -> Iterator[Example]:
    for name, encoded in archives.pick(archives.members(path), labels, listing):
        yield Example(name, encoded, labels[name])
