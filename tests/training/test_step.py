"""One training step of a loss that needs no network: what it draws, averages and deals out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax.devices import parallel
from fixed_head_jax.training.step import TrainState, make_train_step

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
BATCH = {"x": X, "index": np.arange(8, dtype=np.int32)}


def loss(params, model_state, task_state, batch, rngs):
    """The square of the mean product, which tells one dealing of the examples from another."""
    draws = jax.vmap(jax.random.uniform)(rngs)
    value = (batch["x"] @ params["w"]).mean() ** 2
    return value, (model_state, task_state, {"loss": value, "draw": draws.mean()})


def make_step(num_devices=1, seed=0, accumulation_steps=1, ema_decay=0.0):
    params = {"w": jnp.asarray([0.5, -1.0, 2.0])}
    tx, is_trained = optax.sgd(0.1), {"w": True}
    step = make_train_step(
        loss, tx, lambda rngs, batch_rng, batch, step: batch, {}, seed, accumulation_steps,
        ema_decay, is_trained,
    )  # fmt: skip
    mapped = parallel.pmap_step(
        lambda state, _, batch: step(state, batch),
        parallel.make_mesh(num_devices), parallel.SPLIT, donate=False,
    )  # fmt: skip
    ema = {"params": params, "batch_stats": {}} if ema_decay else {}
    return mapped, TrainState(jnp.int32(0), params, {}, {}, tx.init(params), ema)


def draws_of(num_steps=2, **options):
    step, state = make_step(**options)
    draws = []
    for _ in range(num_steps):
        state, metrics = step(state, {}, BATCH)
        draws.append(float(metrics["draw"]))
    return draws


def test_randomness_is_of_the_seed_and_the_step_and_not_of_the_devices():
    first = draws_of()
    assert draws_of() == first and first[0] != first[1]
    assert not set(draws_of(seed=1)) & set(first)
    assert draws_of(num_devices=4) == pytest.approx(first, rel=1e-6)
    assert draws_of(accumulation_steps=2) == pytest.approx(first, rel=1e-6)


def test_averages_follow_the_updated_parameters():
    step, state = make_step(ema_decay=0.3)
    expected = np.asarray(state.params["w"], np.float64)
    for number in range(4):
        state, _ = step(state, {}, BATCH)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["w"], np.float64)
        np.testing.assert_allclose(state.ema["params"]["w"], expected, rtol=1e-6)


def test_micro_batches_take_examples_in_turn():
    step, state = make_step(accumulation_steps=2)
    _, metrics = step(state, {}, BATCH)
    products = X.astype(np.float64) @ np.asarray(state.params["w"], np.float64)
    expected = np.mean([products[hand::2].mean() ** 2 for hand in range(2)])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
