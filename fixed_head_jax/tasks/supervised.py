"""Classification of labelled images by softmax cross-entropy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def supervised(model, label_smoothing: float = 0.0) -> tuple[Callable, Callable]:
    """Returns the pair of functions of the supervised task.

    Args:
        model: a classifier of `model.get_model`.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).

    Returns:
        `init(rng, images) -> (params, model_state, task_state)` and
        `loss(params, model_state, task_state, batch, rngs) -> (loss, (model_state, task_state,
        metrics))`; the loss is the mean over the shard, `accuracy` is in percent.

    Raises:
        ValueError: if `label_smoothing` is outside its range.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")

    def init(rng, images):
        variables = dict(model.init(rng, images, train=True))
        return variables.pop("params", {}), variables, {}

    def loss(params, model_state, task_state, batch, rngs):
        del rngs  # nothing random beyond the augmentation
        out, updates = model.apply(
            {"params": params, **model_state}, batch["image"], train=True, mutable=["batch_stats"]
        )
        logits, labels = out["logits"], batch["label"]
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        if label_smoothing:
            targets = optax.smooth_labels(targets, label_smoothing)
        mean_loss = optax.softmax_cross_entropy(logits, targets).mean()
        accuracy = 100 * jnp.mean(jnp.argmax(logits, axis=-1) == labels)
        metrics = {"loss": mean_loss, "accuracy": accuracy}
        return mean_loss, ({**model_state, **updates}, task_state, metrics)

    return init, loss
