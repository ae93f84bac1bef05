"""What a task is made of."""

from collections.abc import Callable
from typing import NamedTuple


def _accepts_anything(batch_size, num_examples, num_devices, accumulation_steps):
    del batch_size, num_examples, num_devices, accumulation_steps


class Needs(NamedTuple):
    """What a task needs of the rest of a run.

    Attributes:
        views: batches of sets of views, in place of single images.
        labels: known labels of the training images. What it predicts are labels then, by a head
            that has class vectors; without, classes of its own, by a head that embeds.
    """

    views: bool = False
    labels: bool = False


class Task(NamedTuple):
    """What is learned, as pure functions; see `tasks`.

    Attributes:
        init: `(rng, images) -> (params, model_state, task_state)`.
        loss: `(params, model_state, task_state, batch, rngs) -> (loss, (model_state, task_state,
            metrics))`.
        check: `(batch_size, num_examples, num_devices, accumulation_steps)`, raises ValueError
            where the task cannot go with these.
        evaluators: names of those that every evaluation of the task has.
        temperature: > 0, divides the logits in the probabilities that it predicts.
    """

    init: Callable
    loss: Callable
    check: Callable = _accepts_anything
    evaluators: tuple[str, ...] = ("classification",)
    temperature: float = 1.0
