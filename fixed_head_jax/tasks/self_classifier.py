"""Self-Classifier: classes and representation learned end to end, without labels."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fixed_head_jax.devices.parallel import AXIS
from fixed_head_jax.losses.self_classifier import check_options, self_classifier_loss
from fixed_head_jax.tasks import neighbor_queue
from fixed_head_jax.tasks.task import Task

_MONITORED_VIEW = 1  # the first view may have been replaced by a neighbour
_MOMENTUM = 0.9  # of the running means of the losses


def self_classifier(
    model,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
    eps: float = 1e-12,
    queue_size: int = 262144,
    uses_neighbors: bool = True,
) -> Task:
    """Returns the task of learning classes from views of unlabelled images.

    Args:
        model: a classifier of `model.get_model` whose head is one of `heads.EMBEDDING_HEADS`.
        row_temperature: of the loss, > 0.
        column_temperature: same.
        eps: same; 0 is the stable form.
        queue_size: embeddings of the last images that the first view finds its neighbour in; 0 is
            no queue, and no neighbours. At least the batch size, and no more than the images that
            there are: a queue that holds an image twice gives it back as its own neighbour.
        uses_neighbors: takes the neighbour's embedding in place of the first view's, once the
            queue is full; otherwise neighbours are found for the log alone.

    Returns:
        The task. Its batches hold "global" and "local", tuples of images [B, H, W, C], one per
        view, "label", which only metrics see, and "index". The loss is the mean over classifiers
        of `self_classifier_loss` on the batch of all devices. Metrics: `loss`; `used_classes`, how
        many classes the second view of the global batch is put into, and `class_entropy` of that
        distribution, at most 1 (all alike), both of the evaluated classifier (of the first, where
        that is chosen by its loss); with a queue `neighbor_accuracy`, the share of neighbours
        (percent) with the image's label, 0 until the queue is full and without labels.

    Raises:
        ValueError: if a value is out of its range, or the model has another head.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, and its code.
    """
    check_options(row_temperature, column_temperature, eps)
    if queue_size < 0:
        raise ValueError(f"queue_size must be at least 0 (0: no queue), got {queue_size}")
    if not model.head.embeds:
        raise ValueError("task 'self_classifier' needs a head that embeds; set model.head")
    if model.dropout:
        raise ValueError(
            f"task 'self_classifier' has no dropout, got {model.dropout}; set model.dropout=0"
        )

    def init(rng, images):
        variables = dict(model.init(rng, images, train=False))
        params = variables.pop("params", {})
        if not queue_size:
            return params, variables, {}
        embeddings = jax.eval_shape(
            lambda: model.apply(
                {"params": params, **variables}, [images], train=False, method="embed"
            )
        )
        return params, variables, neighbor_queue.create(queue_size, embeddings.shape[-1])

    def loss(params, model_state, task_state, batch, rngs):
        del rngs  # all randomness is in the views
        views = [*batch["global"], *batch["local"]]
        embeddings, model_state = _embed(model, params, model_state, views)
        embeddings = embeddings.reshape(len(views), -1, embeddings.shape[-1])
        metrics = {}
        if queue_size:
            embeddings, task_state, metrics = _find_neighbors(
                embeddings, task_state, batch, uses_neighbors
            )
        variables = {"params": params, **model_state}
        logits = model.apply(
            variables, embeddings.reshape(-1, embeddings.shape[-1]), method="classify"
        )
        logits = [x.reshape(len(views), -1, x.shape[-1]) for x in logits]
        losses = [
            self_classifier_loss(
                x, len(batch["global"]), row_temperature, column_temperature, eps, AXIS
            )
            for x in logits
        ]
        mean_loss = sum(losses) / len(losses)
        if model.head.evaluated == -1:
            model_state = _keep_losses(model_state, losses)
        metrics |= {"loss": mean_loss, **_usage(logits[max(model.head.evaluated, 0)])}
        return mean_loss, (model_state, task_state, metrics)

    check = partial(_check_sizes, queue_size)
    return Task(init, loss, check, evaluators=("clustering",), temperature=row_temperature)


def _check_sizes(queue_size, batch_size, num_examples, num_devices, accumulation_steps):
    """Raises ValueError where the queue, or the batch, does not go with the run."""
    if accumulation_steps > 1:
        raise ValueError(
            "task 'self_classifier' normalises over the whole batch, not over "
            f"accumulation_steps={accumulation_steps} parts of it; set accumulation_steps=1"
        )
    if queue_size and not batch_size <= queue_size <= num_examples:
        raise ValueError(
            f"queue_size={queue_size} must be between batch_size={batch_size} and the number "
            f"of training images, {num_examples}, or 0 (no queue); set task.options.queue_size"
        )
    if queue_size % num_devices:
        raise ValueError(
            f"queue_size={queue_size} is not divisible by {num_devices} devices; set "
            "task.options.queue_size or num_devices"
        )


def _embed(model, params, model_state, views):
    """Returns the embeddings, view after view, and the updated state."""
    # Views of one size go through the backbone together, for the statistics of batch norm.
    batches = [
        jnp.concatenate(list(group)) for _, group in itertools.groupby(views, lambda x: x.shape)
    ]
    embeddings, updates = model.apply(
        {"params": params, **model_state}, batches, train=True, mutable=["batch_stats"],
        method="embed",
    )  # fmt: skip
    return embeddings, {**model_state, **updates}


def _keep_losses(model_state, losses):
    """Updates the running mean of every classifier's loss, which the head chooses one by."""
    losses = lax.pmean(lax.stop_gradient(jnp.stack(losses)), AXIS)
    stats = model_state["batch_stats"]
    kept = _MOMENTUM * stats["head"]["losses"] + (1 - _MOMENTUM) * losses
    head = {**stats["head"], "losses": kept}
    return {**model_state, "batch_stats": {**stats, "head": head}}


def _find_neighbors(embeddings, queue, batch, uses_neighbors):
    """Puts neighbours in place of the first view's embeddings, which go into the queue."""
    queries = lax.stop_gradient(embeddings[0])
    labels, indices = batch["label"], batch["index"]
    neighbors, neighbor_labels = neighbor_queue.look_up(queue, queries, indices, AXIS)
    if uses_neighbors:
        first = jnp.where(queue.is_full, neighbors, embeddings[0])
        embeddings = jnp.concatenate([first[None], embeddings[1:]])
    is_same = (neighbor_labels == labels) & (labels >= 0)  # -1 stands for an unknown one
    accuracy = 100 * jnp.mean(is_same) * queue.is_full
    queue = neighbor_queue.push(queue, queries, labels, indices, AXIS)
    return embeddings, queue, {"neighbor_accuracy": accuracy}


def _usage(logits):
    """Returns how the classes are used by the monitored view of the global batch."""
    num_classes = logits.shape[-1]
    classes = jnp.argmax(logits[_MONITORED_VIEW], axis=-1)
    share = lax.pmean(jax.nn.one_hot(classes, num_classes).mean(0), AXIS)
    entropy = -jnp.sum(share * jnp.log(jnp.where(share > 0, share, 1.0)))
    used = jnp.sum(share > 0).astype(jnp.float32)
    return {"used_classes": used, "class_entropy": entropy / jnp.log(num_classes)}
