"""Adds array_record files to a dataset that TFDS has prepared as TFRecord.

TFDS's own converter needs TensorFlow and Apache Beam for it.
"""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import tensorflow_datasets as tfds
import tqdm
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_generated_pb2

from fixed_head_jax.data.preparing import write
from fixed_head_jax.data.preparing.scratch import scratch_folder

_INFO = "dataset_info.json"


def add_array_record(builder: tfds.core.DatasetBuilder, progress: bool = False) -> None:
    """Converts every shard and names the new format next to the old one.

    The TFRecord files stay as they are and remain what TFDS reads by default; records are copied
    unchanged. Nothing refers to the new files before all are there.

    Args:
        builder: of a dataset with TFRecord files.
        progress: whether to show a bar.

    Raises:
        ValueError: if a file is missing or damaged.
        OSError: if the dataset's folder cannot be written.
    """
    folder = Path(builder.data_path)
    splits = builder.info.splits.values()
    shards = [(split, shard) for split in splits for shard in range(split.num_shards)]
    with scratch_folder(folder, "array_record") as scratch:
        for split, shard in tqdm.tqdm(shards, "shards", disable=not progress):
            template = split.filename_template.replace(
                data_dir=scratch, filetype_suffix="array_record"
            )
            target = template.sharded_filepath(shard_index=shard, num_shards=split.num_shards)
            length = split.shard_lengths[shard]
            write.write_shard(_read_shard(Path(split.filepaths[shard]), length), Path(target))
            if write.num_records(Path(target)) != length:
                raise OSError(f"{target.name} does not hold what was written to it")
        for file in sorted(scratch.glob("*.array_record*")):
            os.replace(file, folder / file.name)
        info = json.loads((folder / _INFO).read_text())
        info["alternativeFileFormats"] = [*info.get("alternativeFileFormats", []), "array_record"]
        (scratch / _INFO).write_text(json.dumps(info, indent=2))
        os.replace(scratch / _INFO, folder / _INFO)


def _read_shard(path: Path, length: int) -> Iterator[bytes]:
    """Iterates over the records of a shard, which must be `length` whole examples."""
    count = 0
    for record in read_records(path):
        try:
            tf_example_generated_pb2.Example.FromString(record)
        except DecodeError as error:
            raise ValueError(
                f"record {count} of {str(path)!r} is no example; prepare the dataset again"
            ) from error
        count += 1
        yield record
    if count != length:
        raise ValueError(
            f"{str(path)!r} has {count} records, the dataset says {length}; prepare it again"
        )


def read_records(path: Path) -> Iterator[bytes]:
    """Iterates over the records of a TFRecord file.

    A record is its length (uint64), the checksum of those 8 bytes, its bytes, their checksum.

    Raises:
        ValueError: if the file is missing or cut off, or a record or its length is damaged.
    """
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is missing; prepare the dataset again")
    position = 0
    with open(path, "rb") as file:
        while header := file.read(12):
            damage = f"{str(path)!r} is damaged at byte {position}; prepare it again"
            if header[8:] != masked_crc32c(header[:8]):
                raise ValueError(damage)
            (length,) = struct.unpack("<Q", header[:8])
            record, checksum = file.read(length), file.read(4)
            if len(checksum) < 4:
                raise ValueError(
                    f"{str(path)!r} is cut off in the record at byte {position}; prepare it again"
                )
            if checksum != masked_crc32c(record):
                raise ValueError(damage)
            position += 16 + length
            yield record


def masked_crc32c(data: bytes) -> bytes:
    """Returns the checksum that TFRecord files hold: CRC-32C, rotated by 15 bits, plus a number.

    Source: the format, https://www.tensorflow.org/tutorials/load_data/tfrecord.
    """
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
