"""Random resized crops: the distribution of the boxes, and the same crops however they are read."""

import cv2
import numpy as np
import pytest
from scipy import stats

from fixed_head_jax import data
from fixed_head_jax.data import crops

HALF = np.full((1, 4), 0.5)


def test_a_box_by_hand():
    # Area share 0.54 and aspect 1: a square of sqrt(0.54 * 300 * 400) = 254.6 in the middle.
    assert crops.random_box(300, 400, HALF) == (23, 73, 255, 255)
    corner = np.array([[0.5, 0.5, 0.0, 1 - 1e-9]])
    assert crops.random_box(300, 400, corner) == (0, 145, 255, 255)
    full = np.array([[1 - 1e-12, np.log(4 / 3) / (2 * np.log(4 / 3)), 0.9, 0.9]])
    assert crops.random_box(64, 64, full) == (0, 0, 64, 64)


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (300, 100, (83, 0, 133, 100)),  # too tall: aspect 3/4
        (100, 300, (0, 83, 100, 133)),  # too wide: aspect 4/3
        (90, 100, (0, 0, 90, 100)),
    ],
)
def test_where_no_attempt_fits_the_largest_central_box(height, width, expected):
    too_large = np.tile([[1 - 1e-12, 0.0 if width > height else 1 - 1e-12, 0, 0]], (10, 1))
    assert crops.random_box(height, width, too_large) == expected


def test_boxes_are_inside_and_spread_evenly():
    height, width = 400, 400
    draws = crops.draw(seed=0, step=3, batch_size=4000)
    boxes = np.array([crops.random_box(height, width, one) for one in draws])
    top, left, box_height, box_width = boxes.T
    assert (boxes >= 0).all()
    assert (top + box_height <= height).all() and (left + box_width <= width).all()
    aspect = box_width / box_height
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    share = box_height * box_width / (height * width)
    assert share.min() > 0.078
    # Up to 9/16 every aspect fits: the shares below are uniform, the log aspects with them.
    small = share < 0.56
    assert stats.kstest(share[small], stats.uniform(0.08, 0.48).cdf).pvalue > 0.001
    span = np.log(4 / 3)
    assert stats.kstest(np.log(aspect[small]), stats.uniform(-span, 2 * span).cdf).pvalue > 0.001
    place = (top + 0.5) / (height - box_height + 1)
    assert stats.kstest(place, stats.uniform.cdf).pvalue > 0.001


def test_crops_are_resized_parts():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    top, left, height, width = crops.random_box(60, 80, HALF)
    expected = cv2.resize(
        image[top : top + height, left : left + width], (32, 32), interpolation=cv2.INTER_AREA
    )
    np.testing.assert_array_equal(crops.random_resized_crop(image, 32, HALF), expected)
    grey = crops.random_resized_crop(image[..., :1], 96, HALF)
    assert grey.shape == (96, 96, 1)  # enlarged, and the channel stays


def test_resize_then_centre_crop():
    image = np.zeros((256, 512, 3), np.uint8)
    image[16:240, 144:368] = 255  # the central 224 x 224
    assert (crops.resize_and_crop(image, 224, 256) == 255).all()
    assert (crops.resize_and_crop(image, 256, 256)[:16] == 0).all()


@pytest.fixture(scope="module")
def open_digits(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))

    def open_dataset(**options):
        options = {"image_size": 12, "train_crop": "random_resized", **options}
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
    np.testing.assert_array_equal(evaluated, open_digits(train_crop="center").arrays()["image"])


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(placement="resident"), "'random_resized' needs image_size > 0 and placement"),
        (dict(image_size=0), "'random_resized' needs image_size > 0 .* got image_size=0"),
        (dict(train_crop="five"), "unknown train_crop 'five'; known: center, random_resized"),
        (dict(resize_size=8), "resize_size must be 0 or at least image_size=12 > 0, got 8"),
    ],
)
def test_options_that_do_not_fit(open_digits, options, message):
    with pytest.raises(ValueError, match=message):
        open_digits(**options)
