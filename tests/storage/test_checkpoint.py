"""Which checkpoints are kept, and what is read back from them."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.devices import parallel
from fixed_head_jax.storage.checkpoint import Checkpoints, last_step, read_variables
from fixed_head_jax.training.step import TrainState


def state_of(step, ema=True):
    params = {"w": jnp.full(3, float(step))}
    averages = {"params": {"w": params["w"] + 0.5}, "batch_stats": {"mean": jnp.ones(2)}}
    model_state = {"batch_stats": {"mean": jnp.zeros(2)}, "fixed": {"kernel": jnp.arange(4.0)}}
    state = TrainState(jnp.int32(step), params, model_state, {}, {}, averages if ema else {})
    return parallel.place_state(state, parallel.make_mesh(1))


def save(folder, accuracies, ema=True):
    with contextlib.closing(Checkpoints(folder, "eval/accuracy")) as checkpoints:
        for step, accuracy in accuracies.items():
            metrics = None if accuracy is None else {"eval/accuracy": accuracy}
            checkpoints.save(step, state_of(step, ema), {"partial": []}, metrics)
        return checkpoints.best_step, checkpoints.last_step


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ({1: 50.0, 2: 90.0, 3: 70.0}, 2),
        ({1: 50.0, 2: None, 3: None}, 1),
        ({1: None, 2: 10.0}, 2),
    ],
)
def test_the_best_evaluated_checkpoint_and_the_last_are_kept(tmp_path, accuracies, best):
    last = max(accuracies)
    assert save(tmp_path, accuracies) == (best, last)
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {best, last} and last_step(tmp_path) == last


@pytest.mark.parametrize("ema", [True, False])
def test_variables_are_the_averages_where_a_run_kept_them(tmp_path, ema):
    save(tmp_path, {1: 50.0, 4: 60.0}, ema)
    variables = read_variables(tmp_path)
    np.testing.assert_array_equal(variables["params"]["w"], 4.5 if ema else 4.0)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 1.0 if ema else 0.0)
    np.testing.assert_array_equal(variables["fixed"]["kernel"], np.arange(4.0))
