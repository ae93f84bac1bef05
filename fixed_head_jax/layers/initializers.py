"""Parameter initializers of the reference networks: (rng, shape, dtype) -> array."""

import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from fixed_head_jax.settings.paths import match_kernels

# He-normal by fan-out: the ImageNet ResNets; by fan-in: the CIFAR ResNets.
he_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_normal_fan_in = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what the reference framework gives a layer by default.
uniform_fan_in = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# A kernel [..., out] as the matrix of out x all the rest: orthonormal filters, or orthonormal
# columns where there are more filters than weights in one. Uniformly distributed.
orthogonal = jax.nn.initializers.orthogonal()


def uniform(bound: float) -> Callable:
    """Returns an initializer that draws from U(-bound, bound)."""

    def init(rng, shape, dtype=jnp.float32):
        return jax.random.uniform(rng, shape, dtype, -bound, bound)

    return init


def redraw_orthogonal(rng: PRNGKeyArray, params: PyTree, patterns: Sequence[str]) -> PyTree:
    """Replaces the kernels whose path matches any of the patterns by orthogonal ones.

    For one convolution or all of them, whatever the backbone. A kernel's draw depends on `rng`, its
    path and its shape alone. On trained parameters it leaves batch-norm statistics that no longer
    fit, as the thesis does where it starts from pretrained weights.

    Args:
        rng: key of the draws.
        params: parameters; paths are such as "backbone/conv1/kernel".
        patterns: regular expressions, searched for in the paths; none changes nothing.
            `("^backbone/.*kernel$",)` is every convolution of a residual network.

    Returns:
        The parameters, with `orthogonal` kernels for the matching ones.

    Raises:
        ValueError: on a pattern that matches nothing, or a match that is not a kernel.

    Source: Qian 2020, table 5.6, orthogonal initialisation of the last convolution or of all.
    """
    matched = match_kernels(params, "orthogonal initialisation", patterns)

    def redraw(path, leaf, matches):
        if not matches:
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        own_rng = jax.random.fold_in(rng, zlib.crc32(name.encode()))
        return orthogonal(own_rng, leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(redraw, params, matched)
