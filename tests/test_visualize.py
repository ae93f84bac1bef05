"""Sheets of augmented images and the command line that writes them."""

import numpy as np
import pytest
from PIL import Image

from fixed_head_jax import visualize
from fixed_head_jax.configs import digits
from fixed_head_jax.data import open_dataset
from fixed_head_jax.display.pictures import GUTTER, contact_sheet, write_png

DIGITS = "digits"


HEADS = 16  # pixels of the line above a sheet of augmentations


def cut(sheet, rows, columns, cell, heads=0):
    """Returns the images [rows, columns, cell, cell, 3] of a sheet, and the strips below them."""
    sheet = sheet[heads:]
    height = (len(sheet) - GUTTER) // rows
    cells = sheet[GUTTER:, GUTTER:].reshape(rows, height, columns, cell + GUTTER, 3)
    cells = cells.swapaxes(1, 2)[:, :, :, :cell]
    return cells[:, :, :cell], cells[:, :, cell:]


def test_a_sheet_holds_every_image_in_its_cell():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (4, 4, channels), np.uint8) for channels in (1, 3, 3, 1, 3)]
    sheet = contact_sheet(images, columns=2, cell=8)
    assert (sheet[:GUTTER] == 255).all() and (sheet[:, :GUTTER] == 255).all()
    cells, gutters = cut(sheet, 3, 2, 8)
    for image, drawn in zip(images, cells.reshape(6, 8, 8, 3), strict=False):
        whole = np.repeat(np.repeat(np.broadcast_to(image, (4, 4, 3)), 2, 0), 2, 1)
        np.testing.assert_array_equal(drawn, whole)
    assert (cells[2, 1] == 255).all() and (gutters == 255).all()


def test_large_images_are_averaged():
    stripes = np.zeros((8, 16, 3), np.uint8)
    stripes[:, ::2] = 200
    cells, _ = cut(contact_sheet([stripes], columns=1, cell=4), 1, 1, 4)
    assert (cells == 100).all()


def test_captions_stand_below_their_images():
    images = [np.full((30, 20, 3), level, np.uint8) for level in (10, 20)]
    captions = ["", "a caption of great length"]
    sheet = contact_sheet(images, columns=1, cell=16, captions=captions)
    cells, strips = cut(sheet, 2, 1, 16)
    assert (cells[0] == 10).all() and (cells[1] == 20).all()
    assert (strips[0] == 255).all() and (strips[1] < 128).any()
    assert (sheet[:, -GUTTER:] == 255).all()  # cut off at the width of its cell


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=[]), "images must hold at least one image"),
        (dict(columns=0), "columns must be at least 1, got 0"),
        (dict(cell=0), "cell must be at least 1, got 0"),
        (dict(captions=["a", "b"]), "captions must be one for each of 1, got 2"),
    ],
)
def test_a_sheet_rejects(arguments, message):
    images = [np.zeros((4, 4, 3), np.uint8)]
    with pytest.raises(ValueError, match=message):
        contact_sheet(**{"images": images, "columns": 1, "cell": 8, **arguments})


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_hold_the_image(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    write_png(tmp_path / "x.png", image)
    with Image.open(tmp_path / "x.png") as read:
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)
    with pytest.raises(ValueError, match="must end in .png"):
        write_png(tmp_path / "x.jpg", image)
    with pytest.raises(
        ValueError, match="folder of the picture .*nowhere.* does not exist; create"
    ):
        write_png(tmp_path / "nowhere" / "x.png", image)


def test_without_augmentation_all_columns_show_the_image_of_evaluation(data_dir):
    config = digits.get_config("smoke")
    config.data_dir, config.augment.pad_crop = data_dir, 0
    sheet = visualize.augmentation_sheet(config, examples=3, draws=2, cell=8)
    source = open_dataset("digits", "train", data_dir).source
    index = np.random.default_rng(config.seed).choice(len(source), 3, replace=False)
    images, _ = source.read(index.astype(np.int32))
    cells, strips = cut(sheet, 3, 3, 8, HEADS)
    assert (sheet[:HEADS] < 128).any()
    np.testing.assert_array_equal(cells, np.broadcast_to(images[:, None], cells.shape))
    assert (strips[:, 0] < 128).any((1, 2, 3)).all()  # names of classes
    assert (strips[:, 1:] == 255).all()


