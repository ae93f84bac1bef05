"""What a config leaves to the images: their name, the split to evaluate on, their statistics."""

from typing import Any

from ml_collections import ConfigDict

from fixed_head_jax import pretrained
from fixed_head_jax.data import prepared
from fixed_head_jax.data.preparing.own_images import prepare_own_images
from fixed_head_jax.data.statistics import pixel_statistics
from fixed_head_jax.training.experiment.images import open_splits

HELD_OUT = ("validation", "val", "valid", "test")


def settle_images(config: ConfigDict) -> ConfigDict:
    """Returns a config that says everything of its images, as the record of a run keeps it.

    A user's own images (`data.path`) become the name of the dataset prepared of them, an empty
    `data.eval_split` the first of `HELD_OUT` that there is, or `train` where there are no labels.
    Empty `data.mean` and `data.std`, and with them a `data.image_size` of 0, become what the public
    weights of `init_from` expect; mean and deviation without such weights those of the training
    images.

    Raises:
        ValueError: if the images are not there, or cannot be prepared.
    """
    data, values = config.data, dict[str, Any]()
    if data.path:
        name = prepare_own_images(data.path, config.data_dir, data.unlabelled)
        values |= {"data.name": name, "data.path": ""}
    elif not data.name:
        raise ValueError("data.path is empty; name the folder of your photographs")
    expected = pretrained.preprocessing_of(config.init_from) if not data.mean else None
    if expected:
        sizes = ("image_size", "resize_size", "interpolation") if not data.image_size else ()
        values |= {f"data.{key}": getattr(expected, key) for key in ("mean", "std", *sizes)}
    config = _with(config, values)
    if not data.eval_split:
        config = _with(config, {"data.eval_split": _held_out(config)})
    if not config.data.mean or not config.data.std:
        mean, std = pixel_statistics(open_splits(config, takes_views=False).train.source)
        config = _with(config, {"data.mean": data.mean or mean, "data.std": data.std or std})
    return config


def _held_out(config):
    info = prepared.find(config.data.name, config.data_dir).info
    splits = info.splits
    if not info.features["label"].num_classes:
        return "train"
    found = next((split for split in HELD_OUT if split in splits), None)
    if found is None:
        raise ValueError(
            f"dataset {config.data.name!r} has the splits {', '.join(splits)}, of which none is "
            "held out; set data.eval_split and data.train_split, such as 'train[80%:]' and "
            "'train[:80%]'"
        )
    return found


def _with(config, values):
    if not values:
        return config
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config.lock()
