"""Finds a dataset on disk in the format we read, or says in one line what is missing."""

import difflib
import hashlib
import shlex
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from fixed_head_jax.data.builders import DEFINITIONS
from fixed_head_jax.data.preparing.prepare import dataset_path, prepare
from fixed_head_jax.data.preparing.scratch import is_complete
from fixed_head_jax.data.records import Records


def find(name: str, data_dir: str = "") -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a dataset that is prepared as array_record.

    The digits need no files and are prepared on first use.

    Args:
        name: one of `DEFINITIONS`, a TFDS name, with configuration and version if wanted
            (`name/config:1.0.0`), or the name that an image folder was prepared under.
        data_dir: directory of prepared datasets; empty for TFDS's default.

    Raises:
        ValueError: if the directory, the dataset or its files in this format are missing.
    """
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"data_dir {data_dir!r} is not a directory; create it or correct the path")
    if name == "digits" and not is_complete(dataset_path(name, data_dir)):
        prepare(name, DEFINITIONS[name](None), data_dir)
    path, builder = locate(name, data_dir)
    if builder is None or not is_complete(path):
        more = " --manual_dir=FOLDER_OF_ITS_ARCHIVES" if name in DEFINITIONS else ""
        raise ValueError(
            f"dataset {name!r} is not prepared under {str(path)!r}; run "
            f"`{command(name, data_dir)}{more}` or set data_dir to where it is"
        )
    found = formats(builder)
    if "array_record" not in found:
        raise ValueError(
            f"dataset {name!r} under {str(path)!r} is in format {', '.join(found)}, which has no "
            f"random access; run `{command(name, data_dir)}`, which adds array_record files"
        )
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        builder.info.set_file_format("array_record", override=True, override_if_initialized=True)
    return builder


def locate(name: str, data_dir: str = "") -> tuple[Path, tfds.core.DatasetBuilder | None]:
    """Returns where a dataset is or will be kept, and its builder.

    The builder is None for one of ours that is not prepared.

    Raises:
        ValueError: if the name is neither ours nor known to TFDS nor that of prepared files.
    """
    if name in DEFINITIONS:
        path = dataset_path(name, data_dir)
        return path, tfds.builder_from_directory(path) if is_complete(path) else None
    builder = _tfds_builder(name, data_dir)
    return Path(builder.data_path), builder


def fingerprint(folder: Path) -> str:
    """Returns a short text that changes when the stored files of a dataset do."""
    files = sorted(path for path in folder.glob("*.array_record*") if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def formats(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Returns the file formats that a prepared dataset is there in.

    TFDS forgets all but the first when it opens a dataset; the protocol buffer has them.
    """
    message = builder.info.as_proto
    return (message.file_format or "tfrecord", *message.alternative_file_formats)


def read_features(
    name: str, features: tfds.features.FeaturesDict, channels: int = 0
) -> tuple[tuple, tuple[str, ...]]:
    """Returns the image shape, None where it varies, and the class names.

    Args:
        name: dataset.
        features: of the dataset.
        channels: to read images with: 0 as stored; 3 also where they are grey.

    Raises:
        ValueError: if the dataset is not for image classification, or has no such channels.
    """
    image = features["image"] if "image" in features else None
    label = features["label"] if "label" in features else None
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise ValueError(
            f"dataset {name!r} is not for image classification: it needs an Image feature 'image' "
            f"and a ClassLabel feature 'label', got {sorted(features)}; choose another dataset"
        )
    if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"images of dataset {name!r} must be uint8 with 1 or 3 channels, got "
            f"{np.dtype(image.np_dtype).name} of shape {image.shape}; choose another dataset"
        )
    *sides, stored = image.shape
    if channels not in (0, stored, 3):
        raise ValueError(
            f"data.channels must be 0 (as stored) or 3 (grey images repeated), got {channels} for "
            f"dataset {name!r} with {stored}; colours are not made grey"
        )
    return (*sides, channels or stored), tuple(label.names)


def open_records(name: str, split: str, builder: tfds.core.DatasetBuilder) -> Records:
    """Opens the serialised examples of a split, slices included.

    Raises:
        ValueError: if there is no such split, or it is empty.
    """
    try:
        records = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        count = len(records)
    except Exception as error:  # TFDS raises ValueError, AssertionError, KeyError ...
        names = ", ".join(builder.info.splits)
        raise ValueError(
            f"unknown split {split!r} of dataset {name!r}; use one of {names}, "
            "or a part such as 'train[:80%]'"
        ) from error
    if count == 0:
        raise ValueError(f"split {split!r} of dataset {name!r} is empty; choose a larger part")
    return records


def command(name: str, data_dir: str) -> str:
    """Returns the command line that prepares a dataset."""
    place = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return f"python -m fixed_head_jax.data prepare {name}{place}"


def _tfds_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:  # TFDS raises many types: bad names, configurations, versions
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"cannot open dataset {name!r}: {reason}") from error
    known = [*DEFINITIONS, *tfds.list_builders(with_community_datasets=False)]
    close = difflib.get_close_matches(name.partition("/")[0].partition(":")[0], known)
    hint = f"did you mean {', '.join(close)}?" if close else "use a name of the TFDS catalog"
    place = f" and none of that name is prepared under {data_dir!r}" if data_dir else ""
    raise ValueError(f"unknown dataset {name!r}{place}; {hint}")
