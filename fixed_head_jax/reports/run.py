"""The report of one run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fixed_head_jax import accounting, inference
from fixed_head_jax.configs.common import from_record, get_config
from fixed_head_jax.data.records import BadRecordError
from fixed_head_jax.data.sources import Source
from fixed_head_jax.display.numbers import format_number
from fixed_head_jax.display.pictures import encode_png
from fixed_head_jax.inference import Predictor
from fixed_head_jax.inference.map_sheet import map_sheet
from fixed_head_jax.inference.maps import check_maps
from fixed_head_jax.reports import drawings
from fixed_head_jax.reports import page as html
from fixed_head_jax.reports.calibration import calibrate
from fixed_head_jax.reports.outputs import Outputs, measure
from fixed_head_jax.settings.schema import flatten
from fixed_head_jax.storage.workdir import SESSIONS, read_config
from fixed_head_jax.tasks import NEEDS
from fixed_head_jax.training.experiment.images import open_splits

_MATRIX = 40  # classes whose confusions are drawn; of more, the most frequent are listed
_MISTAKES, _CONFUSIONS = 12, 20
_MAPPED = 3  # images whose class maps are shown
_SMALL = 64  # pixels; the squares of smaller photographs are enlarged whole


def run_report(workdir: Path) -> str:
    """Returns the page of a run.

    What is measured on images, at the last checkpoint, is left out where they cannot be read.

    Raises:
        ValueError: if there is no run, or its checkpoint cannot be read.
    """
    config = from_record(read_config(workdir))
    lines = _read_lines(workdir / "metrics.jsonl")
    result = _read_json(workdir / "result.json")
    predictor = inference.load(workdir, "last")
    subtitle = (
        f"{config.model.backbone}, {config.model.pool} pooling, {config.model.head} head on "
        f"{config.data.name}; workdir {workdir}"
    )
    parts = [
        html.section("Result", _result(result)),
        html.section("Training", html.side_by_side(*_curves(lines))),
        *_measured(config, predictor),
        html.section("Classes", *_pictures(workdir / "classes")),
        html.section("Size", _sizes(predictor)),
        html.section("Config", _differences(config)),
        html.section("How it was made", *_sessions(workdir / SESSIONS)),
    ]
    return html.page(workdir.resolve().name, subtitle, parts)


def _result(result):
    if not result:
        return html.paragraph("The run has not finished: there is no result.json.")
    metrics = {key: value for key, value in result.items() if "/" in key and value is not None}
    rows = {
        "last step": f"{result['step']:,}",
        "best step": f"{result['best_step']:,}" if result.get("best_step") is not None else "-",
        **{name.removeprefix("eval/"): format_number(value) for name, value in metrics.items()},
        "trained parameters": f"{result['params']:,}",
        "stored fixed": f"{result['fixed']:,}",
    }
    return html.definitions(rows)


def _curves(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Yields drawings of every metric that training and evaluation share, and of the rates."""
    groups = {
        "loss": ("train/loss", "eval/loss", "eval_ema/loss"),
        "accuracy (%)": ("train/accuracy", "eval/accuracy", "eval_ema/accuracy"),
        "clusters (%)": ("eval/nmi", "eval/ami", "eval/ari", "eval/acc"),
        "classes in use": ("train/used_classes",),
        "learning rate": tuple(sorted({key for line in lines for key in line if "/lr" in key})),
        "norm of the gradient": ("train/grad_norm",),
    }
    for title, names in groups.items():
        drawing = drawings.curves(lines, names, title)
        if drawing:
            yield html.figure(drawing, f"{title} over epochs")


def _measured(config: Any, predictor: Predictor) -> Iterator[str]:
    """Yields the sections that need the images of the evaluation split and their labels."""
    if not NEEDS[config.task.name].labels:
        return
    try:
        source = open_splits(config, takes_views=False).eval.source
        outputs = measure(predictor, source)
    except (ValueError, OSError, BadRecordError) as error:
        yield html.section("Predictions", html.paragraph(f"Not measured: {error}"))
        return
    said = f"On {len(outputs.labels):,} of the {len(source):,} images of {source.full_name}."
    calibration = calibrate(outputs.probabilities, outputs.labels)
    is_right = outputs.probabilities.argmax(1) == outputs.labels
    accuracy = 100 * is_right.mean()
    yield html.section("Confusions", html.paragraph(said), _confusions(outputs, predictor))
    yield html.section(
        "Calibration",
        html.paragraph(
            f"Accuracy {accuracy:.2f} %, mean confidence "
            f"{100 * outputs.probabilities.max(1).mean():.2f} %, expected calibration error "
            f"{100 * calibration.error:.2f} % (15 bins; Guo et al. 2017)."
        ),
        html.figure(
            drawings.reliability(calibration),
            "Bars: accuracy of the predictions of that confidence; dashed: calibrated; dots: at "
            "their mean confidence. Below: how many there are.",
        ),
    )
    yield html.section("Features", html.side_by_side(*_features(outputs, is_right)))
    yield html.section("Most confident mistakes", _mistakes(outputs, predictor, source))
    yield html.section("Class maps", _maps(outputs, predictor, source))


