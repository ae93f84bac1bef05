"""Writes examples as a TFDS dataset of array_record shards, without TensorFlow.

TFDS's own writer sorts splits of more than 1 GB through TensorFlow's files. Here the records
pass through a file with random access instead and are read back in their final order, so that
memory stays flat.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_generated_pb2

from fixed_head_jax.data.builders.definition import Definition, Example

VERSION = "1.0.0"
_SHARD = 2**28  # bytes per shard, about
_CHUNK = 64  # records read at a time
_RANDOM = "readahead_buffer_size:0,max_parallelism:0"


class Spill(NamedTuple):
    """The records of a split in one file, and the order that they are to have.

    Attributes:
        path: array_record file.
        order: positions in the file.
        size: bytes of all records.
    """

    path: Path
    order: Sequence[int]
    size: int


def spill(examples: Iterable[Example], path: Path, shuffled: bool) -> Spill:
    """Writes examples to one file as they come.

    Args:
        examples: of one split.
        path: file to write.
        shuffled: whether they are to be ordered by a hash of their names.

    Raises:
        OSError: if the file cannot be written.
    """
    keys: list = []
    size = 0

    def records():
        nonlocal size
        for example in examples:
            record = _serialize(example)
            keys.append(hashlib.sha256(_encode(example.name)).digest() if shuffled else len(keys))
            size += len(record)
            yield record

    write_shard(records(), path, "group_size:1,uncompressed")
    return Spill(path, sorted(range(len(keys)), key=keys.__getitem__), size)


def ordered_records(spilled: Spill) -> Iterator[bytes]:
    """Iterates over the records of a spill in their order."""
    reader = array_record_module.ArrayRecordReader(str(spilled.path), _RANDOM)
    try:
        for start in range(0, len(spilled.order), _CHUNK):
            yield from reader.read(list(spilled.order[start : start + _CHUNK]))
    finally:
        reader.close()


def write_shards(
    records: Iterator[bytes], count: int, size: int, folder: Path, name: str, split: str
) -> tfds.core.SplitInfo:
    """Writes `count` records of `size` bytes in all as the shards of a split.

    Raises:
        OSError: if a shard cannot be written, or does not hold what was written to it.
    """
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    num_shards = min(count, -(-size // _SHARD))
    bounds = [count * shard // num_shards for shard in range(num_shards + 1)]
    lengths = [end - start for start, end in zip(bounds, bounds[1:], strict=False)]
    for shard, length in enumerate(lengths):
        path = Path(template.sharded_filepath(shard_index=shard, num_shards=num_shards))
        write_shard((next(records) for _ in range(length)), path)
        found = num_records(path)
        if found != length:
            raise OSError(f"{path.name} holds {found} records, {length} were written to it")
    if next(records, None) is not None:
        raise OSError(f"split {split!r} has more than the {count} records it was said to have")
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )


def write_shard(records: Iterable[bytes], path: Path, options: str = "group_size:1") -> None:
    """Writes records to one array_record file; the default options are TFDS's.

    Raises:
        OSError: if the file cannot be written.
    """
    with _disk_errors():
        writer = array_record_module.ArrayRecordWriter(str(path), options)
    try:
        for record in records:
            with _disk_errors():
                writer.write(record)
    finally:
        with _disk_errors():
            writer.close()


@contextlib.contextmanager
def _disk_errors():
    """Makes OSErrors of what array_record raises, such as on a full disk."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(" ".join(str(error).split())) from error


def num_records(path: Path) -> int:
    """Returns the number of records of an array_record file."""
    reader = array_record_module.ArrayRecordReader(str(path), _RANDOM)
    try:
        return reader.num_records()
    finally:
        reader.close()


def write_metadata(
    folder: Path, definition: Definition, splits: Sequence[tfds.core.SplitInfo]
) -> None:
    """Writes the files by which TFDS opens the shards in `folder` without any code.

    Raises:
        ValueError: if the names of the classes are not read back as they are.
    """
    shape = definition.image_shape or (None, None, definition.channels)
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(names=list(definition.class_names)),
                "file_name": tfds.features.Text(),
            }
        ),
        split_infos=splits,
        version=VERSION,
        check_data=False,  # it would need TensorFlow
        description=definition.description,
        homepage=definition.homepage,
        supervised_keys=("image", "label"),
        disable_shuffling=not definition.shuffled,
    )
    # A line of a file each, stripped: a name that does not survive would shift all labels.
    names = tfds.builder_from_directory(folder).info.features["label"].names
    if tuple(names) != tuple(definition.class_names):
        changed = sorted({*definition.class_names} - {*names})
        raise ValueError(
            f"class names are not read back as written: {changed[:5]}; use names without blanks at "
            "their ends and line ends"
        )


def _serialize(example: Example) -> bytes:
    """Returns the tf.train.Example that TFDS would write."""
    message = tf_example_generated_pb2.Example()
    feature = message.features.feature
    feature["image"].bytes_list.value.append(example.encoded)
    feature["label"].int64_list.value.append(example.label)
    feature["file_name"].bytes_list.value.append(_encode(example.name))
    return message.SerializeToString(deterministic=True)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "backslashreplace")  # names of files may be any bytes
