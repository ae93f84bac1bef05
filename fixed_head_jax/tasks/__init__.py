"""Tasks: what is learned, as pure functions.

`init(rng, images)` returns `(params, model_state, task_state)`. `loss(params, model_state,
task_state, batch, rngs)`, on one device's shard inside the mapped step, returns `loss,
(model_state, task_state, metrics)`; `rngs` holds one key per example. Memory that a method needs
beyond the model (a queue, a teacher) is its `task_state`; what of it is marked `parallel.Split`
lies in parts on the devices.
"""

from collections.abc import Callable

from fixed_head_jax.settings import lookup
from fixed_head_jax.tasks.self_classifier import self_classifier
from fixed_head_jax.tasks.supervised import supervised
from fixed_head_jax.tasks.task import Needs, Task

TASKS: dict[str, Callable[..., Task]] = {
    "supervised": supervised,
    "self_classifier": self_classifier,
}
NEEDS = {"supervised": Needs(labels=True), "self_classifier": Needs(views=True)}


def get_task(name: str, model, **options) -> Task:
    """Builds the task `name`; raises ValueError on an unknown name or option."""
    return lookup.build("task", TASKS, name, {"model": model, **options})
