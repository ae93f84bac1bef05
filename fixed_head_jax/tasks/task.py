"""What a task is made of."""

from collections.abc import Callable
from typing import NamedTuple


def _accepts_anything(batch_size, num_examples, num_devices, accumulation_steps):
    del batch_size, num_examples, num_devices, accumulation_steps


class Task(NamedTuple):
    """What is learned, as pure functions; see `tasks`.

    Attributes:
        init: `(rng, images) -> (params, model_state, task_state)`.
        loss: `(params, model_state, task_state, batch, rngs) -> (loss, (model_state, task_state,
            metrics))`.
        check: `(batch_size, num_examples, num_devices, accumulation_steps)`, raises ValueError
            where the task cannot go with these.
        evaluators: names of those that every evaluation of the task has.
    """

    init: Callable
    loss: Callable
    check: Callable = _accepts_anything
    evaluators: tuple[str, ...] = ("classification",)
