"""Times pieces of the package beside the library that could take their place, in turn.

Prints one JSON line per piece; `docs/libraries.md` cites them. Seconds are medians over rounds,
compilation left out; `others_percent` is the share of the machine that other processes took.

* `probe`: one fit of `linear_probe.fit`; scikit-learn's LogisticRegression, converged as far and
  as it stands. `objective` is what both minimise, `accuracy` (%) that on other examples.
* `knn`: `knn_accuracy` for four k; scikit-learn's KNeighborsClassifier with the same votes, for the
  largest k alone; faiss's exact search alone, where `pip install faiss-cpu` has been run.
* `larc`: the norm of an update by `optax.scale_by_trust_ratio` over that of ours, by weight decay.
* `jpeg`: the head and the upper half of a file of 500 x 375 pixels; simplejpeg's head, and whole.
* `sheet`: a contact sheet of 100 such images with captions; the same by matplotlib's subplots.

    python benchmarks/libraries.py
"""

import argparse
import datetime
import io
import json
import statistics
import time
from importlib import metadata

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import simplejpeg
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from step_time import clocks, others_percent

from fixed_head_jax.data import decoding
from fixed_head_jax.display import pictures
from fixed_head_jax.evaluators import knn, linear_probe
from fixed_head_jax.optim.transforms import scale_by_larc

LIBRARIES = ("jax", "optax", "scikit-learn", "faiss-cpu", "simplejpeg", "matplotlib", "numpy")
CLASSES, DIM, KS = 100, 512, (10, 20, 100, 200)


def make_features(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features in overlapping clusters, and their classes."""
    centers = np.random.default_rng(0).standard_normal((CLASSES, DIM), np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, size)
    return centers[labels] + 4 * rng.standard_normal((size, DIM), np.float32), labels


def in_turn(runs: dict, rounds: int, repeats: int = 1) -> dict:
    """Returns median seconds of each run, after one that is not counted, and the others' share."""
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run()
    before = clocks()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            seconds[name].append((time.perf_counter() - start) / repeats)
    medians = {name: float(f"{statistics.median(each):.3g}") for name, each in seconds.items()}
    return {"seconds": medians, "others_percent": others_percent(before, clocks())}


def compare_probe(rounds: int, strength: float = 0.01) -> dict:
    features, labels = make_features(5000, 1)
    others, truth = make_features(2000, 2)
    mean, std = features.mean(0), features.std(0)
    features, others = (features - mean) / std, (others - mean) / std
    train = linear_probe.to_blocks("train", features, labels, CLASSES, 16384)
    start = linear_probe.Probe(jnp.zeros((DIM + 1, CLASSES)), jnp.zeros(DIM), jnp.ones(DIM))

    def ours():
        probe = linear_probe.fit(train, train.labels >= 0, start, strength, 200)
        return np.asarray(probe.weights, np.float64)

    def peer(dtype, tol):
        model = LogisticRegression(C=1 / (len(labels) * strength), tol=tol, max_iter=1000)
        model.fit(features.astype(dtype), labels)
        return np.vstack([model.coef_.T, model.intercept_])

    runs = {
        "ours": ours,
        "sklearn_default": lambda: peer(np.float32, 1e-4),
        "sklearn_converged": lambda: peer(np.float64, 1e-6),
    }
    found = {"objective": {}, "accuracy": {}}
    for name, run in runs.items():
        weights = run()
        log_odds = jax.nn.log_softmax(features @ weights[:-1] + weights[-1])
        losses = -np.asarray(log_odds)[np.arange(len(labels)), labels]
        penalty = strength / 2 * np.sum(weights[:-1] ** 2)
        found["objective"][name] = round(float(losses.mean() + penalty), 6)
        hits = (others @ weights[:-1] + weights[-1]).argmax(1) == truth
        found["accuracy"][name] = round(100 * hits.mean(), 2)
    return in_turn(runs, rounds) | found


def compare_knn(rounds: int) -> dict:
    bank, bank_labels = make_features(50_000, 3)
    queries, labels = make_features(2000, 4)
    unit, unit_queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))

    def peer():
        model = KNeighborsClassifier(
            KS[-1], weights=lambda far: np.exp((1 - far) / 0.1), algorithm="brute", metric="cosine"
        )
        return model.fit(bank, bank_labels).predict(queries)

    def search():
        index = faiss.IndexFlatIP(DIM)
        index.add(unit)
        return index.search(unit_queries, KS[-1])

    runs = {
        "ours": lambda: knn.knn_accuracy(bank, bank_labels, queries, labels, CLASSES, KS),
        "sklearn": peer,
    }
    try:
        import faiss

        runs["faiss_search"] = search
    except ImportError:
        pass
    accuracy = {"ours": runs["ours"]()[f"knn_{KS[-1]}"], "sklearn": 100 * np.mean(peer() == labels)}
    return in_turn(runs, rounds) | {"accuracy": accuracy}


def compare_larc(_) -> dict:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(0.05 * rng.standard_normal((DIM, DIM)), jnp.float32)}
    gradient = {"w": jnp.asarray(0.001 * rng.standard_normal((DIM, DIM)), jnp.float32)}
    ratios = {}
    for decay in (0.0, 1e-6, 1e-4, 1e-2):
        lars = optax.chain(
            optax.add_decayed_weights(decay),
            optax.scale_by_trust_ratio(trust_coefficient=0.001, eps=1e-8),
        )
        norms = [
            optax.tree.norm(tx.update(gradient, tx.init(params), params)[0])
            for tx in (lars, scale_by_larc(decay))
        ]
        ratios[decay] = round(float(norms[0] / norms[1]), 6)
    return {"norm_ratio": ratios}


def compare_jpeg(rounds: int) -> dict:
    image = np.ascontiguousarray(cv2.resize(load_sample_image("china.jpg"), (500, 375)))
    encoded = simplejpeg.encode_jpeg(image, 90)
    head = decoding.read_head(encoded)
    runs = {
        "our_head": lambda: decoding.read_head(encoded),
        "simplejpeg_head": lambda: simplejpeg.decode_jpeg_header(encoded),
        "our_upper_half": lambda: decoding.decode_top(encoded, 3, head, 187),
        "simplejpeg_whole": lambda: simplejpeg.decode_jpeg(encoded),
    }
    return in_turn(runs, rounds, repeats=100)


def compare_sheet(rounds: int) -> dict:
    images = [cv2.resize(load_sample_image("china.jpg"), (500, 375))] * 100

    def ours():
        sheet = pictures.contact_sheet(images, 10, 96, ["a caption"] * len(images))
        return pictures.encode_png(sheet)

    def peer():
        figure = Figure(figsize=(10, 11))
        for axes, image in zip(figure.subplots(10, 10).ravel(), images, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
            axes.set_title("a caption", fontsize=6)
        figure.savefig(io.BytesIO(), format="png", dpi=100)

    return in_turn({"ours": ours, "matplotlib": peer}, rounds)


COMPARISONS = {
    "probe": compare_probe,
    "knn": compare_knn,
    "larc": compare_larc,
    "jpeg": compare_jpeg,
    "sheet": compare_sheet,
}


def version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=[*COMPARISONS])
    options = parser.parse_args()
    for name in options.only:
        line = {"compared": name, **COMPARISONS[name](options.rounds)}
        line["versions"] = {library: version(library) for library in LIBRARIES}
        line["date"] = datetime.date.today().isoformat()
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
