"""Parameter initializers of the reference networks: (rng, shape, dtype) -> array."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# He-normal by fan-out: the ImageNet ResNets; by fan-in: the CIFAR ResNets.
he_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
he_normal_fan_in = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what the reference framework gives a layer by default.
uniform_fan_in = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform(bound: float) -> Callable:
    """Returns an initializer that draws from U(-bound, bound)."""

    def init(rng, shape, dtype=jnp.float32):
        return jax.random.uniform(rng, shape, dtype, -bound, bound)

    return init
