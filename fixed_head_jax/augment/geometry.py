"""Crops and flips, on the device, one random key per example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

# Each augmentation folds its own constant into the key, so that those of one example are
# independent of each other and of which others run.
_PAD_AND_CROP = 1
_FLIP = 2


def pad_and_crop(
    rngs: Key[Array, " b"], images: Shaped[Array, "b h w c"], padding: int
) -> Shaped[Array, "b h w c"]:
    """Pads with zeros on all sides and crops back to the input size at a random position.

    The (2 * padding + 1)^2 positions are equally likely.

    Args:
        rngs: one key per example.
        images: images of any dtype; zero is black before normalisation.
        padding: pixels added on each side, >= 0.

    Returns:
        The crops, of the dtype of `images`.

    Source: He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2 (padding 4).
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(rng, image):
        rng = jax.random.fold_in(rng, _PAD_AND_CROP)
        top, left = jax.random.randint(rng, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), images.shape[1:])

    return jax.vmap(crop)(rngs, padded)


def flip(rngs: Key[Array, " b"], images: Shaped[Array, "b h w c"]) -> Shaped[Array, "b h w c"]:
    """Mirrors each image left-right with probability 1/2.

    Args:
        rngs: one key per example.
        images: images of any dtype.

    Returns:
        The images, mirrored or as they were.
    """

    def is_flipped(rng):
        return jax.random.bernoulli(jax.random.fold_in(rng, _FLIP))

    flipped = jax.vmap(is_flipped)(rngs)[:, None, None, None]
    return jnp.where(flipped, images[:, :, ::-1], images)