@pytest.mark.slow
def test_draws_differ_and_mixed_images_say_their_share(data_dir):
    config = digits.get_config("smoke")
    config.data_dir, config.augment.mixup = data_dir, 1.0
    config.data.image_size, config.data.train_crop = 32, "random_resized"
    config.augment.pad_crop = 0
    cells, strips = cut(visualize.augmentation_sheet(config, 2, 3, 32), 2, 4, 32, HEADS)
    assert len({image.tobytes() for image in cells.reshape(8, -1)}) == 8
    assert (strips < 128).any((2, 3, 4)).all()


OVERRIDES = (
    "--config.augment.crop_scale=(0.2, 1.0)", "--config.augment.hue", "0.1",
    "--config.augment.flip", "--noconfig.views.flip", "-config.augment.erase_fill=rand",
    "--config.model.head_options.scale=2", "--config.transfer.lr_head=None",
    "--config.optim.lr_multipliers=(('^head/', 10.0),)", "--config.seed", "1", "--config.seed=7",
)  # fmt: skip


def test_overrides_take_every_form_that_main_takes():
    config = visualize.load_config(f"{DIGITS}:hadamard,smoke", OVERRIDES)
    assert (config.model.head, config.total_steps, config.seed) == ("hadamard", 2, 7)
    assert config.augment.crop_scale == (0.2, 1.0) and config.augment.hue == 0.1
    assert config.augment.flip is True and config.views.flip is False
    assert config.augment.erase_fill == "rand" and config.model.head_options.scale == 2.0
    assert config.transfer.lr_head is None
    assert config.optim.lr_multipliers == (("^head/", 10.0),)


@pytest.mark.parametrize(
    "config, override, message",
    [
        ("configs/nope.py", "", "--config='configs/nope.py' is no experiment and no Python file"),
        ("configs", "", "--config='configs' is no experiment and no Python file"),
        (f"{DIGITS}:nope", "", "visualize: unknown config variant 'nope'"),
        (DIGITS, "--foo=3", "Unknown command line flag 'foo'"),
        (DIGITS, "stray", "unknown argument 'stray'; config keys are set by --config.KEY=VALUE"),
        (DIGITS, "--config.augment.hue", "Missing value for flag --config.augment.hue"),
        (DIGITS, "--config.augment.hoe=1", "no key augment.hoe (did you mean 'augment.hue'?)"),
        (DIGITS, "--config.augment.hue=x", "augment.hue=x: could not convert string to float"),
        (DIGITS, "--config.augment.flip=yes", "flip=yes: "),
        (DIGITS, "--config.data.mean.x=1", "no key data.mean.x (did you mean 'data.mean'?)"),
        (DIGITS, "--config.augment.hue=0.7", "augment.hue"),
        (DIGITS, "--out=x.jpg", "the picture's name must end in .png, got 'x.jpg'"),
        (DIGITS, "--out=nowhere/x.png", "the folder of the picture 'nowhere/x.png' does not exist"),
        (DIGITS, "--examples=0", "examples must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line(data_dir, capsys, config, override, message):
    arguments = [override] if override else []
    with pytest.raises(SystemExit) as stopped:
        visualize.main(
            ["augment", f"--config={config}", "--out=x.png", f"--config.data_dir={data_dir}"]
            + arguments
        )
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.startswith("visualize: ")
    assert message in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_the_command_writes_the_picture(data_dir, tmp_path):
    visualize.main(
        ["augment", f"--config={DIGITS}:smoke", f"--config.data_dir={data_dir}",
         f"--out={tmp_path / 'x.png'}", "--examples=2", "--draws=3", "--cell=20"]
    )  # fmt: skip
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.width == 4 * (20 + GUTTER) + GUTTER
