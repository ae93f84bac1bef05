"""From a config to the images of a run: splits, random crops of the host, augmentation."""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from fixed_head_jax.augment import Options, make_augment
from fixed_head_jax.data import Dataset, RandomCrop, open_dataset
from fixed_head_jax.data.crops import check as check_crop
from fixed_head_jax.data.sources import Source
from fixed_head_jax.lookup import check_choice
from fixed_head_jax.model import Classifier

_DATA_KEYS = (
    "first_classes", "skip_classes", "image_size", "resize_size", "interpolation", "placement",
    "num_threads",
)  # fmt: skip
_TRAIN_CROPS = ("center", "random_resized")


def open_splits(config: ConfigDict) -> tuple[Dataset, Dataset]:
    """Returns the data to train on and the data to evaluate on."""
    data = config.data
    open_split = partial(
        open_dataset, data.name, data_dir=config.data_dir, **{key: data[key] for key in _DATA_KEYS}
    )
    train_data = open_split(
        data.train_split, crops=host_crops(data), fraction=data.train_fraction,
        list_file=data.train_list, sampler=data.sampler, per_class=data.per_class,
        repeats=data.repeats,
    )  # fmt: skip
    return train_data, open_split(data.eval_split)


def host_crops(data: ConfigDict) -> dict[str, RandomCrop] | None:
    """Returns the random crop of the training images that the host makes, or None."""
    check_choice("data.train_crop", data.train_crop, _TRAIN_CROPS)
    crop = RandomCrop(data.image_size or 1, data.crop_scale, method=data.crop_interpolation)
    check_crop(crop)  # a wrong value is wrong also where nothing reads it
    if data.train_crop == "center":
        return None
    if not data.image_size:
        raise ValueError("data.train_crop='random_resized' needs data.image_size > 0, got 0")
    return {"image": crop}


def make_augments(
    config: ConfigDict,
    source: Source,
    axis_name: str | None = None,
    mix_steps: int | None = None,
) -> tuple[Callable, Callable]:
    """Returns the augmentations of training and evaluation of `augment.make_augment`.

    Args:
        config: as `build` takes it.
        source: of the images.
        axis_name: mesh axis of the step they run in; None outside.
        mix_steps: steps after which batches are not mixed; None for no end.

    Raises:
        ValueError: if they do not fit the images, or the host's crops.
    """
    for key in ("mean", "std"):
        if len(config.data[key]) not in (1, source.image_shape[-1]):
            raise ValueError(
                f"data.{key} has {len(config.data[key])} values, but images of {source.name!r} "
                f"have {source.image_shape[-1]} channels"
            )
    options = Options(**config.augment)
    if (options.crop_scale or options.pad_crop) and config.data.train_crop != "center":
        raise ValueError(
            f"data.train_crop={config.data.train_crop!r} crops, and so does augment.crop_scale="
            f"{options.crop_scale} or augment.pad_crop={options.pad_crop}; set one of them"
        )
    return make_augment(
        source.image_shape, source.num_classes, config.data.mean, config.data.std, options,
        axis_name, mix_steps,
    )  # fmt: skip


def check_mixing(config: ConfigDict, model: Classifier) -> None:
    """Raises ValueError if labels are mixed that the head's margin needs whole."""
    if (config.augment.mixup or config.augment.cutmix) and hasattr(model.head, "training_logits"):
        raise ValueError(
            "augment.mixup and augment.cutmix mix labels, but the margin of model.head="
            f"{config.model.head!r} needs one label per image; set both to 0"
        )
