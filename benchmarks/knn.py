"""Times k-nearest-neighbour accuracy beside scikit-learn's brute force, in turn.

Prints one JSON line, medians over rounds in which each has its turn on the same features, float32:

* `ours`: `knn_accuracy`, votes and accuracies for k of 10, 20, 100 and 200.
* `cosine`: NearestNeighbors(200, algorithm="brute", metric="cosine"), the search alone.
* `euclidean`: the same by the metric that scikit-learn has its fastest code for, on features that
  were scaled to unit norm beforehand, where it has the same neighbours.

All in seconds that pass; compilation is left out, and given as `first_s`. The share of queries
whose 20 nearest by `cosine` and by `euclidean` vote for the right class has to be our accuracy:
`accuracy` has all three. Other processes on the same cores distort the numbers: `others_percent` is
the share of the machine that they took in each round (Linux), `quiet` says it stayed under 10 %.

    python benchmarks/knn.py --out results/knn.jsonl
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
import sklearn
from sklearn.neighbors import NearestNeighbors
from step_time import clocks, others_percent

from fixed_head_jax.evaluators.knn import knn_accuracy

KS = (10, 20, 100, 200)
CHECKED_K, TEMPERATURE = 20, 0.1


def make_features(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Returns overlapping clusters: features and classes of the bank and the queries."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((options.classes, options.dim), np.float32)
    data = {}
    for name, size in (("bank", options.bank), ("queries", options.queries)):
        labels = rng.integers(0, options.classes, size)
        noise = options.noise * rng.standard_normal((size, options.dim), np.float32)
        data |= {name: centers[labels] + noise, f"{name}_labels": labels}
    return data


def accuracy(similarities, neighbors, data: dict, num_classes: int) -> float:
    """Returns the accuracy (percent) by the votes of `CHECKED_K` neighbours, nearest first."""
    weights = np.exp(similarities[:, :CHECKED_K] / TEMPERATURE)
    votes = np.zeros((len(neighbors), num_classes))
    rows = np.arange(len(neighbors))[:, None]
    np.add.at(votes, (rows, data["bank_labels"][neighbors[:, :CHECKED_K]]), weights)
    return 100 * float(np.mean(votes.argmax(1) == data["queries_labels"]))


def make_runs(data: dict, num_classes: int) -> dict:
    """Returns functions without arguments by name; each returns the accuracy it leads to."""
    unit = {
        name: data[name] / np.linalg.norm(data[name], axis=1, keepdims=True)
        for name in ("bank", "queries")
    }

    def search(metric: str, bank: np.ndarray, queries: np.ndarray):
        model = NearestNeighbors(n_neighbors=max(KS), algorithm="brute", metric=metric)
        return model.fit(bank).kneighbors(queries)

    def by_cosine():
        distances, neighbors = search("cosine", data["bank"], data["queries"])
        return 1 - distances, neighbors

    def by_euclidean():
        distances, neighbors = search("euclidean", unit["bank"], unit["queries"])
        return 1 - distances**2 / 2, neighbors

    def ours():
        arrays = (data[name] for name in ("bank", "bank_labels", "queries", "queries_labels"))
        return knn_accuracy(*arrays, num_classes, KS, TEMPERATURE)

    return {"ours": ours, "cosine": by_cosine, "euclidean": by_euclidean}


def measure(options: argparse.Namespace) -> dict:
    """Returns seconds of each by round, the first of ours, accuracies, and the others' share."""
    data = make_features(options)
    runs = make_runs(data, options.classes)
    start = time.perf_counter()
    result = runs["ours"]()
    first = time.perf_counter() - start
    accuracies = {"ours": result[f"knn_{CHECKED_K}"]}
    seconds, others = {name: [] for name in runs}, []
    for _ in range(options.rounds):
        before = clocks()
        for name, run in runs.items():
            start = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - start)
            if name != "ours":
                accuracies[name] = accuracy(*result, data, options.classes)
        others.append(others_percent(before, clocks()))
    return {"seconds": seconds, "first": first, "accuracies": accuracies, "others": others}


def report(options: argparse.Namespace, measured: dict) -> dict:
    """Returns the line."""
    median = {name: statistics.median(turns) for name, turns in measured["seconds"].items()}
    return {
        "compared": "knn",
        **{f"{name}_s": round(passed, 3) for name, passed in median.items()},
        "first_s": round(measured["first"], 3),
        "ratio_cosine": round(median["ours"] / median["cosine"], 3),
        "ratio_euclidean": round(median["ours"] / median["euclidean"], 3),
        "rounds_s": {
            name: [round(turn, 3) for turn in turns] for name, turns in measured["seconds"].items()
        },
        "accuracy": {name: round(value, 3) for name, value in measured["accuracies"].items()},
        **{name: getattr(options, name) for name in ("bank", "queries", "dim", "classes")},
        "ks": KS,
        "others_percent": measured["others"],
        "quiet": all(share is not None and share < 10 for share in measured["others"]),
        "versions": {"jax": jax.__version__, "scikit-learn": sklearn.__version__},
        "device": jax.devices()[0].device_kind,
        "command": " ".join(["python benchmarks/knn.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, default=50_000, help="images with known classes")
    parser.add_argument("--queries", type=int, default=2_000, help="images to classify")
    parser.add_argument("--dim", type=int, default=512, help="of the features")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--noise", type=float, default=4.0, help="against 1 between the classes")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--out", type=Path, help="file that the line is appended to")
    return parser.parse_args()


def main() -> None:
    options = parse()
    line = json.dumps(report(options, measure(options))) + "\n"
    sys.stdout.write(line)
    if options.out:
        with options.out.open("a") as file:
            file.write(line)


if __name__ == "__main__":
    main()
