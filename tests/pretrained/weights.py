"""What tests of weights share: made-up weights of public models, and a small network."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fixed_head_jax import pretrained
from fixed_head_jax.model import get_model
from tests.golden.generate import weight

GOLDEN = Path(__file__).parents[1] / "golden"
WITHOUT_HEAD = ("resnet10", "stl_resnet18")


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def state_dict(name):
    keys = json.loads(str(golden(name)["keys"]))
    return {key: weight(key, tuple(shape)) for key, shape in keys.items()}


@cache
def model(name):
    num_classes = 10 if name in ("densenet_bc_100_12", *WITHOUT_HEAD) else 1000
    pooling = ("flatten", {"window": 4}) if name == "stl_resnet18" else ("mean", {})
    return get_model(num_classes, name, pool=pooling[0], pool_options=pooling[1])


SMALL = get_model(3, "resnet20")


@jax.jit
def small_variables(rng):
    return SMALL.init(rng, jnp.zeros((1, 8, 8, 3)), train=False)


@cache
def small_dict():
    return pretrained.to_torch(small_variables(jax.random.key(0)), SMALL)


def small(**changes):
    return {**small_dict(), **changes}
