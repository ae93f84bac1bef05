"""What tests of the search share: a space, searches of it, and runs that only answer."""

import json
import math

from fixed_head_jax.studies.search import summary as reports

SPACE = {
    "lr": {"low": 0.001, "high": 1.0, "log": True},
    "layers": {"choices": (1, 2, 3, 4)},
    "decay": {"low": 0.0, "high": 1.0},
}
DEFAULT = {"lr": 0.5, "layers": 1, "decay": 0.5}
NEAR = {"lr": 0.01, "layers": 2, "decay": 0.5}
SPLITS = {"data.eval_split": "validation"}
PROBES = {
    "scratch": {"init_from": "none", "optim.lr": 0.1},
    "frozen": {"model.frozen_backbone": True, "optim.lr": 0.1},
}


def shorten_reports(set_attribute=setattr):
    """Leaves out of the reports what takes half a second."""
    set_attribute(reports, "search_chart", lambda *_: None)
    set_attribute(reports, "importances", lambda study: {})


def overrides(dials):
    pair = (dials["decay"], "it's")
    return {
        "optim.lr": dials["lr"], "transfer.new_layers": dials["layers"], "optim.pair": pair,
        "transfer.lr_head": None,
    }  # fmt: skip


def starts(difference):
    return [DEFAULT, NEAR] if difference < 0 else [DEFAULT]


def make_search(**changes):
    search = {
        "space": SPACE, "overrides": overrides, "splits": SPLITS, "probes": PROBES,
        "starts": starts,
    }  # fmt: skip
    return search | changes


def accuracy_of(values):
    """The best is 90, at lr 0.0316 and 3 layers; of the probes, frozen features do better."""
    if "init_from" in values:
        return 60.0
    if "model.frozen_backbone" in values:
        return 68.5
    off = math.log10(values["optim.lr"]) + 1.5
    return 90 - 10 * off**2 - (values["transfer.new_layers"] - 3) ** 2 - values["optim.pair"][0]


class Runs:
    """Stands in for training; each visit to a folder leaves a line with its values there."""

    def __init__(self, raises=None):
        self.calls = []
        self.raises = raises or {}

    def __call__(self, values, folder):
        name = folder.relative_to(folder.parents[1]).as_posix()
        self.calls.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "visits").open("a") as file:
            file.write(json.dumps(values) + "\n")
        if name in self.raises:
            raise self.raises[name]
        return {"accuracy": accuracy_of(values)}


def visits(folder):
    return [json.loads(line) for line in (folder / "visits").read_text().splitlines()]


def trials_of(summary):
    """Returns what the sampler and the runs decide of every trial, by number."""
    trials = sorted(summary["trials"], key=lambda trial: trial["number"])
    return [(trial["dials"], trial["accuracy"], trial["state"]) for trial in trials]
