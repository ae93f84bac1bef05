"""Prepares a dataset of ours: checks every image, then writes it whole or not at all."""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tqdm
from tensorflow_datasets.core import constants

from fixed_head_jax.data.builders.definition import Definition, Example
from fixed_head_jax.data.preparing import inspect_image, write
from fixed_head_jax.data.preparing.inspect_image import Findings
from fixed_head_jax.data.preparing.scratch import move_into_place, scratch_folder
from fixed_head_jax.settings.lookup import check_choice

UNUSUAL = ("keep", "refuse", "convert")
_AHEAD = 8  # images per thread that are read before they are needed


class Report(NamedTuple):
    """What `prepare` wrote.

    Attributes:
        path: of the dataset.
        counts: split -> number of images.
        traits: trait (`inspect_image.Findings`) -> number of images that have it.
        converted: number of images that were re-encoded.
        left_out: a line for each image that was left out.
    """

    path: Path
    counts: dict[str, int]
    traits: dict[str, int]
    converted: int
    left_out: tuple[str, ...]


class BadImagesError(ValueError):
    """Images that cannot be used; `problems` has a line for each."""

    def __init__(self, message: str, problems: list[str]):
        super().__init__(message)
        self.problems = problems


def dataset_path(name: str, data_dir: str | os.PathLike = "") -> Path:
    """Returns where a dataset of ours is kept; `data_dir` is empty for TFDS's default.

    Raises:
        ValueError: if the directory's name is not UTF-8, which array_record needs.
    """
    data_dir = str(data_dir or constants.DATA_DIR)
    try:
        data_dir.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"data_dir {data_dir!r} is not UTF-8; choose another") from error
    return Path(data_dir, name, write.VERSION)


def prepare(
    name: str,
    definition: Definition,
    data_dir: str | os.PathLike = "",
    skip_bad: bool = False,
    unusual: str = "keep",
    num_threads: int = 0,
    progress: bool = False,
) -> Report:
    """Checks every image of a dataset and writes it as array_record.

    It is written under a temporary name and renamed: nobody ever sees a half-written dataset, and
    of several processes that start at once one rename wins. Encoded bytes are stored as they are.

    Args:
        name: of the dataset.
        definition: what it consists of.
        data_dir: directory of prepared datasets; empty for TFDS's default.
        skip_bad: leave out images that cannot be used, instead of stopping.
        unusual: what becomes of images with traits, such as grey ones among colours: "keep" them
            as they are, "refuse" them as bad, or "convert" them to plain 8-bit PNG.
        num_threads: that check images, >= 0; 0 for one per CPU.
        progress: whether to show a bar.

    Raises:
        BadImagesError: if images cannot be used; all of them are listed, nothing is written.
        ValueError: if counts or classes are not as they must be, or files cannot be written.
    """
    check_choice("unusual", unusual, UNUSUAL)
    if num_threads < 0:
        raise ValueError(f"num_threads must be >= 0 (0 for one per CPU), got {num_threads}")
    target = dataset_path(name, data_dir)
    policy = _Policy(skip_bad, unusual, num_threads or os.cpu_count() or 1, progress)
    try:
        with scratch_folder(target.parents[1], name) as scratch:
            folder = scratch / name / write.VERSION
            folder.mkdir(parents=True)
            report = _fill(name, definition, folder, scratch, policy)
            move_into_place(folder, target)
    except OSError as error:
        raise ValueError(
            f"cannot prepare dataset {name!r} under {str(target.parents[1])!r} ({error}); make "
            "its files readable and set data_dir to a writable directory with space for it"
        ) from error
    return report._replace(path=target)


class _Policy(NamedTuple):
    skip_bad: bool
    unusual: str
    num_threads: int
    progress: bool


class _Problem(NamedTuple):
    split: str
    label: int
    line: str


@dataclasses.dataclass
class _Tally:
    """What has been seen of the images so far."""

    seen: dict[str, int] = dataclasses.field(default_factory=dict)
    kept: dict[str, collections.Counter] = dataclasses.field(default_factory=dict)
    traits: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    converted: int = 0
    problems: list[_Problem] = dataclasses.field(default_factory=list)


