"""Tasks: what is learned, as a pair of pure functions `(init, loss)`.

`init(rng, images)` returns `(params, model_state, task_state)`. `loss(params, model_state,
task_state, batch, rngs)`, on one device's shard inside the mapped step, returns `loss,
(model_state, task_state, metrics)`; `rngs` holds one key per example. Memory that a method needs
beyond the model (a queue, a teacher) is its `task_state`.
"""

from collections.abc import Callable

from fixed_head_jax import lookup
from fixed_head_jax.tasks.supervised import supervised

TASKS = {"supervised": supervised}


def get_task(name: str, model, **options) -> tuple[Callable, Callable]:
    """Builds the task `name`; raises ValueError on an unknown name or option."""
    return lookup.build("task", TASKS, name, {"model": model, **options})
