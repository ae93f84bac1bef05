"""What is exported of a model: a function of images alone."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from fixed_head_jax.augment import Options, make_augment
from fixed_head_jax.inference import Predictor


def make_program(predictor: Predictor, outputs: Sequence[str], takes_levels: bool) -> Callable:
    """Returns `images [B, H, W, C] -> tuple of arrays`, with the weights as constants.

    Args:
        predictor: of `inference.load`.
        outputs: "probabilities", "logits", "features" or "feature_map", in the order wanted.
        takes_levels: whether images are uint8 and normalised inside.
    """
    shape, (mean, std) = predictor.preprocessing.image_shape, predictor.preprocessing[-2:]
    _, normalize = make_augment(shape, len(predictor.class_names), mean, std, Options())

    def program(images):
        images = normalize(images) if takes_levels else images
        found = predictor.model.apply(predictor.variables, images, train=False)
        found["probabilities"] = jax.nn.softmax(found["logits"].astype(jnp.float32))
        return tuple(found[name] for name in outputs)

    return program
