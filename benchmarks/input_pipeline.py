"""Times reading images, beside tf.data in turn, and prints one JSON line per measurement.

    python benchmarks/input_pipeline.py --data_dir=DIR --peer_python PYTHON_WITH_TENSORFLOW

`crops`: random resized crops to 224 pixels of full-size images (imagenet2012, validation), from
prepared files to batches of 64; the peer does the same from files held in memory, so that reading
records is our cost alone. `small`: cifar10 from disk, and `resident`: gathers from the copy of it
that is kept on the device. `memory_mib` is what the process grew by between the first and the last
pass. In some rounds tf.data runs at half its speed, on an idle machine too: the peer's figure is
that of its fastest round, ours the median. `others_percent` and `quiet` are as in `step_time.py`.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

from step_time import clocks, others_percent

PEER_SCRIPT = Path(__file__).resolve().parents[2] / "shared" / "bench" / "tfdata_decode.py"
BATCH = 64


def read_all(batches) -> float:
    """Returns the images read per second."""
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["label"])
    return count / (time.perf_counter() - start)


def resident_set_mib() -> float | None:
    """Returns the memory that this process holds (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def time_peer(options: argparse.Namespace) -> dict:
    """Runs tf.data in its own interpreter and returns the JSON line that it prints."""
    command = [
        options.peer_python, str(options.peer_script), "--data_dir", options.data_dir,
        "--threads", str(options.threads), "--passes", str(options.passes),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the peer failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def crops(method: str, options: argparse.Namespace) -> dict:
    """Times random resized crops, ours and the peer's in turn."""
    from fixed_head_jax.data import RandomCrop, open_dataset

    dataset = open_dataset(
        "imagenet2012", "validation", options.data_dir, image_size=224,
        crops={"image": RandomCrop(224, method=method)}, num_threads=options.threads,
    )  # fmt: skip
    steps = options.passes * len(dataset.source) // BATCH
    ours, peers, others, memory, peer = [], [], [], [], {}
    for turn in range(options.rounds):
        start = clocks()
        ours.append(read_all(dataset.train_batches(0, BATCH, turn * steps, steps)))
        middle = clocks()
        memory.append(resident_set_mib())
        turns = [others_percent(start, middle)]
        if options.peer_python:
            peer = time_peer(options)
            peers.append(peer["images_per_s"])
            turns.append(others_percent(middle, clocks()))
        others.append(turns)
    row = {"measured": f"crops {method}", **summary(ours, others)}
    if peers:
        row |= {
            "peer_images_per_s": max(peers),
            "ratio": round(statistics.median(ours) / max(peers), 3),
            "peer_rounds": peers,
            "peer": peer["pipeline"],
        }
    if memory[0] is not None:
        row["memory_mib"] = round(memory[-1] - memory[0], 1)
    return row


def small(options: argparse.Namespace) -> dict:
    """Times reading CIFAR-10 from disk."""
    from fixed_head_jax.data import open_dataset

    dataset = open_dataset(
        "cifar10", "train", options.data_dir, placement="disk", num_threads=options.threads
    )
    ours, others = [], []
    for turn in range(options.rounds):
        start = clocks()
        ours.append(read_all(dataset.train_batches(0, 128, 300 * turn, 300)))
        others.append([others_percent(start, clocks())])
    return {"measured": "small images from disk", **summary(ours, others)}


def resident(options: argparse.Namespace) -> dict:
    """Times drawing the indices on the host and gathering the images on the device."""
    import jax
    import numpy as np

    from fixed_head_jax.data import open_dataset

    dataset = open_dataset("cifar10", "train", options.data_dir, num_threads=options.threads)
    arrays, batch_size, steps = jax.device_put(dataset.arrays()), 512, 500
    fetch = jax.jit(lambda arrays, batch: dataset.fetch(arrays, batch)["image"])
    fetch(arrays, next(dataset.train_batches(0, batch_size, 0, 1))).block_until_ready()
    ours, others = [], []
    for turn in range(options.rounds):
        start = clocks()
        begin = time.perf_counter()
        for batch in dataset.train_batches(0, batch_size, turn * steps, steps):
            images = fetch(arrays, batch)
        images.block_until_ready()
        ours.append(batch_size * steps / (time.perf_counter() - begin))
        others.append([others_percent(start, clocks())])
    np.testing.assert_array_equal(images[0], arrays["image"][int(batch["index"][0])])
    return {"measured": "resident gathers", **summary(ours, others)}


def summary(rates: list[float], others: list[list]) -> dict:
    """Returns what is said of every measurement."""
    return {
        "images_per_s": round(statistics.median(rates), 1),
        "rounds": [round(rate, 1) for rate in rates],
        "others_percent": others,
        "quiet": all(share is not None and share < 10 for turn in others for share in turn),
    }


MEASUREMENTS = {
    "crops": lambda options: crops("fast", options),
    "crops_bilinear": lambda options: crops("bilinear", options),
    "small": small,
    "resident": resident,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="with imagenet2012 and cifar10")
    parser.add_argument("--peer_python", help="an interpreter that has TensorFlow; without: ours")
    parser.add_argument("--peer_script", type=Path, default=PEER_SCRIPT)
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=6, help="over the images, per round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    return parser.parse_args()


def main() -> None:
    options = parse()
    for name in options.only.split(","):
        if name not in MEASUREMENTS:
            raise SystemExit(f"unknown measurement {name!r}; known: {', '.join(MEASUREMENTS)}")
        row = MEASUREMENTS[name](options)
        packages = ("jax", "simplejpeg", "opencv-python-headless", "pillow", "array_record")
        versions = {package: metadata.version(package) for package in packages}
        date = datetime.date.today().isoformat()
        row |= {"threads": options.threads, "versions": versions, "date": date}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
