"""View sets of self-supervised training: crops of one image, each changed in its own way."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from fixed_head_jax.augment import streams

NUM_GLOBAL = 2


class ViewSet(NamedTuple):
    """Two global views and some local ones; by default Self-Classifier's.

    Attributes:
        num_local: local views, >= 0.
        global_size: side of a global view in pixels.
        local_size: side of a local view.
        global_scale: smallest and largest share of the image's area in a global view.
        local_scale: same, of a local view.
        flip: see `options.Options`, as are the following, which all views have in common.
        brightness: strength of the jitter.
        contrast: same.
        saturation: same.
        hue: same.
        jitter_probability: of jittering a view at all.
        grey_probability: of taking a view's luma.
        blur_sigma: smallest and largest standard deviation of the blur, in pixels.
        blur_probability: of blurring the first global view, the second, and each local one.
        solarize_probability: of solarizing them, likewise; from half of the levels on.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, as in its public code. That blurs
    by Pillow's GaussianBlur, which repeats box filters instead.
    """

    num_local: int = 6
    global_size: int = 224
    local_size: int = 96
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    flip: bool = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: tuple[float, float, float] = (0.1, 1.0, 0.5)
    solarize_probability: tuple[float, float, float] = (0.0, 0.2, 0.0)


class Kind(NamedTuple):
    """Views that are drawn in the same way."""

    views: range  # their places in the set
    size: int
    scale: tuple[float, float]
    options: dict  # of `options.Options`


_SHARED = (
    "flip", "brightness", "contrast", "saturation", "hue", "jitter_probability",
    "grey_probability", "blur_sigma",
)  # fmt: skip
_BY_KIND = ("blur_probability", "solarize_probability")


def view_kinds(views: ViewSet) -> list[Kind]:
    """Returns the first global view, the second, and the local ones if there are any.

    Raises:
        ValueError: if the number of views, a size or a scale is out of range, or a probability is
            not given for the three kinds.
    """
    if views.num_local < 0:
        raise ValueError(f"num_local must be >= 0, got {views.num_local}")
    for key in ("global_size", "local_size"):
        if getattr(views, key) < 1:
            raise ValueError(f"{key} must be at least 1, got {getattr(views, key)}")
    for key in ("global_scale", "local_scale"):
        scale = getattr(views, key)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"{key} must be a range of shares in (0, 1], smallest first, got {scale}"
            )
    for key in _BY_KIND:
        if len(getattr(views, key)) != 3:
            raise ValueError(
                f"{key} must be three numbers, of the first global view, the second and the "
                f"local ones, got {getattr(views, key)}"
            )
    shared = {key: getattr(views, key) for key in _SHARED}
    options = [shared | {key: getattr(views, key)[kind] for key in _BY_KIND} for kind in range(3)]
    large, small = (views.global_size, views.global_scale), (views.local_size, views.local_scale)
    kinds = [Kind(range(1), *large, options[0]), Kind(range(1, 2), *large, options[1])]
    if views.num_local:
        kinds.append(Kind(range(NUM_GLOBAL, NUM_GLOBAL + views.num_local), *small, options[2]))
    return kinds


def draw_views(
    kinds: Sequence[tuple[range, Callable, Callable]],
    rngs: Key[Array, " b"],
    batch_rng: Key[Array, ""],
    batch: dict,
    step: ArrayLike = 0,
) -> dict:
    """Draws every view on its own; see `make_view_augment`.

    Args:
        kinds: views, `(rngs, whole images) -> crops` and `(rngs, crops) -> images` of each kind.
        rngs: one key per example.
        batch_rng: not used, no images are mixed.
        batch: crops of the host, or whole images.
        step: not used either.
    """
    del batch_rng, step
    drawn = []
    for views, crop, change in kinds:
        # The views of a kind are one batch, view after view, and compiled once.
        view_rngs = jnp.concatenate([_view_rngs(rngs, view) for view in views])
        if "image" in batch:
            crops = crop(view_rngs, jnp.concatenate([batch["image"]] * len(views)))
        else:
            crops = jnp.concatenate([_host_crops(batch, view) for view in views])
        drawn += jnp.split(change(view_rngs, crops), len(views))
    rest = {key: value for key, value in batch.items() if key not in ("image", "global", "local")}
    return {**rest, "global": tuple(drawn[:NUM_GLOBAL]), "local": tuple(drawn[NUM_GLOBAL:])}


def _view_rngs(rngs, view):
    return jax.vmap(lambda rng: jax.random.fold_in(jax.random.fold_in(rng, streams.VIEW), view))(
        rngs
    )


def _host_crops(batch, view):
    if view < NUM_GLOBAL:
        return batch["global"][:, view]
    return batch["local"][:, view - NUM_GLOBAL]
