"""Sources: random access to the images and labels of one split."""

import dataclasses
import hashlib
import os
import urllib.parse
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from fixed_head_jax.data import crops, prepared, selection
from fixed_head_jax.data.decoding import decode
from fixed_head_jax.data.options import Options
from fixed_head_jax.data.records import (
    BadRecordError,
    Records,
    cached_labels,
    file_name,
    parse,
    scan_file_names,
)

_FINGERPRINTED = 64  # records


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds an open split; build it with `open_source`.

    Records are read raw and decoded here: TFDS's own decoding of one element at a time is 17
    times slower on CIFAR-10.

    Attributes:
        name: dataset name.
        split: split, in TFDS's syntax.
        num_classes: number of classes; labels are 0 ... num_classes - 1. 0: none are known.
        first_label: what the records call the class 0.
        class_names: their names.
        image_shape: (height, width, channels) of every image.
        records: random access to the serialised examples.
        kept: positions in `records` that belong to the source, or None for all of them.
        all_labels: `() -> label of every record`.
        all_names: `() -> file name of every record`, empty where it is not stored.
        fit: brings a decoded image to `image_shape`.
        unlabelled: whether labels may be -1, not known.
    """

    name: str
    split: str
    num_classes: int
    first_label: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    records: Records
    kept: Int32[np.ndarray, " n"] | None
    all_labels: Callable
    all_names: Callable
    fit: Callable
    unlabelled: bool = False

    def __len__(self) -> int:
        return len(self.records) if self.kept is None else len(self.kept)

    @property
    def full_name(self) -> str:
        """Split and dataset, for people and to compare."""
        return f"{self.split!r} of {self.name!r}"

    @cached_property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of every example; scans the split when first asked for.

        Raises:
            BadRecordError: if a label is out of range, naming dataset, split and index.
        """
        labels = self.all_labels()
        positions = np.arange(len(labels)) if self.kept is None else self.kept
        labels = labels[positions] - self.first_label
        wrong = np.flatnonzero(self._is_wrong(labels))
        if len(wrong):
            raise self._bad_record(int(positions[wrong[0]]), self._wrong_label(labels[wrong[0]]))
        return labels

    @cached_property
    def names(self) -> list[str]:
        """The name of every example's file, empty where it is not stored; scans the split.

        Raises:
            BadRecordError: if a record cannot be read.
        """
        names = self.all_names()
        return names if self.kept is None else [names[position] for position in self.kept]

    def describe(self) -> str:
        """Says what it holds in a line that differs where classes, counts or images do.

        Its fingerprint is of the class names and of some of the records, spread over all of them.
        """
        positions = np.linspace(0, len(self.records) - 1, _FINGERPRINTED).astype(int).tolist()
        digest = hashlib.sha256(repr(self.class_names).encode())
        for record in self._read_raw(positions):
            image, label = parse(record)
            digest.update(image + label.to_bytes(8, "little", signed=True))
        names = ", ".join(self.class_names[:3]) + ", ..." * (self.num_classes > 3)
        classes = f"of {self.num_classes:,} classes ({names})" if names else "without labels"
        return f"{len(self):,} images {classes}, fingerprint {digest.hexdigest()[:16]}"

    def read(
        self, indices: Integer[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]:
        """Reads the images and labels of the examples `indices`; see `read_each`."""
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        self.read_each(indices, labels, lambda i, encoded: self.write_image(encoded, images[i]))
        return images, labels

    def write_image(self, encoded: bytes, out: UInt8[np.ndarray, "h w c"]) -> None:
        """Decodes an image and brings it to `image_shape`, in `out`."""
        out[...] = self.fit(decode(encoded, self.image_shape[-1]))

    def read_each(
        self, indices: Integer[np.ndarray, " b"], labels: Int32[np.ndarray, " b"], use: Callable
    ) -> None:
        """Reads the examples `indices`; safe to call from many threads.

        Args:
            indices: of the examples.
            labels: where their labels go.
            use: called with the place of each example in `indices` and its encoded image.

        Raises:
            BadRecordError: if a record cannot be read or `use` raises on it, naming dataset, split
                and index.
            ValueError: if there is no such example.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise ValueError(f"indices must be in 0 ... {len(self) - 1}, got {indices}")
        positions = (indices if self.kept is None else self.kept[indices]).tolist()
        for i, record in enumerate(self._read_raw(positions)):
            try:
                image, label = parse(record)
                label -= self.first_label
                if self._is_wrong(label):
                    raise self._wrong_label(label)
                labels[i] = label
                use(i, image)
            except Exception as error:  # protobuf, the decoders and we raise different types
                raise self._bad_record(positions[i], error, record) from error

    def _read_raw(self, positions: list[int]) -> list[bytes]:
        try:
            return self.records.__getitems__(positions)
        except Exception:  # which one? read them one by one
            for position in positions:
                try:
                    self.records.__getitems__([position])
                except Exception as error:
                    raise self._bad_record(position, error) from error
            raise

    def _is_wrong(self, label):
        """Returns whether a label, or each of an array, is out of range."""
        return (label < (-1 if self.unlabelled else 0)) | (label >= self.num_classes)

    def _wrong_label(self, label) -> ValueError:
        first, end = self.first_label, self.first_label + self.num_classes
        is_unknown = label + first == -1
        hint = "; if it stands for an unknown one, set data.unlabelled=True" if is_unknown else ""
        return ValueError(f"label {label + first} is outside {first} ... {end - 1}{hint}")

    def _bad_record(self, position: int, error: Exception, record: bytes = b"") -> BadRecordError:
        try:
            name = file_name(record)
        except Exception:  # what is wrong may be the record itself
            name = ""
        return BadRecordError(
            f"dataset {self.name!r} split {self.split!r}: bad record at index {position}"
            f"{name and f', file {name!r}'} ({error or type(error).__name__}); "
            "prepare the dataset again"
        )


def open_source(
    name: str,
    split: str,
    data_dir: str = "",
    first_classes: int = 0,
    skip_classes: int = 0,
    fraction: float = 1.0,
    list_file: str = "",
    image_size: int = 0,
    resize_size: int = 0,
    interpolation: str = "bilinear",
    num_threads: int = 0,
    *,
    unlabelled: bool = False,
    channels: int = 0,
) -> Source:
    """Opens one split of a prepared dataset.

    Args:
        name: TFDS name, or one of `builders.DEFINITIONS`.
        split: TFDS split, slices included: `train[:80%]`.
        data_dir: directory of prepared datasets; empty for TFDS's default.
        first_classes: keep only the labels below it; 0 keeps all. Scans the labels.
        skip_classes: leave out the labels below it; the others then count from 0.
        fraction: share of the examples of each class to keep, see `selection.stratified`.
        list_file: text file that names the files to keep, one on each line; empty keeps all.
        image_size: side of the images in pixels: shorter side resized, centre cropped; 0 keeps
            images of one fixed shape as they are.
        resize_size: length of the shorter side before that crop; 0 is `image_size`.
        interpolation: of that resizing: "bilinear" or "bicubic", both antialiased.
        num_threads: threads that scan labels; 0 for one per CPU.
        unlabelled: whether the split's labels are not known (stored as -1); they are given as -1,
            as are all of a dataset without classes. Nothing can then be chosen by class.
        channels: 0 as stored; 3 also repeats grey images, as networks for RGB images take them.

    Raises:
        ValueError: if the dataset, split or an option does not fit.
    """
    Options(  # refuses what its keys may not be
        first_classes=first_classes, skip_classes=skip_classes, train_fraction=fraction,
        train_list=list_file, image_size=image_size, resize_size=resize_size,
        interpolation=interpolation, unlabelled=unlabelled, channels=channels,
    )  # fmt: skip
    builder = prepared.find(name, data_dir)
    shape, class_names = prepared.read_features(name, builder.info.features, channels)
    classes = _classes(name, len(class_names), skip_classes, first_classes)
    if image_size == 0 and None in shape:
        raise ValueError(f"images of dataset {name!r} vary in size; set data.image_size, got 0")
    records = prepared.open_records(name, split, builder)
    num_threads = num_threads or os.cpu_count() or 1
    folder, quoted = Path(builder.data_path), urllib.parse.quote(split, safe="")
    file = folder / f"labels-{quoted}-{prepared.fingerprint(folder)}.npy"
    where = f"{split!r} of {name!r}"
    labels = cache(_named(where, partial(cached_labels, records, file, num_threads)))
    names = _named(where, partial(scan_file_names, records, num_threads))
    return Source(
        name=name,
        split=split,
        num_classes=len(classes),
        first_label=classes.start,
        class_names=class_names[classes.start : classes.stop],
        image_shape=(image_size, image_size, shape[-1]) if image_size else shape,
        records=records,
        kept=_select(
            labels,
            names,
            classes if len(classes) < len(class_names) else None,
            fraction,
            list_file,
            where,
        ),
        all_labels=labels,
        all_names=names,
        fit=_make_fit(image_size, resize_size, interpolation, shape),
        unlabelled=unlabelled or not class_names,
    )


def _named(where: str, scan: Callable) -> Callable:
    """Returns the scan of a whole split, with errors that say where."""

    def scan_or_say():
        try:
            return scan()
        except Exception as error:  # array_record, protobuf and numpy raise different types
            reason = " ".join(str(error).split())
            raise BadRecordError(
                f"cannot read split {where} ({reason}); prepare the dataset again"
            ) from error

    return scan_or_say


def _classes(name, num_classes, skip_classes, first_classes):
    """Returns the labels to keep."""
    if first_classes and not 2 <= first_classes <= num_classes:
        raise ValueError(
            f"first_classes must be 0 (all) or 2 ... {num_classes}, the number of classes of "
            f"{name!r}, got {first_classes}"
        )
    classes = range(skip_classes, first_classes or num_classes)
    if not num_classes and not skip_classes:
        return classes
    if not 0 <= skip_classes <= classes.stop - 2:
        raise ValueError(
            f"skip_classes must be 0 (none) ... {classes.stop - 2}, to leave two of the "
            f"{classes.stop} classes of {name!r}, got {skip_classes}"
        )
    return classes


def _select(labels, names, classes, fraction, list_file, where):
    """Returns the positions to keep, or None for all; `classes` is None where it keeps all."""
    kept = None
    if classes is not None:
        kept = selection.between(labels(), classes.start, classes.stop)
    if list_file:
        listed = selection.listed(list_file, names)
        kept = listed if kept is None else np.intersect1d(kept, listed)
    if kept is not None and len(kept) == 0:
        raise ValueError(f"nothing is left of split {where}; keep more classes or files of it")
    if fraction < 1:
        kept = np.arange(len(labels()), dtype=np.int32) if kept is None else kept
        kept = kept[selection.stratified(labels()[kept], fraction)]
    return kept


def _make_fit(image_size: int, resize_size: int, interpolation: str, shape: tuple) -> Callable:
    def fit(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        if image_size and (resize_size or shape[:2] != (image_size, image_size)):
            return crops.resize_and_crop(image, image_size, resize_size, interpolation)
        if image.shape != shape:
            raise ValueError(f"image of shape {image.shape} where all are {shape}")
        return image

    return fit
