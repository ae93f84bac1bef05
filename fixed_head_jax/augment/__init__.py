"""Augmentations, jitted, on the device: stages `(one key per example, images) -> images`.

Crops, mirroring and policies change levels 0 ... 255 (uint8), colour changes pixels in 0 ... 1
(float32), erasing normalised ones.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Key, UInt8

from fixed_head_jax.augment import blur, color, geometry, mix
from fixed_head_jax.augment.options import Options
from fixed_head_jax.augment.policies import make_policy
from fixed_head_jax.augment.views import ViewSet, draw_views, view_kinds


def make_augment(
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    options: Options,
    axis_name: str | None = None,
    mix_steps: int | None = None,
) -> tuple[Callable, Callable]:
    """Builds the two pixel pipelines of a run.

    Args:
        image_shape: (height, width, channels).
        num_classes: K of the mixed targets.
        mean: mean of each channel, of pixels in 0 ... 1; one value serves all channels.
        std: standard deviation of each channel, > 0, likewise.
        options: what is done in training.
        axis_name: mesh axis over which a batch is split, whose examples are mixed across it;
            None outside a mapped step.
        mix_steps: step from which on batches are not mixed (`options.mix_off_epoch` in steps);
            None mixes all.

    Returns:
        `train_augment(rngs, batch_rng, batch, step=0)` takes one key per example, one of the batch,
        the same on every device, {image uint8 [B,H,W,C], label [B], ...} and the number of steps
        before this one; it returns the batch with the image as normalised float32 and, where it is
        mixed, "targets" float32 [B,K]. `eval_augment(images)` normalises alone, uint8 -> float32.

    Raises:
        ValueError: if an argument is out of range, or does not fit images of that shape.
    """
    before, after = _stages(image_shape, mean, std, options)

    def train_augment(
        rngs: Key[Array, " b"],
        batch_rng: Key[Array, ""],
        batch: dict,
        step: Int[Array, ""] | int = 0,
    ) -> dict:
        batch = {**batch, "image": _run(before, rngs, batch["image"])}
        if options.mixes:
            shares = mix.draw_shares(
                batch_rng, *image_shape[:2], options.mixup, options.cutmix,
                options.mix_probability, options.mix_switch_probability,
            )  # fmt: skip
            if mix_steps is not None:
                shares = jnp.where(step < mix_steps, shares, 1.0)
            targets = jax.nn.one_hot(batch["label"], num_classes)
            images, targets = mix.mix(batch["image"], targets, shares, axis_name)
            batch = {**batch, "image": images, "targets": targets}
        return {**batch, "image": _run(after, rngs, batch["image"])}

    def eval_augment(images: UInt8[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
        return color.normalize(color.to_float(images), tuple(mean), tuple(std))

    return train_augment, eval_augment


def make_view_augment(
    channels: int, mean: Sequence[float], std: Sequence[float], views: ViewSet
) -> Callable:
    """Builds the pixel pipeline of a view set.

    Args:
        channels: of the images.
        mean: see `make_augment`.
        std: see `make_augment`.
        views: sizes, crops and probabilities.

    Returns:
        `augment(rngs, batch_rng, batch, step=0)`, of the keys of `make_augment`. The batch holds
        either crops of the host, {global uint8 [B,2,S,S,C], local uint8 [B,L,s,s,C], ...}, or
        whole images, {image uint8 [B,H,W,C], ...}, which are cropped here. It returns the rest of
        the batch and {global, local}: a tuple of normalised float32 [B,S,S,C] each, one per view,
        so that examples come first and views of one size can be joined.

    Raises:
        ValueError: as `make_augment` does.
    """
    kinds = []
    for kind in view_kinds(views):
        shape = (kind.size, kind.size, channels)
        before, after = _stages(shape, mean, std, Options(**kind.options))
        crop = partial(
            geometry.random_resized_crop, size=kind.size, scale=kind.scale, method="bicubic"
        )
        kinds.append((kind.views, crop, partial(_run, [*before, *after])))
    return partial(draw_views, kinds)


def _stages(image_shape, mean, std, options):
    """Returns the stages of training images before their batch is mixed, and those after it."""
    mean, std = tuple(mean), tuple(std)
    if len(mean) != len(std):
        raise ValueError(f"mean and std must have one value per channel, got {mean} and {std}")
    if not mean or not all(0 <= m <= 1 and 0 < s <= 1 for m, s in zip(mean, std, strict=True)):
        raise ValueError(
            "data.mean and data.std are of pixels in 0 ... 1 (divide those of levels by 255), "
            f"std > 0; got {mean} and {std}"
        )

    def to_float(rngs, images):
        return color.to_float(images)

    def normalize(rngs, images):
        return color.normalize(images, mean, std)

    before, after = _level_stages(image_shape, mean, options), [normalize]
    colors = _color_stages(options)
    # What stays in levels is mixed in levels, rounded, as in timm.
    if colors:
        before += [to_float, *colors]
    else:
        after.insert(0, to_float)
    if options.erase_probability:
        erase = partial(mix.erase, probability=options.erase_probability, fill=options.erase_fill)
        after.append(erase)
    # Some stages refuse images that are not of three channels: here, not in the step.
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    jax.eval_shape(partial(_run, [*before, *after]), jax.random.split(jax.random.key(0), 1), images)
    return before, after


def _level_stages(image_shape, mean, options):
    height, width, _ = image_shape
    stages: list[Callable] = []
    if options.crop_scale:
        if height != width:
            raise ValueError(
                f"augment.crop_scale needs square images, got {height} x {width}; set "
                "data.image_size"
            )
        crop = partial(geometry.random_resized_crop, size=height, scale=tuple(options.crop_scale))
        stages.append(crop)
    if options.pad_crop:
        stages.append(partial(geometry.pad_and_crop, padding=options.pad_crop))
    if options.flip:
        stages.append(geometry.flip)
    if options.policy:
        stages.append(
            make_policy(
                options.policy, fill=[round(255 * level) for level in mean],
                as_published=options.policy_as_published,
            )
        )  # fmt: skip
    return stages


def _color_stages(options):
    strengths = dict(
        brightness=options.brightness, contrast=options.contrast, saturation=options.saturation,
        hue=options.hue,
    )  # fmt: skip
    stages = []
    if any(strengths.values()):
        stages.append(partial(color.jitter, **strengths, probability=options.jitter_probability))
    if options.grey_probability:
        stages.append(partial(color.random_grey, probability=options.grey_probability))
    if options.blur_probability:
        stages.append(
            partial(
                blur.random_blur,
                probability=options.blur_probability, sigma=tuple(options.blur_sigma),
            )
        )  # fmt: skip
    if options.solarize_probability:
        stages.append(
            partial(
                color.solarize,
                probability=options.solarize_probability, threshold=options.solarize_threshold,
            )
        )  # fmt: skip
    if options.lighting:
        stages.append(partial(color.lighting, deviation=options.lighting))
    return stages


def _run(stages, rngs, images):
    for stage in stages:
        images = stage(rngs, images)
    return images
