"""Crops on the host: where the boxes are, resizing as Pillow's, and many from one image."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from fixed_head_jax import data
from fixed_head_jax.data import crops, decoding
from fixed_head_jax.data.crops import RandomCrop

PHOTO = load_sample_image("china.jpg")[:300, :400]
HALF = np.full(4 * crops.ATTEMPTS + 1, 0.5)


def encode(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **options)
    return buffer.getvalue()


def cut(encoded, crop, draws, channels=3):
    """Returns the crops of one image under one name."""
    out = np.empty((max(crop.views, 1), crop.size, crop.size, channels), np.uint8)
    rows = {"image": np.atleast_2d(draws)}
    target = {"image": out if crop.views else out[0]}
    crops.random_crops(encoded, channels, {"image": crop}, rows, target)
    return target["image"]


def with_pillow(image, box, size, method):
    top, left, height, width = box
    part = Image.fromarray(image[top : top + height, left : left + width])
    return np.asarray(part.resize((size, size), getattr(Image.Resampling, method.upper())))


def test_a_box_by_hand():
    # Area share 0.54 and aspect 1: a square of sqrt(0.54 * 300 * 400) = 254.6 in the middle.
    assert crops.random_box(300, 400, HALF) == (23, 73, 255, 255)
    corner = np.array([0.5, 0.5, 0.0, 1 - 1e-9])
    assert crops.random_box(300, 400, corner) == (0, 145, 255, 255)
    full = np.array([1 - 1e-12, 0.5, 0.9, 0.9])
    assert crops.random_box(64, 64, full) == (0, 0, 64, 64)
    # Specification of non-binary transfer, 12.7: share 0.5 of 500 x 375 at aspect 4/3.
    draws = np.array([0.5, 1.0, 0.0, 0.0])
    assert crops.random_box(375, 500, draws, scale=(0.0, 1.0))[2:] == (265, 354)


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (300, 100, (83, 0, 133, 100)),  # too tall: aspect 3/4
        (100, 300, (0, 83, 100, 133)),  # too wide: aspect 4/3
        (90, 100, (0, 0, 90, 100)),
    ],
)
def test_where_no_attempt_fits_the_largest_central_box(height, width, expected):
    too_large = np.tile([1 - 1e-12, 0.0 if width > height else 1 - 1e-12, 0, 0], crops.ATTEMPTS)
    assert crops.random_box(height, width, too_large) == expected


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.4)])
def test_boxes_are_inside_and_spread_evenly(scale):
    height, width = 400, 400
    draws = crops.draw(0, 3, 4000, {"image": RandomCrop(8)})["image"][:, 0]
    boxes = np.array([crops.random_box(height, width, one, scale) for one in draws])
    top, left, box_height, box_width = boxes.T
    assert (boxes >= 0).all()
    assert (top + box_height <= height).all() and (left + box_width <= width).all()
    aspect = box_width / box_height
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    share = box_height * box_width / (height * width)
    assert share.min() > scale[0] - 0.002 and share.max() < scale[1] + 0.002
    # Up to 9/16 every aspect fits: the shares below are uniform, the log aspects with them.
    most = min(scale[1], 0.56)
    small = share < most
    assert stats.kstest(share[small], stats.uniform(scale[0], most - scale[0]).cdf).pvalue > 0.001
    span = np.log(4 / 3)
    assert stats.kstest(np.log(aspect[small]), stats.uniform(-span, 2 * span).cdf).pvalue > 0.001
    place = (top + 0.5) / (height - box_height + 1)
    assert stats.kstest(place, stats.uniform.cdf).pvalue > 0.001


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 288])
def test_crops_are_those_of_pillow(method, size):
    box = crops.random_box(300, 400, HALF)
    image = cut(encode(PHOTO), RandomCrop(size, method=method), HALF)
    np.testing.assert_array_equal(image, with_pillow(PHOTO, box, size, method))


def test_random_methods_are_equally_likely():
    draws = np.tile(HALF, (200, 1))
    draws[:, -1] = np.random.default_rng(0).random(200)
    images = cut(encode(PHOTO), RandomCrop(16, method="random", views=200), draws)
    box = crops.random_box(300, 400, HALF)
    is_method = {
        method: (images == with_pillow(PHOTO, box, 16, method)).all((1, 2, 3)).sum()
        for method in crops.METHODS
    }
    assert sum(is_method.values()) == 200
    assert stats.binomtest(int(is_method["bicubic"]), 200).pvalue > 0.001


# Boxes of 255 pixels: enlarged, shrunk, and from a JPEG file decoded at a half to an eighth.
@pytest.mark.parametrize(
    "size, reduction, bound",
    [(288, 1, 2), (224, 1, 3), (140, 1, 7), (112, 2, 4), (60, 4, 4), (24, 8, 4)],
)
def test_fast_crops_are_close_to_those_of_pillow(size, reduction, bound):
    encoded = encode(PHOTO, "JPEG", quality=95, subsampling=0)
    whole = decoding.decode(encoded, 3)
    box = crops.random_box(300, 400, HALF)
    box = [side // reduction * reduction for side in box]  # whole pixels of the reduced image
    fast = cut(encoded, RandomCrop(size), HALF).astype(int)
    assert np.abs(fast - with_pillow(whole, box, size, "bilinear")).mean() < bound


def test_what_the_fast_decoder_refuses_is_decoded_whole(monkeypatch):
    monkeypatch.setattr(crops, "decode_top", lambda *_: None)
    encoded = encode(PHOTO, "JPEG")
    box = crops.random_box(300, 400, HALF)
    expected = np.empty((24, 24, 3), np.uint8)
    crops._resize_fast(
        decoding.decode(encoded, 3)[box[0] :][: box[2], box[1] :][:, : box[3]], expected
    )
    np.testing.assert_array_equal(cut(encoded, RandomCrop(24), HALF), expected)


def test_grey_crops_keep_their_axis():
    grey = cut(encode(PHOTO[..., 0]), RandomCrop(96), HALF, channels=1)
    assert grey.shape == (96, 96, 1) and grey.std() > 20
    exact = cut(encode(PHOTO[..., 0]), RandomCrop(96, method="bilinear"), HALF, channels=1)
    assert np.abs(grey.astype(int) - exact).mean() < 5


def test_several_views_of_one_decoded_image(monkeypatch):
    calls = []
    decode = decoding.decode
    monkeypatch.setattr(crops, "decode", lambda *args: calls.append(args) or decode(*args))
    views = {
        "global": RandomCrop(40, (0.4, 1.0), method="bicubic", views=2),
        "local": RandomCrop(16, (0.05, 0.4), method="bicubic", views=6),
    }
    draws = {name: rows[0] for name, rows in crops.draw(1, 5, 1, views).items()}
    out = {
        name: np.zeros((crop.views, crop.size, crop.size, 3), np.uint8)
        for name, crop in views.items()
    }
    crops.random_crops(encode(PHOTO, "JPEG"), 3, views, draws, out)
    assert len(calls) == 1
    for name, crop in views.items():
        boxes = [crops.random_box(300, 400, row, crop.scale) for row in draws[name]]
        assert len(set(boxes)) == crop.views
        whole = decode(encode(PHOTO, "JPEG"), 3)
        expected = [with_pillow(whole, box, crop.size, "bicubic") for box in boxes]
        np.testing.assert_array_equal(out[name], expected)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "height, width, resized, top, left",
    [
        (375, 500, (341, 454), 21, 78),
        (500, 375, (454, 341), 78, 21),
        (300, 640, (341, 727), 21, 214),
    ],
)
def test_evaluation_resizes_and_crops_as_torchvision(method, height, width, resized, top, left):
    # Worked numbers of the specification of non-binary transfer, 12.7.
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    resample = getattr(Image.Resampling, method.upper())
    expected = np.asarray(Image.fromarray(image).resize(resized[::-1], resample))
    expected = expected[top : top + 299, left : left + 299]
    np.testing.assert_array_equal(crops.resize_and_crop(image, 299, 341, method), expected)


def thin_shapes(count):
    """Returns (height, width, size, resize_size), from squares to lines, lying or standing."""
    random = np.random.default_rng(7)
    shorter = np.exp(random.uniform(0, np.log(40), count)).astype(int)
    longer = (shorter * np.exp(random.uniform(0, np.log(50), count))).astype(int)
    resize_size = (shorter * random.uniform(0.4, 8, count)).astype(int) + 1
    size = (resize_size * random.uniform(0.3, 1, count)).astype(int) + 1
    shapes = [*zip(shorter, longer, size, np.maximum(size, resize_size), strict=True)]
    return [
        tuple(map(int, (*shape[:2][:: (-1) ** i], *shape[2:]))) for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_what_the_crop_shows_is_as_in_the_whole_image(monkeypatch, method):
    parts = []
    enlarge_part = crops.enlarge_part
    monkeypatch.setattr(
        crops, "enlarge_part", lambda *args: parts.append(args) or enlarge_part(*args)
    )
    random, shapes = np.random.default_rng(8), thin_shapes(160)
    for index, (height, width, size, shorter) in enumerate(shapes):
        channels = (1, 3)[index // 2 % 2]
        image = random.integers(0, 256, (height, width, channels), np.uint8)
        if index % 3 == 0:
            image = 255 * (image > 127).astype(np.uint8)  # overshoots of the cubic are cut off
        sides = [shorter * side // min(height, width) for side in (height, width)]
        resample = getattr(Image.Resampling, method.upper())
        plain = Image.fromarray(image if channels == 3 else image[..., 0])
        whole = np.asarray(plain.resize(sides[::-1], resample)).reshape(*sides, channels)
        top, left = (round((side - size) / 2) for side in sides)
        np.testing.assert_array_equal(
            crops.resize_and_crop(image, size, shorter, method),
            whole[top : top + size, left : left + size],
            err_msg=str((height, width, size, shorter)),
        )
    assert 20 < len(parts) < len(shapes) - 20  # both ways were taken


@pytest.mark.parametrize("shape", [(4, 20_000), (20_000, 4)])
def test_a_thin_image_takes_no_more_memory_than_its_crop(monkeypatch, shape):
    monkeypatch.setattr(crops, "_resize", None)  # Pillow's memory would not be counted
    image = np.full((*shape, 3), (9, 99, 199), np.uint8)
    tracemalloc.start()
    try:
        crop = crops.resize_and_crop(image, 224, 256)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (crop == image[0, 0]).all() and crop.shape == (224, 224, 3)
    assert peak < 24 * crop.nbytes  # sums of 4 bytes for each level, a few at a time


@pytest.fixture(scope="module")
def open_digits(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))

    def open_dataset(**options):
        options = {"image_size": 12, "crops": {"image": RandomCrop(12)}, **options}
        return data.open_dataset("digits", "train", path, **options)

    return open_dataset


def images(batches):
    return [batch["image"] for batch in batches]


def test_crops_depend_on_seed_step_and_position_alone(open_digits):
    whole = images(open_digits(num_threads=2).train_batches(5, 16, 0, 4))
    resumed = images(open_digits(num_threads=1).train_batches(5, 16, 2, 2))
    np.testing.assert_array_equal(whole[2:], resumed)
    shards = [images(open_digits().train_batches(5, 16, 0, 4, (i, 2))) for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(shards, axis=1))
    assert not np.array_equal(whole, images(open_digits().train_batches(6, 16, 0, 4)))
    evaluated = np.concatenate(images(open_digits().eval_batches(1442)))
    np.testing.assert_array_equal(evaluated, open_digits(crops=None).arrays()["image"])


def test_batches_of_views(open_digits):
    views = {"global": RandomCrop(12, (0.4, 1.0), views=2), "local": RandomCrop(6, views=3)}
    batch = next(open_digits(crops=views).train_batches(0, 20, 0, 1))
    assert batch["global"].shape == (20, 2, 12, 12, 1)
    assert batch["local"].shape == (20, 3, 6, 6, 1)
    assert "image" not in batch
    assert (batch["global"][:, 0] != batch["global"][:, 1]).any((1, 2, 3)).mean() > 0.9


@pytest.mark.parametrize(
    "crop, message",
    [
        (RandomCrop(0), "size >= 1 and views >= 0, got 0 and 0"),
        (RandomCrop(8, views=-1), "size >= 1 and views >= 0, got 8 and -1"),
        (RandomCrop(8, scale=(0.0, 1.0)), r"crop_scale must be .* got \(0.0, 1.0\)"),
        (RandomCrop(8, scale=(0.5, 0.4)), "crop_scale must be"),
        (RandomCrop(8, scale=(0.5, 1.1)), "crop_scale must be"),
        (RandomCrop(8, scale=(0.5,)), "crop_scale must be"),
        (RandomCrop(8, ratio=(0.0, 1.0)), "crop_ratio must be"),
        (RandomCrop(8, method="area"), "unknown crop_interpolation 'area'; known: fast, bilinear"),
    ],
)
def test_crops_that_cannot_be(open_digits, crop, message):
    with pytest.raises(ValueError, match=message):
        open_digits(crops={"image": crop})


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(placement="resident"), "need placement 'auto' or 'disk', got 'resident'"),
        (dict(resize_size=8), "data.resize_size=8 must be 0 or at least data.image_size=12"),
    ],
)
def test_options_that_do_not_fit(open_digits, options, message):
    with pytest.raises(ValueError, match=message):
        open_digits(**options)
