"""What tests of whole runs share: stopping one, reading and comparing what they left."""

import json

import jax
import numpy as np
from tensorboardX.proto.event_pb2 import Event

from fixed_head_jax.storage.checkpoint import Checkpoints
from fixed_head_jax.training import experiment


def stop_after(dispatches):
    """Returns a `stop_requested` that is true once asked so many times."""
    calls = iter(range(dispatches - 1))
    return lambda: next(calls, None) is None


def final_state(config, workdir):
    run = experiment.build(config, read_weights=False)
    checkpoints = Checkpoints(workdir, f"eval/{config.best_metric}")
    abstract = jax.eval_shape(run.create_state)
    return checkpoints.restore(checkpoints.last_step, abstract, run.mesh).state


def logged(workdir):
    """Returns the lines of metrics.jsonl, without what timing says."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in lines]


def same_bits(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def read_events(workdir):
    """Reads TFRecord framing: length (8), its checksum (4), data, its checksum (4)."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, start = path.read_bytes(), 0
        while start < len(data):
            size = int.from_bytes(data[start : start + 8], "little")
            events.append(Event.FromString(data[start + 12 : start + 12 + size]))
            start += size + 16
    return events
