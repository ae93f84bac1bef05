"""StableHLO by `jax.export`: a program for batches of any size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from fixed_head_jax.inference import Predictor

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_stablehlo(program: Callable, predictor: Predictor, takes_levels: bool) -> bytes:
    """Returns a serialised program: `jax.export.deserialize(content).call(images)` runs it.

    Args:
        program: of `make_program`.
        predictor: whose.
        takes_levels: whether it takes uint8 images.

    Raises:
        ValueError: if flatbuffers is missing, which `jax.export` writes with.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "writing StableHLO needs flatbuffers: pip install 'fixed_head_jax[export]'"
        ) from error
    (batch,) = export.symbolic_shape("batch")
    dtype = jnp.uint8 if takes_levels else jnp.float32
    images = jax.ShapeDtypeStruct((batch, *predictor.preprocessing.image_shape), dtype)
    return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(images).serialize())
