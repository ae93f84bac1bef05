"""Margin heads against their formulas: the margin is in the loss alone."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fixed_head_jax.heads.cosine import TVMF, ArcFace, CosFace, Cosine
from fixed_head_jax.heads.linear import Linear
from fixed_head_jax.layers.pooling import Mean
from fixed_head_jax.model import Classifier
from fixed_head_jax.tasks import get_task
from tests.heads.cosine_examples import (
    COSINES,
    KERNEL,
    LABELS,
    RNG,
    H,
    assert_finite,
    cross_entropy,
    given,
    loss_and_grads,
)

MARGINS = [
    (CosFace, 0.0, [0.7, 4 / 15], 5.15869177),
    (CosFace, 0.35, [0.35, -0.08333333], 9.87602924),
    (ArcFace, 0.0, [0.7, 4 / 15], 5.15869177),
    (ArcFace, 0.5, [0.27192948, -0.22804296], 11.65181821),
]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind, margin, targets, loss", MARGINS)
def test_margins(kind, margin, targets, loss, fixed):
    head = kind(3, fixed=fixed, scale=16.0, margin=margin)
    logits = given(head)
    np.testing.assert_allclose(logits, 16 * COSINES, atol=1e-5)
    in_training = head.training_logits(logits, LABELS)
    expected = np.array(logits) / 16
    expected[[0, 1], LABELS] = targets
    np.testing.assert_allclose(in_training / 16, expected, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(in_training).mean(), loss, atol=2e-5)


def target_logits(head, cosines):
    """Returns the training logit of label 0 at each of its cosines."""
    logits = jnp.stack([cosines, jnp.zeros_like(cosines)], 1) * head.scale
    return head.training_logits(logits, jnp.zeros(len(cosines), jnp.int32))[:, 0]


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.0, math.pi / 2])
def test_arcface_is_monotone_and_equals_arccos(margin):
    head = ArcFace(2, margin=margin, scale=30.0)
    cosines = np.linspace(-1, 1, 4001)
    ours = target_logits(head, jnp.array(cosines, jnp.float32)) / 30
    theta = np.arccos(cosines)
    past = cosines - margin * np.sin(margin)
    exact = np.where(theta > np.pi - margin, past, np.cos(theta + margin))
    away = np.abs(theta - (np.pi - margin)) > 1e-3  # rounding decides the case at the seam
    np.testing.assert_allclose(ours[away], exact[away], atol=5e-4)  # sqrt(1 - c^2) at the ends
    np.testing.assert_allclose(ours[away][50:-50], exact[away][50:-50], atol=5e-6)
    assert (jnp.diff(ours) >= -1e-6).all()
    assert (ours <= cosines + 1e-6).all()


def test_an_easy_margin_ends_at_90_degrees():
    cosines = jnp.array([-1.0, -0.9, 0.0, 0.1, 0.8, 1.0])
    head = ArcFace(2, easy_margin=True)
    expected = np.where(cosines > 0, np.cos(np.arccos(cosines) + 0.5), cosines)
    np.testing.assert_allclose(target_logits(head, cosines) / 64, expected, atol=5e-4)
    slopes = jax.grad(lambda c: target_logits(head, c).sum())(cosines) / 64
    np.testing.assert_allclose(slopes[:3], 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [CosFace, ArcFace])
def test_margin_gradients(kind):
    head = kind(2)
    cosines = jnp.array([-1.0, -0.95, -0.5, 0.2, 0.9, 1.0])
    slopes = jax.grad(lambda c: target_logits(head, c).sum())(cosines) / head.scale
    assert_finite(slopes)
    theta = np.arccos(cosines[2:-1])
    shift = np.sin(theta + 0.5) / np.sin(theta)  # not 1: the margin's own gradient flows
    np.testing.assert_allclose(slopes[:2], 1, rtol=1e-5)
    np.testing.assert_allclose(slopes[2:-1], shift if kind is ArcFace else 1, rtol=1e-4)


@pytest.mark.parametrize("kind", [CosFace, ArcFace])
def test_margin_heads_are_finite_along_and_against_their_class_vectors(kind):
    features = jnp.concatenate([KERNEL.T, -KERNEL.T])
    assert_finite(loss_and_grads({"kernel": KERNEL}, kind(3), {}, features))


# Training: the margin is in the loss alone.

ARCFACE_TARGETS = [0.27192948, math.cos(math.acos(0.9) + 0.5)]


class Function(nn.Module):
    """A backbone without variables."""

    function: Callable

    def __call__(self, images, train):
        return self.function(images)


def classifier(head):
    return Classifier(Function(lambda images: images), Mean(), head)


def loss_and_accuracy(head, features, labels, **options):
    """Returns the supervised task's loss, its gradient and its accuracy at given features."""
    init, loss, *_ = get_task("supervised", classifier(head), **options)
    batch = {"image": features[:, None, None, :], "label": labels}
    params, model_state, task_state = init(RNG, batch["image"])
    params = {"head": {**params["head"], "kernel": KERNEL}}
    grad_fn = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (_, _, metrics)), grads = grad_fn(params, model_state, task_state, batch, None)
    assert value == metrics["loss"]
    return value, grads, metrics["accuracy"]


@pytest.mark.parametrize("kind, targets", [(CosFace, [0.35, 0.55]), (ArcFace, ARCFACE_TARGETS)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_has_the_margin_and_the_accuracy_has_not(kind, targets, smoothing):
    labels = jnp.array([1, 1])  # both right, though the margin puts the first behind class 0
    logits = 16 * COSINES
    logits[:, 1] = 16 * np.array(targets)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smooth = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    expected = -(smooth * log_probabilities).sum(1).mean()
    head = kind(3, scale=16.0)
    value, grads, accuracy = loss_and_accuracy(head, H, labels, label_smoothing=smoothing)
    assert float(value) == pytest.approx(expected, rel=1e-5) and accuracy == 100
    assert_finite(grads)


def test_evaluation_is_without_margin():
    model = classifier(CosFace(3, scale=16.0))
    variables = {"params": {"head": {"kernel": KERNEL}}}
    logits = model.apply(variables, H[:, None, None, :], train=False)["logits"]
    np.testing.assert_allclose(logits, 16 * COSINES, atol=1e-5)


@pytest.mark.parametrize("head", [Linear(3), Cosine(3), TVMF(3), Cosine(3, fixed=True)])
def test_other_heads_train_on_their_logits(head):
    logits = jnp.ones((2, 3))
    assert classifier(head).training_logits(logits, LABELS) is logits
