"""What a traced program computes: convolutions, products of matrices, batch norm, ReLU, pooling.

Convolutions, batch norm and pooling are recognised by the names of the jitted functions of
`backbones.layers`, so the counts do not depend on the lowering that a platform gets.
"""

import dataclasses
import math

import jax
from jax.extend.core import Jaxpr, Var

# Primitives that run the program they hold once, on their own operands.
CALLS = (
    "jit", "pjit", "closed_call", "eval_jaxpr", "checkpoint", "remat2", "custom_jvp_call",
    "custom_vjp_call",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operation:
    """One counted operation; `kernel` is the path of the parameter that a convolution applies."""

    kind: str
    count: int
    kernel: tuple[str, ...] | None


def walk(program: Jaxpr, names: dict[Var, tuple[str, ...] | None]) -> list[Operation]:
    """Lists the operations of a program, in order.

    Args:
        program: a traced program.
        names: its inputs -> the path of the parameter, None for what is not one.

    Raises:
        ValueError: on counted work in a loop of unknown length.
    """
    names, found = dict(names), []
    for equation in program.eqns:
        sources = [names.get(var) if isinstance(var, Var) else None for var in equation.invars]
        work = _work(equation)
        if work is None:
            found += _walk_inside(equation, sources)
        else:
            found.append(Operation(*work, sources[1] if len(sources) > 1 else None))
        source = next((source for source in sources if source), None)
        names.update(dict.fromkeys(equation.outvars, source))
    return found


def _walk_inside(equation, sources):
    """Lists the operations of the programs that an equation holds, as often as they are run."""
    primitive, found = equation.primitive.name, []
    for value in jax.tree.leaves(list(equation.params.values())):
        inner = getattr(value, "jaxpr", value)  # before JAX 0.11 some are held with their constants
        if isinstance(inner, Jaxpr):
            found += walk(inner, dict(zip(inner.invars, sources, strict=False)))
    if primitive == "scan":
        length = equation.params["length"]
        return [dataclasses.replace(one, count=one.count * length) for one in found]
    if found and primitive not in CALLS:
        kinds = ", ".join(sorted({operation.kind for operation in found}))
        raise ValueError(
            f"model has {kinds} inside {primitive!r}, where the number of turns is not known; "
            "write it with jax.lax.scan or a Python loop to have it counted"
        )
    return found


def _work(equation) -> tuple[str, int] | None:
    """Returns (kind, count) of an equation that counts as a whole, or None."""
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        name = equation.params["name"]
    # Read only where they are used: other equations may have neither shapes nor results.
    shapes = (var.aval.shape for var in equation.invars)
    sizes = (var.aval.size for var in equation.outvars)
    match name:
        case "convolve":
            _, kernel = shapes
            return "convolution", next(sizes) * math.prod(kernel[:-1])
        case "conv_general_dilated":
            _, kernel = shapes
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            return "convolution", next(sizes) * math.prod(kernel) // outputs
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = next(shapes)
            return "matmul", next(sizes) * math.prod(left[axis] for axis in contracted)
        case "normalize":
            return "batch_norm", next(sizes)
        case "relu" | "relu6":
            return "relu", next(sizes)
        case "max_pool" | "average_pool":
            return "pool", math.prod(next(shapes))
    return None
