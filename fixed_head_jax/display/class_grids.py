"""Pictures of the classes that a model found without labels: which images it puts together."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from fixed_head_jax.display.pictures import encode_png, resize_square, strips
from fixed_head_jax.display.tables import markdown
from fixed_head_jax.storage.files import replacing, write_text

CELL, GUTTER, BORDER = 128, 15, 3  # pixels of a grid
WRONG = (214, 40, 40)  # the frame of an image whose label is not that of its class
_THUMBNAIL, _CAPTION = 64, 200  # pixels of the sheet of all classes


class RankedClass(NamedTuple):
    """A discovered class.

    Attributes:
        cluster: its number among the predictions.
        accuracy: share of its members whose label is the assigned one, in [0, 1]; 0 if it has
            fewer members than a picture of it needs.
        size: number of its members.
    """

    cluster: int
    accuracy: float
    size: int


def check(count: int, class_grid_images: int) -> None:
    """Raises ValueError unless so many grids can be drawn, of so many images."""
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    if class_grid_images < 1 or math.isqrt(class_grid_images) ** 2 != class_grid_images:
        raise ValueError(f"class_grid_images must be a square such as 9, got {class_grid_images}")


def rank_classes(
    predictions: Integer[np.ndarray, " n"],
    assigned: Integer[np.ndarray, " p"],
    labels: Integer[np.ndarray, " n"],
    class_grid_images: int,
) -> list[RankedClass]:
    """Orders all clusters by accuracy, the best one first; ties by size, then by number.

    Args:
        predictions: cluster of every example, 0 ... P - 1.
        assigned: label that each of the P clusters stands for.
        labels: label of every example.
        class_grid_images: members below which a cluster's accuracy counts as 0, >= 1.

    Raises:
        ValueError: if a prediction is out of range.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, the released code. There the
    order of ties is that of an unstable sort.
    """
    if len(predictions) and not 0 <= predictions.min() <= predictions.max() < len(assigned):
        raise ValueError(
            f"predictions must be in 0 ... {len(assigned) - 1}, the clusters of assigned, got "
            f"{predictions.min()} ... {predictions.max()}; assign a label to every cluster"
        )
    sizes = np.bincount(predictions, minlength=len(assigned))
    is_correct = labels == assigned[predictions]
    correct = np.bincount(predictions[is_correct], minlength=len(assigned))
    accuracies = np.where(sizes >= class_grid_images, correct / np.maximum(sizes, 1), 0.0)
    order = np.lexsort((-sizes, -accuracies))  # stable: lower numbers first
    return [RankedClass(int(c), float(accuracies[c]), int(sizes[c])) for c in order]


def class_grid(
    images: Sequence[UInt8[np.ndarray, "_h _w _c"]], is_wrong: Bool[np.ndarray, " n"] | None = None
) -> UInt8[np.ndarray, "s s 3"]:
    """Lays images out in a square on white, row by row, each in a black frame, or in a red one.

    The side is k * 128 + (k + 1) * 15 pixels for k * k images: 444 for 9, 587 for 16. The frame, 3
    pixels wide, is drawn on the gutter around an image, so that it hides nothing.

    Args:
        images: of one channel or three, of any sizes; each is resized to 128 x 128 pixels, see
            `pictures.resize_square`.
        is_wrong: of each, whether its frame is red; None: of none.

    Raises:
        ValueError: if their number is not that of a square.

    Source: Amrani et al. 2022, the released code.
    """
    k = math.isqrt(len(images))
    if k == 0 or k * k != len(images):
        raise ValueError(f"images must be a square number, such as 9, got {len(images)}")
    side = k * CELL + (k + 1) * GUTTER
    grid = np.full((side, side, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (GUTTER + place * (CELL + GUTTER) for place in divmod(index, k))
        frame = slice(top - BORDER, top + CELL + BORDER), slice(left - BORDER, left + CELL + BORDER)
        grid[frame] = WRONG if is_wrong is not None and is_wrong[index] else 0
        grid[top : top + CELL, left : left + CELL] = resize_square(image, CELL)
    return grid


def draw_class_grids(
    folder: str | Path,
    predictions: Integer[np.ndarray, " n"],
    assigned: Integer[np.ndarray, " p"],
    labels: Integer[np.ndarray, " n"],
    read_images: Callable[[Integer[np.ndarray, " b"]], UInt8[np.ndarray, "b h w c"]],
    class_names: Sequence[str],
    count: int = 15,
    class_grid_images: int = 9,
) -> list[Path]:
    """Writes pictures of the most accurate clusters, and a table of all.

    `class_00_cluster_0007.png` is the grid of the first cluster, number 7, and so on; grids of an
    earlier call are removed. `classes.png` shows them all, a strip for each, and `classes.md` lists
    every cluster. Images of another label than the cluster's have a red frame. Which members are
    drawn depends on nothing but the arguments.

    Args:
        folder: where to write; made if it is not there.
        predictions: cluster of every example, 0 ... P - 1.
        assigned: label that each of the P clusters stands for; one without a name stands for none.
        labels: label of every example; as those assigned, -1 where none is known.
        read_images: examples -> their images.
        class_names: of the labels; empty where none is known.
        count: clusters that get a picture at most, >= 1: the first ones of `rank_classes` that have
            enough members.
        class_grid_images: members in a grid, a square number.

    Returns:
        The files, in the order above; `classes.png` is not there if no cluster has enough members.

    Raises:
        ValueError: if an argument does not fit.
        OSError: if a file cannot be written.

    Source: Amrani et al. 2022, the released code. There the original files are drawn, here the
    images as evaluation sees them.
    """
    check(count, class_grid_images)
    folder, taken_for = Path(folder), [_name(label, class_names) for label in assigned]
    ranked = rank_classes(predictions, assigned, labels, class_grid_images)
    shown = [one for one in ranked[:count] if one.size >= class_grid_images]
    files, rows = [], []
    for rank, one in enumerate(shown):
        drawn = _draw_members(predictions, one.cluster, class_grid_images)
        images, is_wrong = list(read_images(drawn)), labels[drawn] != assigned[one.cluster]
        rows.append([_thumbnail(*pair) for pair in zip(images, is_wrong, strict=True)])
        files.append(folder / f"class_{rank:02d}_cluster_{one.cluster:04d}.png")
        _write(files[-1], class_grid(images, is_wrong))
    if rows:
        captions = [_caption(one, taken_for[one.cluster], class_names) for one in shown]
        files.append(folder / "classes.png")
        _write(files[-1], strips(rows, captions, _THUMBNAIL, _CAPTION))
    for old in {*folder.glob("class_*_cluster_*.png"), *folder.glob("classes.png")} - {*files}:
        old.unlink()
    files.append(folder / "classes.md")
    write_text(files[-1], _table(ranked, taken_for, class_names, class_grid_images))
    return files


def members_table(
    predictions: Integer[np.ndarray, " n"],
    labels: Integer[np.ndarray, " n"],
    names: Sequence[str],
    class_names: Sequence[str],
) -> str:
    """Formats which examples are in which cluster as CSV, cluster after cluster.

    Args:
        predictions: cluster of every example.
        labels: of every example.
        names: of every example's file; empty texts where they are not known.
        class_names: of the labels; empty where none is known, and there is no column for them.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["cluster", "index", "file", *(["label"] if class_names else [])])
    for index in np.argsort(predictions, kind="stable"):
        label = [class_names[labels[index]]] if class_names else []
        rows.writerow([predictions[index], index, names[index], *label])
    return text.getvalue()


