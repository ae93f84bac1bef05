"""Soft orthogonality: penalties that draw the filters of a layer towards orthonormality.

A kernel [in, out] or [height, width, in, out] is read as the matrix W [m, n] of one filter per
column: n = out, m = all the rest. The coefficient (0.025 in the thesis) is the caller's.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from fixed_head_jax.settings.paths import match_kernels


def soft_orthogonality(kernel: Float[Array, "*window i o"]) -> Float[Array, ""]:
    """Computes |W^T W - I_n|^2, the squared Frobenius norm.

    Zero for orthonormal filters; at least n - m where there are more filters than weights in one.

    Args:
        kernel: of a dense layer or a convolution, filters along the last axis.

    Returns:
        The penalty, float32.

    Source: Qian 2020, table 5.6 (SO); Bansal et al. 2018, https://arxiv.org/abs/1810.09102.
    """
    weights, filters = _shape(kernel)
    return _residual(kernel) + max(filters - weights, 0)


def double_soft_orthogonality(kernel: Float[Array, "*window i o"]) -> Float[Array, ""]:
    """Computes |W^T W - I_n|^2 + |W W^T - I_m|^2, squared Frobenius norms.

    The two differ by the constant |m - n|, so that up to a constant this is `soft_orthogonality`
    at twice the coefficient: same gradients, and never below |m - n|.

    Args:
        kernel: of a dense layer or a convolution, filters along the last axis.

    Returns:
        The penalty, float32.

    Source: Qian 2020, table 5.6 (DSO); Bansal et al. 2018, https://arxiv.org/abs/1810.09102.
    """
    weights, filters = _shape(kernel)
    return 2 * _residual(kernel) + abs(filters - weights)


def sum_over_kernels(
    params: PyTree, patterns: Sequence[str], penalty: Callable = soft_orthogonality
) -> Float[Array, ""]:
    """Sums a penalty over the parameters whose path matches any of the patterns.

    Args:
        params: parameters; paths are such as "backbone/conv1/kernel".
        patterns: regular expressions, searched for in the paths; `("^backbone/.*kernel$",)` is
            every convolution of a residual network.
        penalty: `soft_orthogonality` or `double_soft_orthogonality`.

    Returns:
        The sum, float32; its gradient is zero for all other parameters.

    Raises:
        ValueError: on a pattern that matches nothing, or a match that is not a kernel.
    """
    matched = jax.tree.leaves(match_kernels(params, "orthogonality_patterns", patterns))
    leaves = zip(jax.tree.leaves(params), matched, strict=True)
    kernels = [leaf for leaf, matches in leaves if matches]
    return sum((penalty(kernel) for kernel in kernels), start=jnp.zeros((), jnp.float32))


def _shape(kernel):
    """Returns m, the weights of a filter, and n, the number of filters."""
    return kernel.size // kernel.shape[-1], kernel.shape[-1]


def _residual(kernel):
    """Computes the squared distance of the smaller of the two Gram matrices from the identity.

    |W W^T|^2 = |W^T W|^2, so that the other distance is this one plus |m - n|: its matrix, of 4608
    x 4608 numbers for the widest convolutions of a ResNet-18, is never needed.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    # Near the minimum only the difference from the identity is left: not in bfloat16 or TF32.
    gram = jnp.matmul(matrix.T, matrix, precision=lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(gram - jnp.eye(len(gram))))
