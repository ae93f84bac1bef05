"""Prepares datasets of the TFDS catalog by name, as array_record."""

import importlib.util

import tensorflow_datasets as tfds

from fixed_head_jax.data import prepared
from fixed_head_jax.data.preparing import tfrecord
from fixed_head_jax.data.preparing.scratch import is_complete

# Their code, and TFDS's for archives, opens files through TensorFlow: each was tried.
NEED_TENSORFLOW = (
    "cifar10", "cifar100", "stl10", "imagenet2012", "i_naturalist2018", "cars196",
    "oxford_flowers102", "dtd", "caltech101",
)  # fmt: skip
_EXTRA = ("tensorflow", "importlib_resources")  # what fixed_head_jax[prepare] installs


def prepare_from_catalog(
    name: str, data_dir: str = "", manual_dir: str = "", progress: bool = False
) -> str:
    """Downloads and prepares a TFDS dataset, or converts one that is there as TFRecord.

    Args:
        name: TFDS name, with configuration and version if wanted (`name/config:1.0.0`).
        data_dir: directory of prepared datasets; empty for TFDS's default.
        manual_dir: folder of archives that TFDS cannot download itself; empty for TFDS's default.
        progress: whether to show bars.

    Returns:
        What was done: "prepared", "converted" or "found".

    Raises:
        ValueError: if it cannot be prepared; one line, with the reason.
    """
    try:
        path, builder = prepared.locate(name, data_dir)
        if is_complete(path):
            return _convert(name, builder, progress)
        plain_name = name.partition("/")[0].partition(":")[0]
        if plain_name in NEED_TENSORFLOW and not importlib.util.find_spec("tensorflow"):
            raise ModuleNotFoundError(name="tensorflow")  # before anything is downloaded
        _download_and_prepare(name, data_dir, manual_dir, progress)
        return "prepared"
    except Exception as error:  # downloads, archives and the datasets' own code raise anything
        raise ValueError(_explain(name, error)) from error


def _convert(name: str, builder: tfds.core.DatasetBuilder, progress: bool) -> str:
    formats = prepared.formats(builder)
    if "array_record" in formats:
        return "found"
    if "tfrecord" not in formats:
        raise ValueError(
            f"dataset {name!r} under {str(builder.data_path)!r} is in format "
            f"{', '.join(formats)}; only tfrecord can be converted"
        )
    tfrecord.add_array_record(builder, progress)
    return "converted"


def _download_and_prepare(name: str, data_dir: str, manual_dir: str, progress: bool) -> None:
    builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    prepared.read_features(name, builder.info.features)  # before anything is downloaded
    config = tfds.download.DownloadConfig(manual_dir=manual_dir or None)
    if not progress:
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(download_config=config)
    finally:
        tfds.enable_progress_bar()


def _explain(name: str, error: Exception) -> str:
    """Returns one line for whatever was raised."""
    if missing := _missing_module(error):
        return _needs(name, missing)
    reason = " ".join(str(error).split())[:600] or type(error).__name__
    return reason if name in reason else f"cannot prepare dataset {name!r}: {reason}"


def _needs(name: str, module: str) -> str:
    package = "'fixed_head_jax[prepare]'" if module in _EXTRA else module
    return (
        f"dataset {name!r} needs {'TensorFlow' if module == 'tensorflow' else module} for "
        f"preparing (not for training): run pip install {package} and repeat the command"
    )


def _missing_module(error: BaseException | None) -> str:
    """Returns the module that was not there to be imported, "" if that was not the reason."""
    while error is not None:
        if isinstance(error, ImportError):
            is_tensorflow = "tensorflow" in f"{error.name} {error}".lower()
            return "tensorflow" if is_tensorflow else (error.name or str(error)).split(".")[0]
        error = error.__cause__ or error.__context__
    return ""
