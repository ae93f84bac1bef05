"""Augmentations: (one key per example, images) -> images, jitted, on the device."""

from collections.abc import Callable, Sequence

from jaxtyping import Array, Float32, Key, UInt8

from fixed_head_jax.augment import color, geometry


def make_augment(
    mean: Sequence[float],
    std: Sequence[float],
    pad_crop: int = 0,
    flip: bool = False,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    lighting: float = 0.0,
) -> tuple[Callable, Callable]:
    """Builds the two pixel pipelines of a run.

    Args:
        mean: mean of each channel, of pixels in 0 ... 1.
        std: standard deviation of each channel, > 0.
        pad_crop: pixels of zero padding before a random crop back to size; 0 does not crop.
        flip: mirror half of the training images.
        brightness: strength of the jitter, see `color.jitter`; so are `contrast` and `saturation`.
        lighting: standard deviation of the PCA lighting noise, see `color.lighting`.

    Returns:
        `(train_augment(rngs, images), eval_augment(images))`, uint8 -> normalised float32.

    Raises:
        ValueError: if an argument is out of range.
    """
    mean, std = tuple(mean), tuple(std)
    if len(mean) != len(std):
        raise ValueError(f"mean and std must have one value per channel, got {mean} and {std}")
    if not mean or min(std) <= 0:
        raise ValueError(f"std must be > 0 in every channel, got {std}")
    if pad_crop < 0:
        raise ValueError(f"pad_crop must be >= 0 (0 does not crop), got {pad_crop}")
    strengths = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    for name, strength in {**strengths, "lighting": lighting}.items():
        if strength < 0:
            raise ValueError(f"{name} must be >= 0 (0 does nothing), got {strength}")

    def train_augment(
        rngs: Key[Array, " b"], images: UInt8[Array, "b h w c"]
    ) -> Float32[Array, "b h w c"]:
        if pad_crop:
            images = geometry.pad_and_crop(rngs, images, pad_crop)
        if flip:
            images = geometry.flip(rngs, images)
        images = color.jitter(rngs, color.to_float(images), **strengths)
        if lighting:
            images = color.lighting(rngs, images, lighting)
        return color.normalize(images, mean, std)

    def eval_augment(images: UInt8[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
        return color.normalize(color.to_float(images), mean, std)

    return train_augment, eval_augment
