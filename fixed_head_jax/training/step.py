"""The training step, a pure function of one device's shard, and the state it changes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import PyTree

from fixed_head_jax import optim
from fixed_head_jax.devices import parallel

_BATCH = 2**31 - 1  # folded into the step's key for the batch: no example's position


class TrainState(flax.struct.PyTreeNode):
    """All that the next step depends on, beside the config: what a checkpoint holds.

    Attributes:
        step: number of updates done, int32 [].
        params: trained parameters.
        model_state: the other collections of the model, `batch_stats` and `fixed`.
        task_state: memory of the task; empty for supervised training.
        opt_state: state of the optimizer.
        ema: averages of params and batch_stats, or empty.
    """

    step: Any
    params: Any
    model_state: Any
    task_state: Any
    opt_state: Any
    ema: Any


def averaged(params: Any, model_state: Any) -> dict:
    """Selects what an exponential moving average follows: never the fixed vectors."""
    return {"params": params, "batch_stats": model_state.get("batch_stats", {})}


def make_train_step(
    loss: Callable,
    tx: optax.GradientTransformation,
    augment: Callable,
    rates: Mapping[str, Callable],
    seed: int,
    accumulation_steps: int,
    ema_decay: float,
    is_trained: PyTree,
) -> Callable:
    """Returns `train_step(state, batch) -> (state, metrics)` on one device's shard.

    Args:
        loss: of the task, see `tasks`.
        tx: the optimizer.
        augment: `(rngs, batch_rng, batch, step) -> batch`, with one key per example and one of the
            batch; it gets the whole shard, and may mix it with those of other devices.
        rates: learning rates of a step by the name of their metric, for the log.
        seed: of the run; an example's randomness depends on (seed, step, position in the global
            batch) alone, that of a batch on (seed, step).
        accumulation_steps: gradients of this many micro-batches are averaged; batch norm sees one
            micro-batch at a time. Example i is in micro-batch i modulo this number, so that the
            members do not depend on the number of devices.
        ema_decay: decay d of the averages, min(d, (1 + step) / (10 + step)) early on; 0: none.
        is_trained: per parameter; the others' gradients are zero, and cost nothing.
    """
    grad_fn = jax.value_and_grad(_of_trained(loss, is_trained), has_aux=True)

    def micro_step(params, carry, inputs):
        model_state, task_state = carry
        batch, rngs = inputs
        (_, aux), grads = grad_fn(params, model_state, task_state, batch, rngs)
        model_state, task_state, metrics = aux
        return (model_state, task_state), (grads, metrics)

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)
        rngs = _example_rngs(rng, batch["index"].shape[0])
        batch = augment(rngs, jax.random.fold_in(rng, _BATCH), batch, state.step)
        micro_batches = jax.tree.map(partial(_deal, accumulation_steps), (batch, rngs))
        (model_state, task_state), results = parallel.fold(
            partial(micro_step, state.params), (state.model_state, state.task_state), micro_batches
        )
        grads, metrics = jax.tree.map(lambda x: x.mean(0), results)
        grads, metrics = lax.pmean((grads, metrics), parallel.AXIS)
        metrics["grad_norm"] = optax.tree.norm(grads)
        scale = optim.plateau_scale(state.opt_state)
        metrics |= {name: rate(state.step) * scale for name, rate in rates.items()}
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(averaged(params, model_state), ema, 1 - decay)
        state = TrainState(state.step + 1, params, model_state, task_state, opt_state, ema)
        return state, metrics

    return train_step


def _of_trained(loss, is_trained):
    """Returns the loss as a function of the trained parameters: no gradient for the others."""

    def trained_loss(params, *arguments):
        params = jax.tree.map(
            lambda trained, leaf: leaf if trained else lax.stop_gradient(leaf), is_trained, params
        )
        return loss(params, *arguments)

    return trained_loss


def _example_rngs(rng, local_batch_size):
    """Returns one key per example of this shard, from the step's and the global position."""
    first = lax.axis_index(parallel.AXIS) * local_batch_size
    return jax.vmap(partial(jax.random.fold_in, rng))(first + jnp.arange(local_batch_size))


def _deal(hands, x):
    """Reshapes [B, ...] to [hands, B / hands, ...]; example i goes to hand i modulo `hands`."""
    return x.reshape(x.shape[0] // hands, hands, *x.shape[1:]).swapaxes(0, 1)
