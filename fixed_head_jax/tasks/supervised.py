"""Classification of labelled images by softmax cross-entropy."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from fixed_head_jax.losses.orthogonality import (
    double_soft_orthogonality,
    soft_orthogonality,
    sum_over_kernels,
)
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.tasks.task import Task

PENALTIES = {"soft": soft_orthogonality, "double_soft": double_soft_orthogonality}


def supervised(
    model,
    label_smoothing: float = 0.0,
    orthogonality: str | None = None,
    orthogonality_weight: float = 0.025,
    orthogonality_patterns: Sequence[str] = ("^backbone/.*kernel$",),
) -> Task:
    """Returns the task of learning the labels.

    Args:
        model: a classifier of `model.get_model`.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1); of mixed
            targets too.
        orthogonality: None, or the penalty on kernels that is added to the loss: "soft" or
            "double_soft".
        orthogonality_weight: its coefficient, >= 0; the thesis' by default.
        orthogonality_patterns: of the paths of its kernels; by default all convolutions of a
            residual network.

    Returns:
        The task. Its batch holds "image", "label" and, where images are mixed, "targets" [B,K],
        rows of sum 1; without, the targets are the labels. The loss is the mean over the shard,
        with the margin of a head that has one, plus the penalty; the metric `loss` is without the
        penalty, `accuracy`, in percent, without the margin. A mixed image counts as right where
        the class with the larger share is predicted, of equal ones the first.

    Raises:
        ValueError: if `label_smoothing` or `orthogonality_weight` is outside its range,
            `orthogonality` unknown, or the head one that embeds; `init`, on a pattern that matches
            no kernel.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if model.head.embeds:
        raise ValueError("task 'supervised' trains no head that embeds; set model.head")
    regularizer = _regularizer(orthogonality, orthogonality_weight, orthogonality_patterns)

    def init(rng, images):
        variables = dict(model.init(rng, images, train=True))
        params = variables.pop("params", {})
        jax.eval_shape(regularizer, params)  # refuses patterns that match no kernel
        return params, variables, {}

    def loss(params, model_state, task_state, batch, rngs):
        variables = {"params": params, **model_state}
        out, updates = model.apply(
            variables, batch["image"], train=True, example_rngs=rngs, mutable=["batch_stats"]
        )
        logits, labels = out["logits"], batch["label"]
        targets = batch.get("targets", jax.nn.one_hot(labels, logits.shape[-1]))
        if label_smoothing:
            targets = optax.smooth_labels(targets, label_smoothing)
        training_logits = model.training_logits(logits, labels)
        mean_loss = optax.softmax_cross_entropy(training_logits, targets).mean()
        accuracy = 100 * jnp.mean(jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1))
        metrics = {"loss": mean_loss, "accuracy": accuracy}
        return mean_loss + regularizer(params), ({**model_state, **updates}, task_state, metrics)

    return Task(init, loss)


def _regularizer(orthogonality, weight, patterns):
    """Returns the function of the parameters that is added to the loss."""
    if weight < 0:
        raise ValueError(f"orthogonality_weight must be at least 0, got {weight}")
    if orthogonality is None:
        return lambda params: 0.0
    check_choice("orthogonality", orthogonality, PENALTIES)
    return lambda params: weight * sum_over_kernels(params, patterns, PENALTIES[orthogonality])
