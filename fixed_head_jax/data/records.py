"""Stored examples: serialised tf.train.Example messages, read by position."""

import os
from concurrent import futures
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32
from tensorflow_datasets.proto import tf_example_generated_pb2

_SCAN = 256  # records per read when all are scanned


class BadRecordError(ValueError):
    """A stored example that cannot be used, named in one line."""


@runtime_checkable
class Records(Protocol):
    """Random access to serialised examples, as TFDS's data sources give it."""

    def __len__(self) -> int: ...

    def __getitems__(self, positions: list[int]) -> list[bytes]: ...


def parse(record: bytes) -> tuple[bytes, int]:
    """Returns the encoded image and the label of a serialised example."""
    feature = _features(record)
    return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]


def file_name(record: bytes) -> str:
    """Returns the name of the file that an example was made from, empty if it is not stored."""
    feature = _features(record)
    return feature["file_name"].bytes_list.value[0].decode() if "file_name" in feature else ""


def scan_labels(records: Records, num_threads: int) -> Int32[np.ndarray, " n"]:
    """Reads the labels of all examples."""
    return np.array(_scan(records, lambda record: parse(record)[1], num_threads), np.int32)


def scan_file_names(records: Records, num_threads: int) -> list[str]:
    """Reads the file names of all examples."""
    return _scan(records, file_name, num_threads)


def cached_labels(records: Records, cache: Path, num_threads: int) -> Int32[np.ndarray, " n"]:
    """Reads the labels of all examples, from the file `cache` if it is there and has them all.

    Otherwise they are scanned and, if its folder can be written to, saved there: ImageNet's scan
    takes minutes.
    """
    try:
        labels = np.load(cache)
        if labels.shape == (len(records),) and labels.dtype == np.int32:
            return labels
    except (OSError, ValueError, EOFError):  # not there, or not whole
        pass
    labels = scan_labels(records, num_threads)
    scratch = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            np.save(file, labels)
        scratch.replace(cache)  # several processes may be here at once
    except OSError:
        pass  # a dataset that others prepared, for reading only
    return labels


def _features(record):
    return tf_example_generated_pb2.Example.FromString(record).features.feature


def _scan(records, read, num_threads):
    def scan(start):
        positions = list(range(start, min(start + _SCAN, len(records))))
        return [read(record) for record in records.__getitems__(positions)]

    with futures.ThreadPoolExecutor(num_threads) as pool:
        chunks = pool.map(scan, range(0, len(records), _SCAN))
        return [value for chunk in chunks for value in chunk]
