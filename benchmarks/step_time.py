"""Times our training steps beside torch's, in turn, and prints one JSON line per model.

Both train on the same shapes with cross-entropy and SGD (momentum 0.9, weight decay 1e-4), float32,
on the CPU. The peer is another interpreter that has torch; the two never run at the same time.
Other processes on the same cores distort the ratio: `others_percent` is the share of the machine
that they took in each turn (Linux; ours, then the peer's), `quiet` says that it stayed under 10 %.

    python benchmarks/step_time.py --peer_python PYTHON_WITH_TORCH --models resnet18,resnet50
"""

import argparse
import datetime
import json
import math
import os
import statistics
import subprocess
import time
from pathlib import Path

PEER_SCRIPT = Path(__file__).resolve().parents[2] / "shared" / "bench" / "torch_train_step.py"
# Our name of a model: the peer's, batch, resolution in pixels.
MODELS = {
    "resnet18": ("resnet18", 32, 96),
    "resnet50": ("resnet50", 32, 96),
    "mobilenet_v2": ("mobilenet_v2", 32, 96),
    "shufflenet_v2_x0_5": ("shufflenet_v2_x0_5", 32, 96),
    "inception_v4": ("inception_v4", 8, 139),
    "deit_small": ("deit_small_patch16_224", 8, 224),
}


def make_step(backbone: str, batch: int, resolution: int, classes: int):
    """Returns the jitted step and its first state; the state is donated."""
    import jax
    import optax

    from fixed_head_jax.model import get_model

    model = get_model(num_classes=classes, backbone=backbone, head="linear")
    tx = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    images = jax.random.normal(jax.random.key(0), (batch, resolution, resolution, 3))
    labels = jax.random.randint(jax.random.key(1), (batch,), 0, classes)

    def init():
        variables = dict(model.init(jax.random.key(2), images[:1], train=False))
        params = variables.pop("params")
        return params, variables, tx.init(params)

    def step(state):
        params, model_state, opt_state = state

        def loss_fn(params):
            variables = {"params": params, **model_state}
            out, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(out["logits"], labels)
            return losses.mean(), updated

        (loss, updated), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), updated, opt_state), loss

    return jax.jit(step, donate_argnums=0), jax.jit(init)()


def time_ours(step, state, steps: int):
    """Runs 3 steps and times `steps` more; returns the times in ms and the state."""
    times = []
    for index in range(3 + steps):
        start = time.perf_counter()
        state, loss = step(state)
        loss.block_until_ready()
        if index >= 3:
            times.append((time.perf_counter() - start) * 1e3)
    return times, state


def time_peer(name: str, sizes: dict, options: argparse.Namespace) -> dict:
    """Runs the torch step in its own interpreter and returns the JSON line that it prints."""
    command = [options.peer_python, str(options.peer_script), name]
    for key, value in {**sizes, "steps": options.steps, "threads": options.threads}.items():
        command += [f"--{key}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the peer failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def clocks() -> tuple[float, float, float]:
    """Returns seconds used so far: by all processes (nan if unknown), by us, and of wall time."""
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    stat = Path("/proc/stat")
    if not stat.exists():
        return math.nan, ours, time.perf_counter()
    user, nice, system, _, _, irq, softirq, steal = stat.read_text().split()[1:9]
    ticks = sum(map(int, (user, nice, system, irq, softirq, steal)))
    return ticks / os.sysconf("SC_CLK_TCK"), ours, time.perf_counter()


def others_percent(before: tuple, after: tuple) -> float | None:
    """Returns the share (%) of the machine's cores that other processes took in between."""
    everyone, ours, wall = (late - early for early, late in zip(before, after, strict=True))
    share = 100 * (everyone - ours) / (wall * os.cpu_count())
    return None if math.isnan(share) else round(max(share, 0.0), 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer_python", required=True, help="an interpreter that has torch")
    parser.add_argument("--peer_script", type=Path, default=PEER_SCRIPT)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--steps", type=int, default=7, help="timed steps per turn")
    parser.add_argument("--models", default="resnet18", help=f"of {', '.join(MODELS)}, or all")
    parser.add_argument("--batch", type=int, help="default: by model")
    parser.add_argument("--resolution", type=int, help="pixels; default: by model")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def compare(name: str, options: argparse.Namespace) -> dict:
    """Times one model, ours and the peer's in turn."""
    import flax
    import jax

    peer_name, batch, resolution = MODELS[name]
    sizes = {
        "batch": options.batch or batch,
        "resolution": options.resolution or resolution,
        "classes": options.classes,
    }
    step, state = make_step(name, **sizes)
    ours, torch_ms, others, peer = [], [], [], {}
    for _ in range(options.rounds):
        start = clocks()
        times, state = time_ours(step, state, options.steps)
        middle = clocks()
        peer = time_peer(peer_name, sizes, options)
        ours.append(statistics.median(times))
        torch_ms.append(peer["median_ms"])
        others.append([others_percent(start, middle), others_percent(middle, clocks())])
    ours_median, torch_median = statistics.median(ours), statistics.median(torch_ms)
    return {
        "model": name,
        "ours_ms": round(ours_median, 2),
        "torch_ms": round(torch_median, 2),
        "ratio": round(ours_median / torch_median, 3),
        "ours_rounds_ms": [round(each, 2) for each in ours],
        "torch_rounds_ms": torch_ms,
        "others_percent": others,
        "quiet": all(share is not None and share < 10 for turn in others for share in turn),
        **sizes,
        "dtype": "float32",
        "threads": options.threads,
        "versions": {
            "jax": jax.__version__,
            "flax": flax.__version__,
            "peer": peer["framework"],
        },
        "device": {"ours": jax.default_backend(), "peer": peer["device"]},
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    options = parse()
    # XLA sizes its thread pool by the cores it may use; the peer inherits the same cores.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name in MODELS if options.models == "all" else options.models.split(","):
        if name not in MODELS:
            raise SystemExit(f"unknown model {name!r}; known: {', '.join(MODELS)}, all")
        print(json.dumps(compare(name, options)), flush=True)


if __name__ == "__main__":
    main()
