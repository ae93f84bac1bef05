"""Checkpoints by orbax: asynchronous, atomic, the last and the best are kept."""

import contextlib
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from fixed_head_jax.devices.parallel import state_shardings
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.storage.workdir import read_config


class DamagedCheckpointError(ValueError):
    """A checkpoint that cannot be read, named in one line."""


class UnsavedCheckpointError(OSError):
    """A checkpoint that cannot be written, named in one line; those before it are kept."""


class Restored(NamedTuple):
    """A checkpoint: its step, the device state, and what the host loop needs to go on."""

    step: int
    state: Any
    host: dict


class Checkpoints:
    """The checkpoints of one run, under `workdir/checkpoints/<step>`.

    A step folder appears only when it is complete, so a run killed at any instant finds whole
    checkpoints alone. Nothing is deleted before its successor is complete.

    Args:
        workdir: folder of the run.
        best_metric: the evaluation metric, larger is better, whose best checkpoint is kept
            beside the last one.
    """

    def __init__(self, workdir: str | Path, best_metric: str):
        policies, best = checkpoint_managers, _best(best_metric)
        keep = [
            policies.LatestN(1),
            policies.BestN(get_metric_fn=best, n=1, keep_checkpoints_without_metrics=False),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            best_fn=best,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        self._folder, self._best_metric = _folder(workdir), best_metric
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    @property
    def last_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the best evaluated checkpoint, or None."""
        self._manager.wait_until_finished()  # metrics are read from the finished folder
        step = self._manager.best_step()
        return step if step is not None and self._manager.metrics(step) else None

    @property
    def best_value(self) -> float | None:
        """Value of the best metric there, or None."""
        step = self.best_step
        return None if step is None else self._manager.metrics(step)[self._best_metric]

    def save(self, step: int, state: Any, host: dict, metrics: dict | None) -> None:
        """Starts saving `state` (device arrays) and `host` (JSON) for `step`; returns at once.

        Raises:
            UnsavedCheckpointError: if there is no room for it, or the one before was not written.
        """
        needed, free = optax.tree.size(state) * 4, shutil.disk_usage(self._folder).free
        if jax.process_index() == 0 and free < needed:  # else the library fails in many lines
            raise UnsavedCheckpointError(
                f"checkpoint {step} needs {needed / 2**20:,.0f} MiB in {str(self._folder)!r}, "
                f"where {free / 2**20:,.0f} MiB are free; make room and repeat the command"
            )
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
        if step not in self._manager.all_steps():
            # Orbax warns of None: no metrics, and so the worst, are those of no evaluation.
            with self._failures():
                self._manager.save(step, args=items, metrics=metrics or {})

    def restore(self, step: int, abstract_state: Any, mesh: Mesh) -> Restored:
        """Restores the checkpoint of `step` as a state lies on the mesh, whatever wrote it.

        Raises:
            DamagedCheckpointError: if it cannot be read.
        """
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            abstract_state,
            state_shardings(abstract_state, mesh),
        )
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore()
        )
        with _damage(self._folder, step):
            restored = self._manager.restore(step, args=items)
        return Restored(step, restored["state"], restored["host"])

    def close(self) -> None:
        """Waits until what was saved is complete.

        Raises:
            UnsavedCheckpointError: if it was not written.
        """
        with self._failures():
            self._manager.wait_until_finished()
        self._manager.close()

    @contextlib.contextmanager
    def _failures(self):
        """Says where a checkpoint is missing where writing it, maybe in a thread, failed."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = " ".join(str(error).split())[-200:]  # ends in what the system says
            raise UnsavedCheckpointError(
                f"a checkpoint could not be written in {str(self._folder)!r} ({reason}); those "
                "before it are kept: repeat the command once it can"
            ) from error


def last_step(workdir: str | Path) -> int | None:
    """Returns the step of the newest whole checkpoint in `workdir`, None without any."""
    steps = [int(path.name) for path in _folder(workdir).glob("*") if path.name.isdigit()]
    return max(steps, default=None)


def read_variables(workdir: str | Path, which: str = "last") -> dict[str, Any]:
    """Reads the variables of a checkpoint in `workdir`, whatever model they are of.

    Args:
        workdir: of a run.
        which: "last", or "best" by the run's own `best_metric`.

    Returns:
        {"params", "batch_stats"?, "fixed"?} as numpy arrays; averages where the run kept them.

    Raises:
        ValueError: if there is no checkpoint, or it is damaged (`DamagedCheckpointError`).
    """
    check_choice("checkpoint", which, ("last", "best"))
    if last_step(workdir) is None:
        raise ValueError(f"{str(workdir)!r} holds no checkpoint; name a run's workdir or a file")
    path = _folder(workdir)
    handlers = {"state": ocp.StandardCheckpointHandler(), "host": ocp.JsonCheckpointHandler()}
    best = _best(f"eval/{read_config(workdir)['best_metric']}") if which == "best" else None
    options = ocp.CheckpointManagerOptions(best_fn=best)
    with ocp.CheckpointManager(path, item_handlers=handlers, options=options) as manager:
        step = manager.latest_step() if which == "last" else manager.best_step()
        with _damage(path, step):
            saved = manager.item_metadata(step)["state"]
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            state = manager.restore(step, args=items)["state"]
            return {"params": state["params"], **state["model_state"], **state["ema"]}


def _best(metric):
    """Returns what ranks the metrics of a checkpoint; one without an evaluation comes last."""
    return lambda metrics: metrics[metric] if metrics else -math.inf


def _folder(workdir):
    return (Path(workdir) / "checkpoints").absolute()


@contextlib.contextmanager
def _damage(folder, step):
    """Says which checkpoint is damaged where reading it fails."""
    try:
        yield
    except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
        raise DamagedCheckpointError(
            f"checkpoint {step} in {str(folder)!r} is damaged ({type(error).__name__}); remove "
            "its folder to go on from the one before it, or from the start where there is none"
        ) from error
