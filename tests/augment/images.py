"""What tests of augmentations share: keys, images, and statistics per channel."""

import jax
import numpy as np

MEAN, STD = (0.1, 0.45, 0.8), (0.2, 0.25, 0.5)
SHAPE = (6, 5, 3)


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_images(count, height=6, width=5, channels=3):
    shape = (count, height, width, channels)
    return np.random.default_rng(1).integers(1, 256, shape).astype(np.uint8)
