"""What a dataset of ours consists of, before it is prepared."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

UNKNOWN = -1  # label of an image whose class is not known


class Example(NamedTuple):
    """One image as its source has it.

    Attributes:
        name: path of the file in its archive or folder, for messages; no two are alike.
        encoded: bytes of the file, as they are.
        label: class, 0 ... K - 1; -1 where it is not known.
    """

    name: str
    encoded: bytes
    label: int


class Definition(NamedTuple):
    """A dataset that `prepare` can write; made by the functions in `DEFINITIONS`.

    Attributes:
        class_names: of the K classes, in the order of the labels; empty where no label is known.
        splits: name -> function that iterates over the split's examples, from its start at each
            call; nothing is read before.
        counts: split -> number of images that it must have; empty where any number will do.
        description: one line.
        homepage: of the dataset.
        channels: 1 or 3.
        image_shape: (height, width, channels) where all images have it, else None.
        shuffled: whether the examples are stored in an order of their own (a hash of the names),
            so that a slice of a split is a random part of it; if not, as they come.
        repeats_grey: whether grey images in a dataset of three channels are meant to be there.
        left_out: a line on what its source holds and it does not; empty if that is nothing.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Iterator[Example]]]
    counts: Mapping[str, int]
    description: str
    homepage: str
    channels: int = 3
    image_shape: tuple[int, int, int] | None = None
    shuffled: bool = True
    repeats_grey: bool = False
    left_out: str = ""