def _fill(
    name: str, definition: Definition, folder: Path, scratch: Path, policy: _Policy
) -> Report:
    """Writes the whole dataset to `folder`."""
    tally, spills = _Tally(), {}
    for split in definition.splits:
        examples = _checked_examples(split, definition, policy, tally)
        spills[split] = write.spill(examples, scratch / f"{split}.spill", definition.shuffled)
    _check_tally(name, definition, policy, tally)
    infos = []
    for split, spilled in spills.items():
        count = len(spilled.order)
        title = f"writing {split}"
        records = _track(write.ordered_records(spilled), count, title, policy.progress)
        infos.append(write.write_shards(iter(records), count, spilled.size, folder, name, split))
        spilled.path.unlink()
    write.write_metadata(folder, definition, infos)
    counts = {split: kept.total() for split, kept in tally.kept.items()}
    left_out = tuple(problem.line for problem in tally.problems)
    return Report(folder, counts, dict(tally.traits), tally.converted, left_out)


def _checked_examples(
    split: str, definition: Definition, policy: _Policy, tally: _Tally
) -> Iterator[Example]:
    """Iterates over the images that can be used, in order, and counts them all."""
    names, kept = set(), tally.kept.setdefault(split, collections.Counter())

    def check(example):
        return _check(example, definition, policy.unusual == "convert")

    examples = _track(
        definition.splits[split](), definition.counts.get(split), split, policy.progress
    )
    for example, findings in _map_in_order(check, examples, policy.num_threads):
        tally.seen[split] = tally.seen.get(split, 0) + 1
        error = findings.error or ("the second of this name" if example.name in names else "")
        if not error and findings.traits and policy.unusual == "refuse":
            error = ", ".join(findings.traits)
        names.add(example.name)
        if error:
            line = f"{split}: {example.name}: {error}"
            tally.problems.append(_Problem(split, example.label, line))
            continue
        tally.traits.update(findings.traits)
        tally.converted += bool(findings.traits) and policy.unusual == "convert"
        kept[example.label] += 1
        yield example


def _check(example: Example, definition: Definition, convert: bool) -> tuple[Example, Findings]:
    """Returns the example, converted if it is to be, and what was found."""
    num_classes = len(definition.class_names)
    if num_classes and not 0 <= example.label < num_classes:
        return example, Findings(f"label {example.label} is outside 0 ... {num_classes - 1}")
    findings = inspect_image.inspect(example.encoded, definition.channels, definition.image_shape)
    if definition.repeats_grey:
        findings = findings._replace(traits=tuple(t for t in findings.traits if t != "grey"))
    if convert and findings.traits:
        encoded = inspect_image.convert(example.encoded, definition.channels)
        example = example._replace(encoded=encoded)
    return example, findings


def _check_tally(name: str, definition: Definition, policy: _Policy, tally: _Tally) -> None:
    if tally.problems and not policy.skip_bad:
        raise BadImagesError(
            f"dataset {name!r}: {len(tally.problems):,} of {sum(tally.seen.values()):,} images "
            "cannot be used; nothing was written",
            [problem.line for problem in tally.problems],
        )
    for split, kept in tally.kept.items():
        seen, expected = tally.seen.get(split, 0), definition.counts.get(split)
        if expected is not None and seen != expected:
            raise ValueError(
                f"dataset {name!r}: split {split!r} has {seen:,} images where there must be "
                f"{expected:,}; get its files anew"
            )
        if not kept:
            problems = [problem.line for problem in tally.problems if problem.split == split]
            _refuse(f"dataset {name!r}: split {split!r} has no images", problems)
    if "train" in tally.kept:
        _check_classes(name, definition.class_names, tally)


def _check_classes(name: str, class_names: Sequence[str], tally: _Tally) -> None:
    empty = [label for label in range(len(class_names)) if label not in tally.kept["train"]]
    if empty:
        shown = ", ".join(class_names[label] for label in empty[:20])
        shown += " ..." if len(empty) > 20 else ""
        bad = [p.line for p in tally.problems if p.split == "train" and p.label in empty]
        _refuse(f"dataset {name!r}: {len(empty):,} classes ({shown}) have no training images", bad)


def _refuse(message: str, problems: list[str]) -> None:
    """Raises for what has no images, or none but those in `problems`."""
    if problems:
        raise BadImagesError(f"{message} but bad ones; nothing was written", problems)
    raise ValueError(f"{message}; add some")


def _map_in_order(function: Callable, items: Iterable, num_threads: int) -> Iterator:
    """Maps in threads; few items are in memory at a time."""
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        ahead = itertools.islice(items, num_threads * _AHEAD)
        pending = collections.deque(pool.submit(function, item) for item in ahead)
        while pending:
            yield pending.popleft().result()
            for item in itertools.islice(items, 1):
                pending.append(pool.submit(function, item))


def _track(items: Iterable, total: int | None, title: str, progress: bool) -> Iterable:
    return tqdm.tqdm(items, title, total, unit=" images", disable=not progress)
