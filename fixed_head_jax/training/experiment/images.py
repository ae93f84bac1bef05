"""From a config to the images of a run: splits, random crops of the host, augmentation."""

from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from fixed_head_jax.augment import Options, ViewSet, make_augment, make_view_augment
from fixed_head_jax.augment.views import NUM_GLOBAL, view_kinds
from fixed_head_jax.data import Dataset, RandomCrop, open_dataset
from fixed_head_jax.data import options as data_options
from fixed_head_jax.data.sources import Source
from fixed_head_jax.model import Classifier
from fixed_head_jax.settings.schema import read

_READING = (  # of every split
    "first_classes", "skip_classes", "image_size", "resize_size", "interpolation", "channels",
    "placement", "num_threads",
)  # fmt: skip


class Splits(NamedTuple):
    """The images of a run: to train on, to evaluate on, and those that evaluators fit to."""

    train: Dataset
    eval: Dataset
    fit: Dataset


def open_splits(config: ConfigDict, takes_views: bool) -> Splits:
    """Returns the images of a run; `takes_views` says whether it trains on sets of views."""
    data = read(data_options.Options, config)
    reading = {key: getattr(data, key) for key in _READING} | {"data_dir": config.data_dir}
    train_data = open_dataset(
        data.name, data.train_split, crops=host_crops(config, takes_views),
        fraction=data.train_fraction, list_file=data.train_list, sampler=data.sampler,
        per_class=data.per_class, repeats=data.repeats, unlabelled=data.unlabelled, **reading,
    )  # fmt: skip
    fit_data = open_dataset(data.name, data.fit_split, **reading) if data.fit_split else train_data
    eval_data = open_dataset(data.name, data.eval_split, **reading)
    return Splits(train_data, eval_data, fit_data)


def host_crops(config: ConfigDict, takes_views: bool) -> dict[str, RandomCrop] | None:
    """Returns the random crops of the training images that the host makes, or None."""
    data = read(data_options.Options, config)
    if data.train_crop == "center":
        return None
    if takes_views:
        return _view_crops(read(ViewSet, config), data.crop_interpolation)
    if not data.image_size:
        raise ValueError("data.train_crop='random_resized' needs data.image_size > 0, got 0")
    return {"image": RandomCrop(data.image_size, data.crop_scale, method=data.crop_interpolation)}


def _view_crops(views, method):
    """Returns the crops of a view set, all made of one decoded image."""
    _, second, *local = view_kinds(views)
    crops = {"global": RandomCrop(second.size, second.scale, method=method, views=NUM_GLOBAL)}
    for kind in local:
        crops["local"] = RandomCrop(kind.size, kind.scale, method=method, views=len(kind.views))
    return crops


def make_augments(
    config: ConfigDict,
    source: Source,
    takes_views: bool,
    axis_name: str | None = None,
    mix_steps: int | None = None,
) -> tuple[Callable, Callable]:
    """Returns the augmentations of training and evaluation, see `augment`.

    Args:
        config: as `build` takes it.
        source: of the images.
        takes_views: whether training takes sets of views.
        axis_name: mesh axis of the step they run in; None outside.
        mix_steps: steps after which batches are not mixed; None for no end.

    Raises:
        ValueError: if they do not fit the images, or the host's crops.
    """
    channels = source.image_shape[-1]
    for key in ("mean", "std"):
        if len(config.data[key]) not in (1, channels):
            raise ValueError(
                f"data.{key} has {len(config.data[key])} values, but images of {source.name!r} "
                f"have {channels} channels; give one for each, or one for all"
                + (", or repeat grey images by data.channels=3" if channels == 1 else "")
            )
    options = read(Options, config)
    pixels = config.data.mean, config.data.std
    if takes_views:
        if options != Options():
            raise ValueError(
                f"augment.* is for single images, but task {config.task.name!r} takes views; "
                "set views.* instead"
            )
        _, eval_augment = make_augment(source.image_shape, source.num_classes, *pixels, options)
        views = read(ViewSet, config)
        return make_view_augment(channels, *pixels, views), eval_augment
    if (options.crop_scale or options.pad_crop) and config.data.train_crop != "center":
        raise ValueError(
            f"data.train_crop={config.data.train_crop!r} crops, and so does augment.crop_scale="
            f"{options.crop_scale} or augment.pad_crop={options.pad_crop}; set one of them"
        )
    return make_augment(
        source.image_shape, source.num_classes, *pixels, options, axis_name, mix_steps
    )


def check_mixing(config: ConfigDict, model: Classifier) -> None:
    """Raises ValueError if labels are mixed that the head's margin needs whole."""
    if read(Options, config).mixes and model.head.has_margin:
        raise ValueError(
            "augment.mixup and augment.cutmix mix labels, but the margin of model.head="
            f"{config.model.head!r} needs one label per image; set both to 0"
        )
