"""Sources: random access to the decoded images and labels of one split."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Int32, Integer, UInt8
from tensorflow_datasets.proto import tf_example_generated_pb2

from fixed_head_jax.data import crops, prepared

cv2.setNumThreads(0)  # images are read side by side already

_SCAN = 1024  # records per read when labels are scanned
_RAW = tfds.decode.DeserializeMethod.RAW_BYTES


@runtime_checkable
class Records(Protocol):
    """Random access to serialised examples, as TFDS's data sources give it."""

    def __len__(self) -> int: ...

    def __getitems__(self, positions: list[int]) -> list[bytes]: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds an open split; build it with `open_source`.

    Records are read raw and decoded here: TFDS's own decoding of one element at a time is 17
    times slower on CIFAR-10.

    Attributes:
        name: dataset name.
        split: split, in TFDS's syntax.
        num_classes: number of classes; labels are 0 ... num_classes - 1.
        class_names: their names.
        image_shape: (height, width, channels) of every image.
        records: random access to the serialised examples.
        kept: positions in `records` that belong to the source, or None for all of them.
        fit: `(image, draws or None)`; brings a decoded image to `image_shape`.
    """

    name: str
    split: str
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    records: Records
    kept: Int32[np.ndarray, " n"] | None
    fit: Callable

    def __len__(self) -> int:
        return len(self.records) if self.kept is None else len(self.kept)

    def read(
        self,
        indices: Integer[np.ndarray, " b"],
        draws: Float[np.ndarray, "b attempts 4"] | None = None,
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]:
        """Reads and decodes the examples `indices`; safe to call from many threads.

        Args:
            indices: of the examples.
            draws: of `crops.draw`, for random resized crops instead of central ones.

        Raises:
            ValueError: if a record cannot be read, naming dataset, split and index.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise ValueError(f"indices must be in 0 ... {len(self) - 1}, got {indices}")
        positions = (indices if self.kept is None else self.kept[indices]).tolist()
        images = np.empty((len(positions), *self.image_shape), np.uint8)
        labels = np.empty(len(positions), np.int32)
        for i, record in enumerate(self._read_raw(positions)):
            try:
                draw = None if draws is None else draws[i]
                images[i], labels[i] = self._decode(record, draw)
            except Exception as error:  # protobuf, OpenCV and we raise different types
                raise self._bad_record(positions[i], error) from error
        return images, labels

    def read_labels(self) -> Int32[np.ndarray, " n"]:
        """Reads the label of every example, without decoding images; scans the whole split.

        Raises:
            ValueError: if a label is out of range, naming dataset, split and index.
        """
        labels = _scan_labels(self.records)
        labels = labels if self.kept is None else labels[self.kept]
        wrong = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if len(wrong):
            label = labels[wrong[0]]
            error = ValueError(f"label {label} is outside 0 ... {self.num_classes - 1}")
            raise self._bad_record(int(wrong[0]), error)
        return labels

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

    def _bad_record(self, position: int, error: Exception) -> ValueError:
        return ValueError(
            f"dataset {self.name!r} split {self.split!r}: bad record at index {position} "
            f"({error or type(error).__name__}); prepare the dataset again"
        )

    def _decode(self, record: bytes, draws) -> tuple[UInt8[np.ndarray, "h w c"], int]:
        image, label = _parse(record)
        if not 0 <= label < self.num_classes:
            raise ValueError(f"label {label} is outside 0 ... {self.num_classes - 1}")
        return self.fit(_decode_image(image, self.image_shape[-1]), draws), label


def _parse(record: bytes) -> tuple[bytes, int]:
    """Returns the encoded image and the label of a serialised tf.train.Example."""
    feature = tf_example_generated_pb2.Example.FromString(record).features.feature
    return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]


def _scan_labels(records: Records) -> Int32[np.ndarray, " n"]:
    labels = []
    for start in range(0, len(records), _SCAN):
        positions = list(range(start, min(start + _SCAN, len(records))))
        labels += [_parse(record)[1] for record in records.__getitems__(positions)]
    return np.asarray(labels, np.int32)


