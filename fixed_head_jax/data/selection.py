"""Which examples of a split make up a source: some classes, a share of each, a list of files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer


def between(labels: Integer[np.ndarray, " n"], first: int, end: int) -> Int32[np.ndarray, " m"]:
    """Returns the positions of the labels first ... end - 1."""
    return np.flatnonzero((labels >= first) & (labels < end)).astype(np.int32)


def stratified(labels: Integer[np.ndarray, " n"], fraction: float) -> Int32[np.ndarray, " m"]:
    """Chooses the same share of every class, always the same examples.

    Of a class with n examples max(1, round(fraction * n)) are taken, halves to even, at random; a
    smaller fraction takes some of those that a larger one takes.

    Args:
        labels: class of every example.
        fraction: share in (0, 1].

    Returns:
        Positions of the chosen examples, ascending.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rng = np.random.Generator(np.random.Philox(key=[0, int(label)]))
        count = max(1, round(fraction * len(members)))
        chosen.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int32)


def listed(list_file: str, file_names: Callable[[], list[str]]) -> Int32[np.ndarray, " m"]:
    """Returns the positions of the files that a text file lists, one on each line.

    A name with more folders before it, in the list or in `file_names`, is the same file.

    Raises:
        ValueError: if the list cannot be read, or files in it are not in the split.
    """
    try:
        lines = Path(list_file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"data.train_list={list_file!r} cannot be read: {error}") from error
    names = {line.strip() for line in lines} - {""}
    listed_ends = {end: name for name in names for end in _ends(name)}

    def listed_name(stored):
        whole = next((end for end in _ends(stored) if end in names), None)
        return whole or listed_ends.get(stored)

    found = [listed_name(stored) for stored in file_names()]
    missing = sorted(names.difference(found))
    if missing or not names:
        example = f", {missing[0]!r} for one" if missing else ""
        raise ValueError(
            f"{len(missing)} of the {len(names)} files that {list_file!r} lists are not in the "
            f"split{example}; use a list of its files, and a dataset that stores their names"
        )
    return np.flatnonzero([name is not None for name in found]).astype(np.int32)


def _ends(name):
    """Lists a path, and it without its first folder, its first two, and so on."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
