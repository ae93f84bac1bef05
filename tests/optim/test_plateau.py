"""Rates that fall on a plateau: the published trace, sharding, and what is asked for."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fixed_head_jax import optim
from tests.optim.parameters import PLATEAU, make_gradients, make_optimizer, make_params, trained

PLATEAU_TRACE = """50→0.1, 55→0.1, 55→0.1, 54→0.1, 55.00005→0.1, 54.9→0.02, 55.2→0.02, 55.1→0.02,
55.2→0.02, 55.0→0.02, 55.3→0.02, 50→0.02, 50→0.02, 50→0.02, 50→0.004, 50→0.004, 50→0.004,
50→0.004, 50→0.0008"""


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_trace(mode):
    params = make_params()
    plateau = replace(PLATEAU, mode=mode)
    sign = 1 if mode == "max" else -1
    (grads,) = make_gradients(params, 1)
    tx = make_optimizer(
        params, lambda step: 0.1, momentum=0.0, is_trained=trained(params, "conv1"), plateau=plateau
    )
    state = tx.init(params)
    before = jax.tree.structure(state)
    update = jax.jit(tx.update)
    for pair in PLATEAU_TRACE.split(","):
        value, rate = map(float, pair.split("→"))
        state = optim.observe(state, sign * value, plateau)
        np.testing.assert_allclose(0.1 * optim.plateau_scale(state), rate, rtol=1e-6)
        for _ in range(2):  # steps leave the plateau alone
            updates, state = update(grads, state, params)
        expected = -rate * np.asarray(grads["head"]["bias"])
        np.testing.assert_allclose(updates["head"]["bias"], expected, rtol=1e-6)
        assert not np.any(updates["backbone"]["conv1"]["kernel"])
    assert jax.tree.structure(state) == before and update._cache_size() == 1


def test_observe_keeps_sharding_so_that_the_step_does_not_compile_again():
    params = make_params()
    mesh = jax.make_mesh((4,), ("data",))
    replicated = NamedSharding(mesh, PartitionSpec())
    tx = make_optimizer(params, lambda step: 0.1, plateau=PLATEAU)
    update = jax.jit(tx.update, out_shardings=replicated)
    params = jax.device_put(params, replicated)
    state = jax.device_put(tx.init(params), replicated)
    for value in (50.0, 40.0):
        _, state = update(params, state, params)
        state = optim.observe(state, value, PLATEAU)
        assert all(leaf.sharding == replicated for leaf in jax.tree.leaves(state))
    update(params, state, params)
    assert update._cache_size() == 1


def test_without_plateau_observe_is_identity():
    params = make_params()
    tx = make_optimizer(params, lambda step: 0.1)
    state = tx.init(params)
    assert optim.observe(state, 3.0) is state
    assert optim.observe(state, 3.0, PLATEAU) is state
    assert optim.plateau_scale(state) == 1.0


def test_observe_asks_for_the_plateau_options():
    params = make_params()
    tx = make_optimizer(params, lambda step: 0.1, plateau=PLATEAU)
    with pytest.raises(ValueError, match="plateau=None, but the state has a plateau stage"):
        optim.observe(tx.init(params), 1.0)