def _decode_image(encoded: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    # As TensorFlow does, leave the pixels as stored: no rotation by EXIF tags.
    flags = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("not an image that OpenCV can decode")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if channels == 3 else image[..., None]


def open_source(
    name: str,
    split: str,
    data_dir: str = "",
    first_classes: int = 0,
    image_size: int = 0,
    resize_size: int = 0,
) -> Source:
    """Opens one split of a prepared dataset.

    Args:
        name: TFDS name, or one of `builders.BUILDERS`, which prepare themselves.
        split: TFDS split, slices included: `train[:80%]`.
        data_dir: directory of prepared datasets; empty for TFDS's default.
        first_classes: keep only the labels below it; 0 keeps all. Scans the split once.
        image_size: side of the images in pixels: shorter side resized, centre cropped; 0 keeps
            images of one fixed shape as they are.
        resize_size: length of the shorter side before that crop; 0 is `image_size`.

    Raises:
        ValueError: if the dataset, split or an option does not fit.
    """
    if image_size < 0:
        raise ValueError(f"image_size must be >= 0 (0 keeps the stored size), got {image_size}")
    if resize_size and not 0 < image_size <= resize_size:
        raise ValueError(
            f"resize_size must be 0 or at least image_size={image_size} > 0, got {resize_size}"
        )
    builder = prepared.find(name, data_dir)
    shape, class_names = _read_features(name, builder.info.features)
    num_classes = len(class_names)
    if first_classes and not 2 <= first_classes <= num_classes:
        raise ValueError(
            f"first_classes must be 0 (all) or 2 ... {num_classes}, the number of classes of "
            f"{name!r}, got {first_classes}"
        )
    if image_size == 0 and None in shape:
        raise ValueError(f"images of dataset {name!r} vary in size; set data.image_size, got 0")
    records = _open_records(name, split, builder)
    kept = None
    if 0 < first_classes < num_classes:
        kept = _positions_below(first_classes, records, name, split)
        num_classes = first_classes
    return Source(
        name=name,
        split=split,
        num_classes=num_classes,
        class_names=class_names[:num_classes],
        image_shape=(image_size, image_size, shape[-1]) if image_size else shape,
        records=records,
        kept=kept,
        fit=_make_fit(image_size, resize_size, shape),
    )


def _make_fit(image_size: int, resize_size: int, shape: tuple) -> Callable:
    def fit(image: UInt8[np.ndarray, "h w c"], draws) -> UInt8[np.ndarray, "h2 w2 c"]:
        if draws is not None:
            return crops.random_resized_crop(image, image_size, draws)
        if image_size and (resize_size or shape[:2] != (image_size, image_size)):
            return crops.resize_and_crop(image, image_size, resize_size)
        if image.shape != shape:
            raise ValueError(f"image of shape {image.shape} where all are {shape}")
        return image

    return fit


def _read_features(
    name: str, features: tfds.features.FeaturesDict
) -> tuple[tuple, tuple[str, ...]]:
    """Returns the image shape, None where it varies, and the class names."""
    image = features["image"] if "image" in features else None
    label = features["label"] if "label" in features else None
    is_image = isinstance(image, tfds.features.Image) and isinstance(
        label, tfds.features.ClassLabel
    )
    if not is_image:
        raise ValueError(
            f"dataset {name!r} is not for image classification: it needs an Image feature 'image' "
            f"and a ClassLabel feature 'label', got {sorted(features)}; choose another dataset"
        )
    if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"images of dataset {name!r} must be uint8 with 1 or 3 channels, got "
            f"{np.dtype(image.np_dtype).name} of shape {image.shape}; choose another dataset"
        )
    return tuple(image.shape), tuple(label.names)


def _open_records(name: str, split: str, builder: tfds.core.DatasetBuilder) -> Records:
    try:
        records = builder.as_data_source(split, deserialize_method=_RAW)
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


def _positions_below(
    first_classes: int, records: Records, name: str, split: str
) -> Int32[np.ndarray, " n"]:
    """Returns the positions of the records whose label is below `first_classes`."""
    labels = _scan_labels(records)
    kept = np.flatnonzero((labels >= 0) & (labels < first_classes)).astype(np.int32)
    if len(kept) == 0:
        raise ValueError(
            f"no label below first_classes {first_classes} in split {split!r} of dataset {name!r}; "
            "choose a larger part"
        )
    return kept
