"""View sets of self-supervised training: crops of one image, each changed in its own way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from fixed_head_jax.augment import streams
from fixed_head_jax.settings.kinds import (
    AREAS,
    AT_LEAST_0,
    DEVIATIONS,
    FLAG,
    SHARE,
    each,
    number,
    whole,
)
from fixed_head_jax.settings.schema import Group, option

NUM_GLOBAL = 2
_SIDE = whole("[1, 65536]")
_BY_KIND = each(SHARE, 3)


@dataclass(frozen=True)
class ViewSet(Group, name="views"):
    """Two global views and some local ones; by default Self-Classifier's.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, as in its public code. That blurs
    by Pillow's GaussianBlur, which repeats box filters instead.
    """

    num_local: int = option(6, whole("[0, 1000]"), "small crops, beside two large ones")
    global_size: int = option(224, _SIDE, "side of a large crop in pixels")
    local_size: int = option(96, _SIDE, "same, of a small one")
    global_scale: tuple[float, float] = option(
        (0.4, 1.0), AREAS, "share of the image's area, from and to"
    )
    local_scale: tuple[float, float] = option((0.05, 0.4), AREAS, "same, of a small one")
    flip: bool = option(True, FLAG, "as in augment, and so are the following")
    brightness: float = option(0.4, AT_LEAST_0, "strength of the jitter")
    contrast: float = option(0.4, AT_LEAST_0, "same")
    saturation: float = option(0.2, AT_LEAST_0, "same")
    hue: float = option(0.1, number("[0, 0.5]"), "same")
    jitter_probability: float = option(0.8, SHARE, "of jittering a view at all")
    grey_probability: float = option(0.2, SHARE, "of taking a view's luma")
    blur_sigma: tuple[float, float] = option(
        (0.1, 2.0), DEVIATIONS, "standard deviation in pixels, from and to"
    )
    blur_probability: tuple[float, float, float] = option(
        (0.1, 1.0, 0.5), _BY_KIND, "of the first large view, the second, small ones"
    )
    solarize_probability: tuple[float, float, float] = option((0.0, 0.2, 0.0), _BY_KIND, "same")


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
_DIFFERENT = ("blur_probability", "solarize_probability")


def view_kinds(views: ViewSet) -> list[Kind]:
    """Returns the first global view, the second, and the local ones if there are any."""
    shared = {key: getattr(views, key) for key in _SHARED}
    options = [shared | {key: getattr(views, key)[kind] for key in _DIFFERENT} for kind in range(3)]
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
