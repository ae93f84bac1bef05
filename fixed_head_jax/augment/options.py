"""What can be done to training images: the keys `augment.*`."""

from dataclasses import dataclass

from fixed_head_jax.settings.kinds import (
    AREAS,
    AT_LEAST_0,
    DEVIATIONS,
    EPOCHS,
    FLAG,
    PIXELS,
    SHARE,
    TEXT,
    choice,
    either,
    number,
)
from fixed_head_jax.settings.schema import Group, option

_JITTER = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Options(Group, name="augment"):
    """What is done to training images, on the device, in this order; by default nothing.

    Functions in `geometry`, `policies`, `color`, `blur` and `mix` say more of each.
    """

    crop_scale: tuple[float, ...] = option(
        (), either((), AREAS), "share of the area of a random crop; (): none"
    )
    pad_crop: int = option(0, PIXELS, "pads by this many pixels, then crops at random")
    flip: bool = option(False, FLAG, "mirrors left to right, one image in two")
    policy: str = option(
        "", TEXT, "rand-m9-mstd0.5-inc1, autoaugment-imagenet, ...; not with jitter"
    )
    policy_as_published: bool = option(False, FLAG, "RandAugment may posterize an image to black")
    brightness: float = option(0.0, AT_LEAST_0, "jitter by a factor from 1 - this to 1 + this")
    contrast: float = option(0.0, AT_LEAST_0, "same")
    saturation: float = option(0.0, AT_LEAST_0, "same")
    hue: float = option(0.0, number("[0, 0.5]"), "jitter by up to this share of a turn")
    jitter_probability: float = option(1.0, SHARE, "of jittering an image at all")
    grey_probability: float = option(0.0, SHARE, "of taking an image's luma")
    blur_probability: float = option(0.0, SHARE, "of blurring an image")
    blur_sigma: tuple[float, float] = option(
        (0.1, 2.0), DEVIATIONS, "standard deviation in pixels, from and to"
    )
    solarize_probability: float = option(0.0, SHARE, "of solarizing an image")
    solarize_threshold: float = option(0.5, SHARE, "inverts pixels from this on, of 0 to 1")
    lighting: float = option(0.0, AT_LEAST_0, "deviation of the PCA lighting noise; 0.1 is usual")
    mixup: float = option(0.0, AT_LEAST_0, "alpha of mixup; 0: none")
    cutmix: float = option(0.0, AT_LEAST_0, "alpha of CutMix; 0: none")
    mix_probability: float = option(1.0, SHARE, "of mixing a batch")
    mix_off_epoch: float = option(0.0, EPOCHS, "does not mix from this epoch on; 0: to the end")
    mix_switch_probability: float = option(0.5, SHARE, "of CutMix where both have an alpha")
    erase_probability: float = option(0.0, SHARE, "covers a rectangle of the normalised image")
    erase_fill: str = option("pixel", choice("const", "rand", "pixel"), "mean, one colour, noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_scale and self.pad_crop:
            raise ValueError(
                f"augment.crop_scale={self.crop_scale} and augment.pad_crop={self.pad_crop} "
                "both crop; set one of them"
            )
        if self.mix_off_epoch and not self.mixes:
            raise ValueError(
                f"augment.mix_off_epoch={self.mix_off_epoch} ends mixing, but augment.mixup and "
                "augment.cutmix are 0; set one of them"
            )
        strengths = [key for key in _JITTER if getattr(self, key)]
        if self.policy and strengths:
            raise ValueError(
                f"augment.policy={self.policy!r} takes the place of the jitter; "
                f"set augment.{strengths[0]}=0 or no policy"
            )

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, and their labels with them."""
        return self.mixup > 0 or self.cutmix > 0
