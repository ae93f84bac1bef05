"""What can be done to training images: the keys of `config.augment`, and their checks."""

from typing import NamedTuple

from fixed_head_jax.settings.lookup import check_choice

FILLS = ("const", "rand", "pixel")  # of erased rectangles, see `mix.erase`
_JITTER = ("brightness", "contrast", "saturation", "hue")
_NOT_NEGATIVE = ("pad_crop", *_JITTER, "lighting", "mixup", "cutmix", "mix_off_epoch")
_SHARES = (
    "jitter_probability", "grey_probability", "blur_probability", "solarize_probability",
    "solarize_threshold", "mix_probability", "mix_switch_probability", "erase_probability",
)  # fmt: skip


class Options(NamedTuple):
    """What is done to training images, in this order; by default nothing.

    Attributes:
        crop_scale: smallest and largest share of the area of a random crop, which is resized to
            the size of the images, see `geometry.random_resized_crop`; () does not crop.
        pad_crop: pixels of zero padding before a random crop back to size; 0 does not crop.
        flip: mirrors half of the images.
        policy: name of an automatic policy, see `policies.make_policy`; "" is none. As in timm it
            takes the place of the jitter.
        policy_as_published: RandAugment as released, whose posterize may keep no bits: black.
        brightness: strength of the jitter, see `color.jitter`.
        contrast: same.
        saturation: same.
        hue: same, at most 1/2.
        jitter_probability: of jittering an image at all.
        grey_probability: of taking an image's luma, see `color.random_grey`.
        blur_probability: of blurring an image, see `blur.random_blur`.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels.
        solarize_probability: of solarizing an image, see `color.solarize`.
        solarize_threshold: pixels from this on are inverted, of 0 ... 1.
        lighting: standard deviation of the PCA lighting noise, see `color.lighting`.
        mixup: alpha of mixup, see `mix.draw_shares`; 0 is none.
        cutmix: alpha of CutMix; 0 is none.
        mix_probability: of mixing a batch at all.
        mix_off_epoch: epoch from whose first step on batches are not mixed; 0 mixes to the end.
        mix_switch_probability: of CutMix rather than mixup, where both have an alpha.
        erase_probability: of covering a rectangle after normalisation, see `mix.erase`.
        erase_fill: with what: "const", "rand" or "pixel".
    """

    crop_scale: tuple[float, ...] = ()
    pad_crop: int = 0
    flip: bool = False
    policy: str = ""
    policy_as_published: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 1.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0
    solarize_threshold: float = 0.5
    lighting: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    mix_off_epoch: float = 0.0
    mix_switch_probability: float = 0.5
    erase_probability: float = 0.0
    erase_fill: str = "pixel"


def check(options: Options) -> None:
    """Raises ValueError, naming the key of `config.augment`, on what is out of range."""
    for key in _NOT_NEGATIVE:
        if not getattr(options, key) >= 0:
            value = getattr(options, key)
            raise ValueError(f"augment.{key} must be >= 0 (0 does nothing), got {value}")
    for key in _SHARES:
        if not 0 <= getattr(options, key) <= 1:
            raise ValueError(f"augment.{key} must be in 0 ... 1, got {getattr(options, key)}")
    if options.hue > 0.5:
        raise ValueError(f"augment.hue must be at most 0.5, half a turn, got {options.hue}")
    if options.crop_scale and not _is_range(options.crop_scale, 1):
        raise ValueError(
            "augment.crop_scale must be () or a range of shares in (0, 1], smallest first, "
            f"got {options.crop_scale}"
        )
    if not _is_range(options.blur_sigma, float("inf")):
        raise ValueError(
            "augment.blur_sigma must be a range of numbers > 0, smallest first, "
            f"got {options.blur_sigma}"
        )
    check_choice("augment.erase_fill", options.erase_fill, FILLS)
    if options.crop_scale and options.pad_crop:
        raise ValueError(
            f"augment.crop_scale={options.crop_scale} and augment.pad_crop={options.pad_crop} "
            "both crop; set one of them"
        )
    if options.mix_off_epoch and not (options.mixup or options.cutmix):
        raise ValueError(
            f"augment.mix_off_epoch={options.mix_off_epoch} ends mixing, but augment.mixup and "
            "augment.cutmix are 0; set one of them"
        )
    strengths = {key: getattr(options, key) for key in _JITTER if getattr(options, key)}
    if options.policy and strengths:
        raise ValueError(
            f"augment.policy={options.policy!r} takes the place of the jitter; "
            f"set augment.{next(iter(strengths))}=0 or no policy"
        )


def _is_range(values, most):
    return len(values) == 2 and 0 < values[0] <= values[1] <= most
