"""What tests of optimizers share: parameters of every kind, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from fixed_head_jax import optim
from fixed_head_jax.settings import paths

PLATEAU = optim.Plateau(factor=0.2, patience=3, threshold=1e-4, mode="max")


def make_optimizer(params, schedule, name="sgd", **options):
    """Builds an optimizer from options of its rule and of `optim.make_optimizer` together."""
    rule = {key: options.pop(key) for key in list(options) if hasattr(optim.Rule(), key)}
    return optim.make_optimizer(params, schedule, optim.Rule(name, **rule), **options)


def make_params():
    rng = np.random.default_rng(0)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "backbone": {
            "conv1": {"kernel": array(2, 3)},
            "bn1": {"scale": array(3), "bias": array(3)},
        },
        "head": {"kernel": array(3, 4), "bias": array(4)},
    }


def trained(params, frozen):
    """Returns which parameters train where those that a pattern matches are frozen."""
    return jax.tree.map(lambda freezes: not freezes, paths.match(params, "frozen", [frozen]))


def make_gradients(params, steps, size=1.0):
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: jnp.asarray(size * rng.normal(size=p.shape), jnp.float32), params)
        for _ in range(steps)
    ]
