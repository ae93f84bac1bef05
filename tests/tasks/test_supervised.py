"""The supervised loss on soft targets, and mixing in whole training steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from fixed_head_jax.augment import Options, make_augment
from fixed_head_jax.configs import digits
from fixed_head_jax.devices import parallel
from fixed_head_jax.heads import get_head
from fixed_head_jax.heads.parts import Head
from fixed_head_jax.layers.pooling import get_pool
from fixed_head_jax.model import Classifier
from fixed_head_jax.tasks import get_task
from fixed_head_jax.training import experiment
from fixed_head_jax.training.step import TrainState, make_train_step

LOGITS = [[2.0, 1.0, 0.0, -1.0]]


class Same(Head):
    """A part that gives what it gets."""

    def __call__(self, inputs, train=False):
        return inputs


class Squeeze(nn.Module):
    def __call__(self, feature_map):
        return feature_map[:, 0, 0]


def loss_and_accuracy(logits, batch, **options):
    _, loss, *_ = get_task("supervised", Classifier(Same(), Squeeze(), Same()), **options)
    batch = {"image": jnp.asarray(logits)[:, None, None, :], **batch}
    value, (_, _, metrics) = loss({}, {}, {}, batch, None)
    assert value == metrics["loss"]
    return float(value), float(metrics["accuracy"])


def test_worked_numbers_of_the_specification():
    labels = jnp.array([0])
    smoothed, _ = loss_and_accuracy(LOGITS, {"label": labels}, label_smoothing=0.1)
    assert smoothed == pytest.approx(0.5901897, abs=1e-6)
    plain, _ = loss_and_accuracy(LOGITS, {"label": labels})
    assert plain == pytest.approx(0.4401897, abs=1e-6)
    mixed = {"label": labels, "targets": jnp.array([[0.7, 0.0, 0.3, 0.0]])}
    value, _ = loss_and_accuracy(LOGITS, mixed, label_smoothing=0.1)
    assert value == pytest.approx(1.1301897, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_targets_match_numpy(smoothing):
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 5)).astype(np.float32)
    targets = random.dirichlet(np.ones(5), 6).astype(np.float32)
    batch = {"label": jnp.zeros(6, jnp.int32), "targets": jnp.asarray(targets)}
    value, _ = loss_and_accuracy(logits, batch, label_smoothing=smoothing)
    smooth = (1 - smoothing) * targets + smoothing / 5
    expected = -(smooth * log_softmax(logits.astype(float), 1)).sum(1).mean()
    assert value == pytest.approx(expected, rel=1e-6)


def test_accuracy_counts_the_class_with_the_larger_share():
    logits = jnp.eye(4)
    targets = jnp.array([[0.7, 0.3, 0, 0], [0.6, 0.4, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    batch = {"label": jnp.array([0, 1, 2, 3]), "targets": targets}
    assert loss_and_accuracy(logits, batch)[1] == 50
    assert loss_and_accuracy(logits, {"label": batch["label"]})[1] == 100


def make_step(num_devices, options, mix_steps=None):
    """Returns a step of a linear classifier of mean colours, in two micro-batches, and its state.

    The metric `share` is the mean of the largest target.
    """
    model = Classifier(Same(), get_pool("mean"), get_head("linear", num_classes=4))
    init, supervised_loss, *_ = get_task("supervised", model, label_smoothing=0.1)

    def loss(params, model_state, task_state, batch, rngs):
        value, (*states, metrics) = supervised_loss(params, model_state, task_state, batch, rngs)
        return value, (*states, metrics | {"share": batch["targets"].max(1).mean()})

    params, _, _ = init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    augment, _ = make_augment((8, 8, 3), 4, (0.5,), (0.25,), options, parallel.AXIS, mix_steps)
    tx, is_trained = optax.sgd(1.0), jax.tree.map(lambda _: True, params)
    step = make_train_step(loss, tx, augment, {"lr": lambda _: 1.0}, 0, 2, 0.0, is_trained)
    mapped = parallel.pmap_step(
        lambda state, _, batch: step(state, batch),
        parallel.make_mesh(num_devices), parallel.SPLIT, donate=False,
    )  # fmt: skip
    return mapped, TrainState(jnp.int32(0), params, {}, {}, tx.init(params), {})


def make_batch():
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (16, 8, 8, 3), np.uint8),
        "label": random.integers(0, 4, 16).astype(np.int32),
        "index": np.arange(16, dtype=np.int32),
    }


def test_steps_mix_until_the_one_that_ends_it():
    step, state = make_step(1, Options(mixup=1.0), mix_steps=3)
    shares = []
    for _ in range(5):
        state, metrics = step(state, {}, make_batch())
        shares.append(float(metrics["share"]))
    assert max(shares[:3]) < 1 and shares[3:] == [1, 1]


@pytest.mark.slow
def test_steps_with_mixing_do_not_depend_on_the_number_of_devices():
    batch, results = make_batch(), []
    for count in (1, 4):
        step, state = make_step(count, Options(mixup=1.0, cutmix=1.0))
        shares = []
        for _ in range(6):
            state, metrics = step(state, {}, batch)
            shares.append(metrics["share"])
        assert min(shares) < 0.9 and len({float(share) for share in shares}) > 3  # it does mix
        results.append((state.params, metrics, shares))
    for ours, one in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head, mixing", [("cosface", "mixup"), ("arcface", "cutmix")])
def test_a_margin_refuses_mixed_labels(tmp_path, head, mixing):
    config = digits.get_config(f"{head},smoke")
    config.data_dir = str(tmp_path)
    config.augment[mixing] = 0.2
    with pytest.raises(ValueError, match=f"the margin of model.head='{head}' needs one label"):
        experiment.build(config)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_rejects_smoothing(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got"):
        get_task("supervised", None, label_smoothing=smoothing)
