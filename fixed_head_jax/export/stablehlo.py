"""StableHLO by `jax.export`: a program for batches of any size, on any platform."""

import jax
from jax import export

from fixed_head_jax.export.extras import needs
from fixed_head_jax.export.program import Program

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_stablehlo(program: Program) -> bytes:
    """Returns a serialised program: `jax.export.deserialize(content).call(images)` runs it.

    Raises:
        ValueError: if flatbuffers is missing, which `jax.export` writes with.
    """
    with needs("StableHLO", "flatbuffers", "'fixed_head_jax[export]'"):
        import flatbuffers  # noqa: F401
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(program.call), platforms=PLATFORMS)(program.images(batch))
    return bytes(exported.serialize())