def _draw_members(predictions, cluster, count):
    """Draws members without replacement, as the released code: seeded anew for every cluster."""
    members = np.flatnonzero(predictions == cluster)
    return np.random.RandomState(0).choice(members, count, replace=False)


def _thumbnail(image, is_wrong):
    """Returns an image of the sheet, in a red frame where it is wrong."""
    thumbnail = resize_square(image, _THUMBNAIL)
    if is_wrong:
        framed = np.full_like(thumbnail, WRONG)
        inner = slice(BORDER, -BORDER)
        framed[inner, inner] = thumbnail[inner, inner]
        return framed
    return thumbnail


def _name(label, class_names):
    return class_names[label] if 0 <= label < len(class_names) else "-"


def _caption(one, name, class_names):
    if not class_names:
        return [f"cluster {one.cluster}", f"{one.size:,} images"]
    share = f"{one.size:,} images, {100 * one.accuracy:.1f} % right"
    return [f"cluster {one.cluster}", f"taken for {name}", share]


def _table(ranked, names, class_names, class_grid_images):
    """Formats all clusters as a Markdown table, with what the reader has to know below it."""
    total = max(sum(one.size for one in ranked), 1)
    if not class_names:
        cells = [["rank", "cluster", "images", "share (%)"]]
        for rank, one in enumerate(ranked):
            share = f"{100 * one.size / total:.2f}"
            cells.append([str(rank), str(one.cluster), f"{one.size:,}", share])
        return markdown(cells) + "\n"
    cells = [["rank", "cluster", "images", "share (%)", "class", "accuracy (%)"]]
    for rank, one in enumerate(ranked):
        is_small = one.size < class_grid_images
        cells.append(
            [
                str(rank), str(one.cluster), f"{one.size:,}", f"{100 * one.size / total:.2f}",
                names[one.cluster].replace("|", "\\|"),
                "-" if is_small else f"{100 * one.accuracy:.2f}",
            ]
        )  # fmt: skip
    note = "Accuracy: share of a cluster's images that are of the class assigned to it"
    frames = "In the pictures, images of another class have a red frame."
    return f"{markdown(cells)}\n{note}; - below {class_grid_images} images.\n{frames}\n"


def _write(path, image):
    with replacing(path) as partial:
        partial.write_bytes(encode_png(image))
