"""Augmentations: (one key per example, images) -> images, jitted, on the device."""

from collections.abc import Callable, Sequence

from jaxtyping import Array, Float32, Key, UInt8

from fixed_head_jax.augment import color, geometry


def make_augment(
    mean: Sequence[float], std: Sequence[float], pad_crop: int = 0, flip: bool = False
) -> tuple[Callable, Callable]:
    """Builds the two pixel pipelines of a run.

    Args:
        mean: mean of each channel, of pixels in 0 ... 1.
        std: standard deviation of each channel, > 0.
        pad_crop: pixels of zero padding before a random crop back to size; 0 does not crop.
        flip: mirror half of the training images.

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

    def train_augment(
        rngs: Key[Array, " b"], images: UInt8[Array, "b h w c"]
    ) -> Float32[Array, "b h w c"]:
        if pad_crop:
            images = geometry.pad_and_crop(rngs, images, pad_crop)
        if flip:
            images = geometry.flip(rngs, images)
        return color.normalize(images, mean, std)

    def eval_augment(images: UInt8[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
        return color.normalize(images, mean, std)

    return train_augment, eval_augment
