"""What is exported of a model: a function of images alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jaxtyping import Array, Float

from fixed_head_jax.augment import Options, make_augment
from fixed_head_jax.export.quantization import dequantize, quantize_variables
from fixed_head_jax.inference import Predictor
from fixed_head_jax.inference.maps import check_maps
from fixed_head_jax.layers.convolution import plainly

INPUT = "images"
OUTPUTS = ("probabilities", "logits", "features", "feature_map", "class_maps")


class Program(NamedTuple):
    """A function of images, and what its converters have to know of it.

    Attributes:
        call: `images [B, H, W, C] -> tuple of arrays [B, ...]`, with the weights as constants.
        image_shape: (H, W, C).
        dtype: of the images: uint8, or float32 where they are normalised already.
        outputs: names of the arrays, of `OUTPUTS`.
        int8: whether its weights have 8 bits.
    """

    call: Callable
    image_shape: tuple[int, int, int]
    dtype: Any
    outputs: tuple[str, ...]
    int8: bool

    def images(self, batch: Any) -> ShapeDtypeStruct:
        """Returns what it takes; `batch` is a number or a symbol of `jax.export`."""
        return ShapeDtypeStruct((batch, *self.image_shape), self.dtype)


def make_program(
    predictor: Predictor, outputs: Sequence[str], takes_levels: bool = True, int8: bool = False
) -> Program:
    """Builds the function of a model.

    It computes in float32 and convolves in the one form that every converter knows.

    Args:
        predictor: of `inference.load`.
        outputs: of `OUTPUTS`, in the order wanted.
        takes_levels: whether images are uint8 and normalised inside.
        int8: whether to keep the weights as 8 bits, see `quantization`.

    Raises:
        ValueError: if class maps are wanted of a model that has none.
    """
    if "class_maps" in outputs:
        check_maps(predictor.model)
    shape, (mean, std) = predictor.preprocessing.image_shape, predictor.preprocessing[-2:]
    _, normalize = make_augment(shape, len(predictor.class_names), mean, std, Options())
    backbone = predictor.model.backbone.clone(dtype=jnp.float32, remat=False)
    model = predictor.model.clone(backbone=backbone)
    stored = quantize_variables(predictor.variables) if int8 else predictor.variables

    def call(images):
        variables = dequantize(stored)
        images = normalize(images) if takes_levels else images
        with plainly():
            found = model.apply(variables, images, train=False)
        found["probabilities"] = predictor.probabilities(found["logits"])
        if "class_maps" in outputs:
            found["class_maps"] = every_class_map(model, variables, found["feature_map"])
        return tuple(found[name] for name in outputs)

    dtype = jnp.uint8 if takes_levels else jnp.float32
    return Program(call, shape, dtype, tuple(outputs), int8)


def every_class_map(
    model: Any, variables: Mapping[str, Any], feature_map: Float[Array, "b h w c"]
) -> Float[Array, "b h w k"]:
    """Returns `inference.maps.class_maps` of all classes, as the head computes: without a matrix.

    A linear head at every place, less what it gives for nothing, which is its bias.
    """
    head, dim = model.head, feature_map.shape[-1]
    if head.compares_directions:
        vectors = model.class_vectors(variables, dim)
        return feature_map @ (vectors / jnp.linalg.norm(vectors, axis=0, keepdims=True))
    if hasattr(head, "normalize_features"):
        head = head.clone(normalize_features=False)
    own = {name: variables.get(name, {}).get("head", {}) for name in ("params", "fixed")}
    logits = partial(head.apply, own)
    maps = logits(feature_map.reshape(-1, dim)) - logits(jnp.zeros((1, dim)))
    return maps.reshape(*feature_map.shape[:-1], -1)