def _confusions(outputs: Outputs, predictor: Predictor) -> str:
    names, predictions = predictor.class_names, outputs.probabilities.argmax(1)
    if len(names) <= _MATRIX:
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (outputs.labels, predictions), 1)
        caption = "Images of each label, by prediction; the colour is the share of the label's."
        return html.figure(drawings.confusion(counts, names), caption)
    wrong = predictions != outputs.labels
    pairs, counts = np.unique(
        np.stack([outputs.labels[wrong], predictions[wrong]], axis=1), axis=0, return_counts=True
    )
    most = np.argsort(-counts, kind="stable")[:_CONFUSIONS]
    rows = ([names[pairs[i, 0]], names[pairs[i, 1]], f"{counts[i]:,}"] for i in most)
    return html.table(("label", "taken for", "images"), rows)


def _features(outputs: Outputs, is_right: np.ndarray) -> Iterator[str]:
    drawing = drawings.histogram(outputs.norms, is_right, "norm of the features")
    yield html.figure(drawing, "Norms of features, of right and of wrong predictions.")
    if outputs.cosines is not None:
        angles = np.degrees(np.arccos(np.clip(outputs.cosines, -1, 1)))
        drawing = drawings.histogram(angles, is_right, "angle to the class vector (degrees)")
        yield html.figure(drawing, "Angles between features and the vectors of their labels.")


def _mistakes(outputs: Outputs, predictor: Predictor, source: Source) -> str:
    predictions, confidences = outputs.probabilities.argmax(1), outputs.probabilities.max(1)
    wrong = np.flatnonzero(predictions != outputs.labels)
    if not len(wrong):
        return html.paragraph("There is none.")
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][:_MISTAKES]
    images, _ = source.read(outputs.indices[worst])
    return html.photographs(
        html.picture(
            encode_png(image),
            f"said {predictor.class_names[predictions[i]]} ({100 * confidences[i]:.0f} %), is "
            f"{predictor.class_names[outputs.labels[i]]} (image {outputs.indices[i]})",
            is_small=max(image.shape) < _SMALL,
        )
        for i, image in zip(worst, images, strict=True)
    )


def _maps(outputs: Outputs, predictor: Predictor, source: Source) -> str:
    """Returns the maps of a few images, or nothing where the model has none."""
    try:
        check_maps(predictor.model)
    except ValueError:
        return ""
    images, _ = source.read(outputs.indices[:_MAPPED])
    sheet = map_sheet(predictor, list(images), top_k=2)
    caption = "Where each class is seen, on one scale for each image: most probable classes, least."
    return html.picture(encode_png(sheet), caption, is_wide=True)


def _pictures(folder: Path) -> Iterator[str]:
    """Yields the grids of the classes found, where the run has drawn them."""
    path = folder / "classes.png"
    if path.exists():
        yield html.picture(path.read_bytes(), "Images of each class found.", is_wide=True)


def _sizes(predictor: Predictor) -> str:
    height, _, channels = predictor.preprocessing.image_shape
    counted = accounting.count(predictor.model, height, channels)
    rows = {"whole": counted, **counted["parts"]}
    head = ("part", "trained parameters", "stored fixed", "multiply-adds", "checkpoint bytes")
    keys = ("params", "fixed", "multiply_adds", "checkpoint_bytes")
    cells = [
        (name.replace("_", " "), *(f"{part[key]:,}" for key in keys)) for name, part in rows.items()
    ]
    return html.table(head, cells)


def _differences(config: Any) -> str:
    """Returns the keys that are not at their defaults."""
    defaults, values = flatten(get_config()), flatten(config)
    rows = [
        (key, repr(value), repr(defaults[key]))
        for key, value in values.items()
        if value != defaults[key]
    ]
    return html.table(("key", "value", "default"), rows)


def _sessions(path: Path) -> Iterator[str]:
    """Yields the commands of a run, and what they ran on."""
    for session in _read_lines(path):
        versions = ", ".join(f"{name} {version}" for name, version in session["versions"].items())
        yield html.code(session["command"])
        yield html.paragraph(
            f"{session['time']}, from step {session['step']:,}, on {session['devices']}; {versions}"
        )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _read_json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
