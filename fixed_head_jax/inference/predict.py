"""Classifies any number of photographs from disk, in little memory."""

import contextlib
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from fixed_head_jax.display.numbers import format_number, format_seconds
from fixed_head_jax.display.pictures import write_png
from fixed_head_jax.inference.files import find_images
from fixed_head_jax.inference.map_sheet import map_picture
from fixed_head_jax.inference.maps import check_maps
from fixed_head_jax.inference.predictor import Predictions, Predictor, Preprocessing
from fixed_head_jax.inference.rows import check_path, open_array, open_rows
from fixed_head_jax.inference.score import Score

_BESIDE = ("problems.txt", "features.npy", "confusion.csv", "maps")
_MAPS = 3  # classes that are drawn of each photograph, and the least probable one
_AHEAD = 3  # batches that are read before they are needed


class Photograph(NamedTuple):
    """An image file: its pixels as the model takes them, or why it cannot be read."""

    path: Path
    pixels: UInt8[np.ndarray, "h w c"] | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The path as text; bytes that are none are escaped."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


def predict_files(
    predictor: Predictor,
    images: Sequence[str],
    out: str | Path | None = None,
    *,
    top_k: int = 5,
    features: bool = False,
    maps: bool = False,
) -> None:
    """Classifies files, writes a row for each and prints what came of it.

    A row is "file", then "class_1", "probability_1" and so on, most probable first. Files that
    cannot be read are left out, counted and listed. Where folders are named as classes are, the
    accuracy is measured.

    Args:
        predictor: of `load`.
        images: see `find_images`.
        out: table to write, .csv, .json, .jsonl or .parquet; None prints the rows instead. Beside
            it come, with its name, "_problems.txt", "_features.npy" and "_confusion.csv".
        top_k: classes in a row, >= 1.
        features: whether to write the features, a row for each of the table's.
        maps: whether to draw the class maps of every photograph, in a folder "_maps".

    Raises:
        ValueError: on a wrong argument, or where there is no image.
    """
    target = None if out is None else Path(out).expanduser()
    _check(target, top_k, features, maps)
    if maps:
        check_maps(predictor.model)
    count = sum(1 for _ in find_images(images))  # for the bar; they may be too many to keep
    if not count:
        raise ValueError(f"--images={', '.join(images)} holds no image")
    score, started = Score(predictor.class_names), time.monotonic()
    num_bad = drawn = 0
    with _open_outputs(target, features) as outputs, _bar(count) as bar:
        for good, bad in read_batches(predictor, find_images(images)):
            num_bad += len(bad)
            for photograph in bad:
                outputs.problem(f"{photograph.name}: {photograph.problem}\n")
            if good:
                pixels = [one.pixels for one in good if one.pixels is not None]
                predictions = predictor.outputs(np.stack(pixels))
                outputs.append(predictions.features)
                best = predictor.top_k(predictions, top_k)
                for photograph, classes in zip(good, best, strict=True):
                    outputs.write(_row(photograph.name, classes))
                    score.add(photograph.path, classes[0][0])
                if maps and target:
                    _draw_maps(predictor, good, predictions, beside(target, "maps"), drawn)
                drawn += len(good)
            bar.update(len(good) + len(bad))
    _report(target, count, num_bad, time.monotonic() - started, score)


def read_batches(
    predictor: Predictor, paths: Iterable[Path]
) -> Iterator[tuple[list[Photograph], list[Photograph]]]:
    """Reads files in threads, a few batches ahead.

    Args:
        predictor: that is to look at them.
        paths: of the files; drawn from as needed.

    Yields:
        Of each `batch_size` files those that can be read, and those that cannot.
    """
    read, paths = partial(_read, predictor.preprocessing), iter(paths)
    with futures.ThreadPoolExecutor(thread_name_prefix="reader") as pool:
        waiting: deque = deque()
        while True:
            batch = list(itertools.islice(paths, predictor.batch_size))
            if batch:
                waiting.append([pool.submit(read, path) for path in batch])
            if not batch or len(waiting) > _AHEAD:
                if not waiting:
                    return
                photographs = [future.result() for future in waiting.popleft()]
                good = [photograph for photograph in photographs if not photograph.problem]
                yield good, [photograph for photograph in photographs if photograph.problem]


def beside(target: Path, ending: str) -> Path:
    """Returns the path of what is written beside a table."""
    return target.with_name(f"{target.stem}_{ending}")


def _read(preprocessing: Preprocessing, path: Path) -> Photograph:
    try:
        return Photograph(path, preprocessing.read(path.read_bytes()))
    except (ValueError, OSError) as error:
        return Photograph(path, problem=" ".join(str(error).split()) or type(error).__name__)


class _Outputs(NamedTuple):
    """Where rows, features and problems go."""

    write: Callable[[Mapping[str, Any]], None]
    append: Callable[[np.ndarray], None]
    problem: Callable[[str], object]


@contextlib.contextmanager
def _open_outputs(target, features):
    """Opens the files that are asked for; without a target, rows and problems are printed."""
    if target is None:
        with _nowhere() as append:
            yield _Outputs(_print_row, append, lambda line: tqdm.write(line, sys.stderr, ""))
        return
    with contextlib.ExitStack() as files:
        write = files.enter_context(open_rows(target))
        array = open_array(beside(target, "features.npy")) if features else _nowhere()
        append = files.enter_context(array)
        problems = files.enter_context(beside(target, "problems.txt").open("w", encoding="utf-8"))
        yield _Outputs(write, append, problems.write)


def _nowhere():
    """Opens what takes features that nobody asked for."""
    return contextlib.nullcontext(lambda rows: None)


def _draw_maps(predictor, photographs, predictions, folder, first):
    """Draws the class maps of photographs, numbered as their rows are, from `first` on."""
    folder.mkdir(exist_ok=True)
    for i, photograph in enumerate(photographs):
        one = Predictions(*(part[i : i + 1] for part in predictions))
        name = photograph.path.name
        picture = map_picture(predictor, name, photograph.pixels, one, _MAPS)
        write_png(folder / f"{first + i:06}_{photograph.path.stem}.png", picture)


def _check(target, top_k, features, maps):
    if top_k < 1:
        raise ValueError(f"--top_k={top_k} must be at least 1")
    for name, asked in (("features", features), ("maps", maps)):
        if asked and target is None:
            raise ValueError(f"--{name} needs --out, beside which they are written")
    if target:
        check_path(target)


def _bar(count):
    return tqdm(total=count, unit="image", dynamic_ncols=True, disable=None)


def _row(name, classes):
    row = {"file": name}
    for rank, (class_name, probability) in enumerate(classes, start=1):
        row |= {f"class_{rank}": class_name, f"probability_{rank}": round(probability, 6)}
    return row


def _print_row(row):
    name, *cells = row.values()
    pairs = zip(cells[::2], cells[1::2], strict=True)
    shown = "  ".join(f"{class_name} {100 * share:.1f} %" for class_name, share in pairs)
    tqdm.write(f"{name}  {shown}")


def _report(target, count, num_bad, seconds, score):
    """Prints what came of it, and writes the confusion matrix."""
    rate = format_number(count / seconds)
    print(f"{count:,} files in {format_seconds(seconds)}, {rate} images/s")
    if num_bad:
        print(f"{num_bad:,} of them could not be read")
    if score:
        print(score.describe())
    if target is None:
        return
    if not num_bad:
        beside(target, "problems.txt").unlink()
    if score:
        score.write(beside(target, "confusion.csv"))
    files = [beside(target, ending) for ending in _BESIDE]
    print(f"written: {', '.join(str(file) for file in (target, *files) if file.exists())}")
