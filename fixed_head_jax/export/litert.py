"""LiteRT, formerly TensorFlow Lite, from StableHLO and without TensorFlow."""

import contextlib
import io

import jax

from fixed_head_jax.export.extras import needs
from fixed_head_jax.export.program import INPUT, Program

_INSTALL = "'fixed_head_jax[export-litert]'"
_SIGNATURE = "serving_default"


def to_litert(program: Program) -> bytes:
    """Returns a flatbuffer of one image at a time, whose signature names input and outputs.

    Raises:
        ValueError: if one of the converters is missing.
    """
    with needs("LiteRT", "litert-converter", _INSTALL):
        from litert_converter import converter_api_ext as converter
        from litert_converter.mlir import ir, passmanager

    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(_stablehlo(program))
        converter.set_signature(module.operation, _SIGNATURE, [INPUT], list(program.outputs))
        passes = passmanager.PassManager()
        converter.run_convert_to_tfl_passes(module, passes, converter.ConvertToTFLConfig())
        passes.run(module.operation)
        content = converter.export_flatbuffer_to_bytes(module.operation)
    return _with_int8_weights(content) if program.int8 else content


def _stablehlo(program):
    """Returns the bytecode of a program for one image."""
    lowered = jax.jit(program.call).trace(program.images(1)).lower(lowering_platforms=("tpu",))
    bytecode = io.BytesIO()
    lowered.compiler_ir("stablehlo").operation.write_bytecode(bytecode)
    return bytecode.getvalue()


def _with_int8_weights(content):
    """Returns the flatbuffer with weights of 8 bits.

    The converter computes what is constant, the weights times their factors too, so they are
    rounded again here: to the same numbers, as they are multiples of their channels' factors.
    """
    with needs("LiteRT in 8 bits", "ai-edge-quantizer", _INSTALL):
        from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(content))
    made.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints sizes and seconds
        return bytes(made.quantize().quantized_model)
