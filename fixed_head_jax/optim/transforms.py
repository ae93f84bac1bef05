"""Transforms of the gradient that optax lacks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

Number = int | float


class L2SPState(NamedTuple):
    """Where the parameters started, which L2-SP pulls them back to."""

    anchor: PyTree


def scale_by_larc(
    weight_decay: Number, trust_coefficient: Number = 0.001, eps: Number = 1e-8
) -> optax.GradientTransformation:
    """Scales `g + weight_decay p` to the size of p, parameter by parameter.

    The factor is `trust_coefficient |p| / (|g| + weight_decay |p| + eps)`. Where p or g is zero, g
    stays as it is, without decay. Unlike `optax.lars`, the norms are added instead of taken of the
    sum, and no parameter is left out.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888, as in NVIDIA apex, without clipping.
    """

    def scale(g, p):
        norm_p, norm_g = optax.tree.norm(p), optax.tree.norm(g)
        factor = trust_coefficient * norm_p / (norm_g + weight_decay * norm_p + eps)
        return jnp.where((norm_p > 0) & (norm_g > 0), factor * (g + weight_decay * p), g)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, params))


def clip_by_tensor(largest: Number) -> optax.GradientTransformation:
    """Clips the norm of each parameter's gradient by itself: g min(1, largest / (|g| + 1e-6)).

    Source: Self-Classifier's code, whose published runs do not use it.
    """

    def clip(g):
        return g * jnp.minimum(1.0, largest / (optax.tree.norm(g) + 1e-6))

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def pull_to_start(strength: Number) -> optax.GradientTransformation:
    """Adds `strength (w - w0)` to the gradient, w0 being the parameters at `init`: L2-SP.

    That is the gradient of `strength / 2 |w - w0|^2`. w0 is a part of the state, so that a run
    that goes on from a checkpoint is pulled to where the first one started.

    Source: Li, Grandvalet & Davoine 2018, https://arxiv.org/abs/1802.01483, L2-SP.
    """

    def init(params):
        return L2SPState(jax.tree.map(jnp.copy, params))

    def update(updates, state, params=None):
        pulled = jax.tree.map(
            lambda u, w, start: u + strength * (w - start), updates, params, state.anchor
        )
        return pulled, state

    return optax.GradientTransformation(init, update)
