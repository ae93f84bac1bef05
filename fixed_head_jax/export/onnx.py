"""ONNX by jax2onnx: a graph for batches of any size."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from jax import export

from fixed_head_jax.export.extras import needs
from fixed_head_jax.export.program import INPUT, Program

# jax2onnx wants an older orbax-checkpoint than ours, for a part of it that is not used here.
_INSTALL = "'fixed_head_jax[export-onnx]', then pip install --no-deps jax2onnx"


def to_onnx(program: Program, described: Mapping[str, Any]) -> bytes:
    """Returns a model whose metadata is what is described, each value as JSON.

    Raises:
        ValueError: if jax2onnx, or what it needs, is missing.
    """
    with needs("ONNX", "jax2onnx", _INSTALL):
        import jax2onnx

    # It tells, of no use to anyone, which inner shapes have no type.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    (batch,) = export.symbolic_shape("batch")
    model = jax2onnx.to_onnx(
        program.call, [program.images(batch)],
        input_names=[INPUT], output_names=list(program.outputs),
    )  # fmt: skip
    for key, value in described.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return model.SerializeToString()
