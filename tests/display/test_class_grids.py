"""Discovered classes: their order, the pictures of their members, and the files."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fixed_head_jax.display.class_grids import class_grid, draw_class_grids, rank_classes
from fixed_head_jax.display.pictures import GUTTER, resize_square, strips

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images * 255 / 16).astype(np.uint8)[..., None]
NAMES = tuple(f"digit {digit}" for digit in range(10))


def read(indices):
    return IMAGES[indices]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def clusters_of_digits():
    """Returns predictions that are the labels, but for cluster 10, five nines, and 11, empty."""
    predictions = DIGITS.target.copy()
    predictions[np.flatnonzero(predictions == 9)[:5]] = 10
    predictions[np.flatnonzero(predictions == 3)[:20]] = 8
    return predictions, np.array([*range(10), 9, 12])


# Order


def test_clusters_are_ranked_by_accuracy_then_size_then_number():
    members = {  # cluster -> labels of its members; the assigned label is 0 for all
        0: [0, 0, 1],
        1: [0, 0, 0, 0, 1, 1],
        2: [0, 0, 0],
        3: [0, 0],
        4: [1, 1, 1, 1],
        5: [0, 1, 0],
        6: [],
        7: [0] * 3,
    }
    predictions = np.repeat(list(members), [len(labels) for labels in members.values()])
    labels = np.concatenate(list(members.values())).astype(int)
    order = np.random.default_rng(0).permutation(len(labels))
    ranked = rank_classes(predictions[order], np.zeros(8, int), labels[order], 3)
    assert ranked == [
        (2, 1.0, 3), (7, 1.0, 3), (1, 2 / 3, 6), (0, 2 / 3, 3), (5, 2 / 3, 3),
        (4, 0.0, 4), (3, 0.0, 2), (6, 0.0, 0),
    ]  # fmt: skip
    assert rank_classes(predictions, np.zeros(8, int), labels, 2)[2] == (3, 1.0, 2)


def test_ranks_of_the_over_clustered_example():
    """Specification of Self-Classifier, 6.3, E2: 9 of 10 examples are right."""
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    predictions = np.array([4, 4, 0, 0, 0, 3, 2, 2, 1, 1])
    ranked = rank_classes(predictions, np.array([1, 2, 2, 1, 0]), labels, 1)
    assert [one.cluster for one in ranked] == [1, 2, 4, 3, 0]
    assert sum(one.accuracy * one.size for one in ranked) == pytest.approx(9)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_every_cluster_needs_an_assigned_label(wrong):
    labels = np.array([0, 1])
    with pytest.raises(ValueError, match="predictions must be in 0 ... 2, .* got"):
        rank_classes(np.array([1, wrong]), np.zeros(3, int), labels, 1)


# Pictures


@pytest.mark.parametrize("k, side", [(1, 158), (3, 444), (4, 587)])
def test_a_grid_has_frames_on_its_gutters(k, side):
    levels = [10 + 13 * i for i in range(k * k)]
    grid = class_grid([np.full((5 + i, 9, 3), level, np.uint8) for i, level in enumerate(levels)])
    expected = np.full((side, side, 3), 255, np.uint8)
    for i, level in enumerate(levels):
        top, left = 15 + i // k * 143, 15 + i % k * 143
        expected[top - 3 : top + 131, left - 3 : left + 131] = 0
        expected[top : top + 128, left : left + 128] = level
    np.testing.assert_array_equal(grid, expected)


def test_grids_keep_colours_and_turn_one_channel_grey():
    red, grey = np.zeros((8, 8, 3), np.uint8), np.full((200, 150, 1), 90, np.uint8)
    red[..., 0] = 250
    grid = class_grid([red, grey, grey, red])
    assert grid[50, 50].tolist() == grid[200, 200].tolist() == [250, 0, 0]
    assert grid[50, 200].tolist() == [90, 90, 90]


def test_few_pixels_stay_squares_and_others_are_resized_as_by_pillow():
    image = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8)
    drawn = resize_square(image, 128)
    np.testing.assert_array_equal(drawn, np.repeat(np.repeat(image, 4, 0), 8, 1))
    for shape in ((33, 16, 3), (300, 64, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(resize_square(image, 128), expected)


@pytest.mark.parametrize("count", [0, 2, 8, 10])
def test_a_grid_needs_a_square_number_of_images(count):
    with pytest.raises(ValueError, match=f"images must be a square number, .* got {count}"):
        class_grid([IMAGES[0]] * count)


def test_strips_have_their_captions_at_the_left():
    rows = [[np.full((4, 4, 1), 50 * row, np.uint8)] * 2 for row in (1, 2)]
    sheet = strips(rows, [["one", "a line of great length", "cut"], [""]], cell=40, width=50)
    assert sheet.shape == (2 * 44 + GUTTER, GUTTER + 50 + 2 * 44 + GUTTER, 3)
    margin = sheet[:, :54]
    assert (margin[4:24] < 128).any() and (margin[24:44] < 128).any()
    assert (margin[44:] == 255).all()  # no room for a third line, and the second caption is empty
    for left in (58, 102):
        assert (sheet[4:44, left : left + 40] == 50).all()
        assert (sheet[48:88, left : left + 40] == 100).all()
    with pytest.raises(ValueError, match=r"equally long .* lengths \[1, 2\] and 2 captions for 2"):
        strips([rows[0], rows[1][:1]], [[], []], 40, 50)
    with pytest.raises(ValueError, match="got lengths .2. and 1 captions for 2 rows"):
        strips(rows, [[]], 40, 50)
    with pytest.raises(ValueError, match="images must hold at least one image"):
        strips([], [], 40, 50)


# Files


def test_all_files_of_the_digits(tmp_path):
    predictions, assigned = clusters_of_digits()
    ranked = rank_classes(predictions, assigned, DIGITS.target, 9)
    assert [one.cluster for one in ranked[-3:]] == [8, 10, 11]
    files = draw_class_grids(
        tmp_path / "new", predictions, assigned, DIGITS.target, read, NAMES, count=12
    )
    clusters = [one.cluster for one in ranked[:10]]
    assert [file.name for file in files] == [
        *(f"class_{rank:02d}_cluster_{cluster:04d}.png" for rank, cluster in enumerate(clusters)),
        "classes.png", "classes.md",
    ]  # fmt: skip
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    for file, cluster in zip(files, clusters, strict=False):
        np.random.seed(0)  # as the released code
        members = np.random.choice(np.flatnonzero(predictions == cluster), 9, replace=False)
        is_wrong = DIGITS.target[members] != assigned[cluster]
        drawn = pixels(file)
        np.testing.assert_array_equal(drawn, class_grid(list(IMAGES[members]), is_wrong))
        assert (drawn[12, 15] == ([214, 40, 40] if is_wrong[0] else 0)).all()  # its frame
    assert len(pixels(files[-2])) == 10 * (64 + GUTTER) + GUTTER
    lines = files[-1].read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:14]]
    assert cells[0] == ["rank", "cluster", "images", "share (%)", "class", "accuracy (%)"]
    assert cells[2] == ["0", "1", "182", "10.13", "digit 1", "100.00"]
    assert cells[3][:3] == ["1", "5", "182"]
    assert cells[11] == ["9", "8", "194", "10.80", "digit 8", "89.69"]
    assert cells[12] == ["10", "10", "5", "0.28", "digit 9", "-"]
    assert cells[13] == ["11", "11", "0", "0.00", "-", "-"]
    assert lines[15].endswith("- below 9 images.")


def test_another_call_writes_the_same_and_removes_what_is_old(tmp_path):
    predictions, assigned = clusters_of_digits()
    arguments = (assigned, DIGITS.target, read, NAMES)
    first = draw_class_grids(tmp_path, predictions, *arguments, count=3)
    contents = [file.read_bytes() for file in first]
    again = draw_class_grids(tmp_path, predictions, *arguments, count=3)
    assert again == first and [file.read_bytes() for file in again] == contents
    swapped = np.where(predictions < 10, 9 - predictions, predictions)
    (tmp_path / "notes.png").touch()
    second = draw_class_grids(tmp_path, swapped, *arguments, count=2, class_grid_images=4)
    assert sorted(tmp_path.iterdir()) == sorted([*second, tmp_path / "notes.png"])
    few = draw_class_grids(tmp_path, predictions[:20], assigned, DIGITS.target[:20], read, NAMES)
    assert [file.name for file in few] == ["classes.md"]
    assert sorted(tmp_path.iterdir()) == sorted([*few, tmp_path / "notes.png"])


def test_names_of_classes_do_not_break_the_table_or_the_sheet(tmp_path):
    names = ["Ä|B" for _ in NAMES]
    _, sheet, table = draw_class_grids(
        tmp_path, DIGITS.target, np.arange(10), DIGITS.target, read, names, count=1
    )
    assert " Ä\\|B |" in table.read_text(encoding="utf-8")
    assert (pixels(sheet)[:, :100] < 128).any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(count=0), "count must be >= 1, got 0"),
        (dict(class_grid_images=8), "class_grid_images must be a square such as 9, got 8"),
        (dict(class_grid_images=0), "class_grid_images must be a square such as 9, got 0"),
        (dict(assigned=np.arange(9)), "predictions must be in 0 ... 8, .*got 0 ... 9"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, options, message):
    arguments = dict(predictions=DIGITS.target, assigned=np.arange(10), labels=DIGITS.target)
    arguments |= dict(read_images=read, class_names=NAMES)
    with pytest.raises(ValueError, match=message):
        draw_class_grids(tmp_path / "new", **{**arguments, **options})
    assert not list(tmp_path.iterdir())
