"""Which images a run reads, how and in what order: the keys `data.*`."""

from dataclasses import dataclass

from fixed_head_jax.settings.kinds import (
    AREAS,
    COUNT,
    FLAG,
    PATH,
    PIXELS,
    SOME,
    TEXT,
    choice,
    each,
    number,
    whole,
)
from fixed_head_jax.settings.schema import Group, option


@dataclass(frozen=True)
class Options(Group, name="data"):
    """The images of a run. `sources` and `crops` say more of what is done to them."""

    name: str = option("cifar10", TEXT, "a TFDS image classification dataset, or ours")
    path: str = option(
        "", PATH, "own images in place of name: FOLDER, LABELS.csv, hf:FOLDER, wds:PATTERN"
    )
    train_split: str = option("train", TEXT, "split to train on")
    eval_split: str = option(
        "test", TEXT, "split to evaluate on; empty: validation, val, valid or test", fixes="run"
    )
    fit_split: str = option(
        "",
        TEXT,
        "labelled images that kNN, probes, k-means fit to; empty: train_split",
        fixes="nothing",
    )
    unlabelled: bool = option(False, FLAG, "the labels of train_split are not known (stored as -1)")
    train_fraction: float = option(
        1.0, number("(0, 1]"), "share of every class to train on, ever the same"
    )
    train_list: str = option("", PATH, "text file with the file names to train on; empty: all")
    first_classes: int = option(0, COUNT, "keeps the classes below this number; 0: all")
    skip_classes: int = option(0, COUNT, "leaves out the classes below this; others count from 0")
    image_size: int = option(0, PIXELS, "side in pixels after resize and crop; 0: as stored")
    resize_size: int = option(0, PIXELS, "shorter side before the centre crop; 0: image_size")
    interpolation: str = option(
        "bilinear", choice("bilinear", "bicubic"), "of that; both antialiased"
    )
    channels: int = option(0, whole("[0, 3]"), "0: as stored; 3: grey images as RGB")
    train_crop: str = option(
        "center", choice("center", "random_resized"), "random: by the host, of the whole image"
    )
    crop_scale: tuple[float, float] = option(
        (0.08, 1.0), AREAS, "random_resized: share of the area, from and to"
    )
    crop_interpolation: str = option(
        "fast", choice("fast", "bilinear", "bicubic", "random"), "of that"
    )
    mean: tuple[float, ...] = option(
        (0.5,),
        each(number("[0, 1]")),
        "of pixels in [0, 1], per channel or one for all; (): of the training images",
    )
    std: tuple[float, ...] = option((0.5,), each(number("(0, 1]")), "same")
    placement: str = option(
        "auto", choice("auto", "resident", "disk"), "resident: on the device", fixes="nothing"
    )
    num_threads: int = option(
        0, whole("[0, 1024]"), "reading threads; 0: one per core", fixes="nothing"
    )
    sampler: str = option(
        "shuffled",
        choice("shuffled", "class_aware", "class_balanced"),
        "aware: in turn; balanced: at random",
    )
    per_class: int = option(4, SOME, "class_aware: consecutive examples of a class")
    repeats: int = option(1, SOME, "shuffled: how often a batch holds an image")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize_size and not 0 < self.image_size <= self.resize_size:
            raise ValueError(
                f"data.resize_size={self.resize_size} must be 0 or at least data.image_size="
                f"{self.image_size}, which must be set then"
            )
        chosen = self.first_classes or self.skip_classes or self.train_fraction < 1
        if self.unlabelled and (chosen or self.sampler != "shuffled"):
            raise ValueError(
                "data.unlabelled=True leaves no classes to choose or sample by; set "
                "data.first_classes=0, data.skip_classes=0, data.train_fraction=1 and "
                f"data.sampler='shuffled', got {self.first_classes}, {self.skip_classes}, "
                f"{self.train_fraction} and {self.sampler!r}"
            )
        if self.repeats > 1 and self.sampler != "shuffled":
            raise ValueError(
                f"data.repeats={self.repeats} is of data.sampler='shuffled', got "
                f"{self.sampler!r}; set data.repeats=1"
            )
