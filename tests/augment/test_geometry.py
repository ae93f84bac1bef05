"""Crops, flips and boxes against numpy, pillow and the laws they are drawn by."""

import collections
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import geometry
from fixed_head_jax.data import crops
from tests.augment.images import SHAPE, make_images, make_rngs

pad_and_crop = jax.jit(geometry.pad_and_crop, static_argnums=2)
flip = jax.jit(geometry.flip)
random_resized_crop = jax.jit(geometry.random_resized_crop, static_argnums=(2, 3, 4, 5))
random_boxes = jax.jit(geometry.random_boxes, static_argnums=(1, 2, 3))
resize_boxes = jax.jit(geometry.resize_boxes, static_argnums=(2, 3))


def crop_positions(images, cropped, padding):
    """Finds by search where in the padded image each crop lies."""
    height, width = images.shape[1:3]
    side = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    found = []
    for image, crop in zip(np.pad(images, side), cropped, strict=True):
        matches = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if np.array_equal(image[top : top + height, left : left + width], crop)
        ]
        assert len(matches) == 1
        found += matches
    return found


def test_crops_are_uniform_windows_of_the_padded_image():
    images = make_images(2500)
    cropped = np.asarray(pad_and_crop(make_rngs(2500), images, 2))
    counts = collections.Counter(crop_positions(images, cropped, 2))
    assert len(counts) == 25
    chi_square = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_square < 51.2  # 99.9% point at 24 degrees of freedom


def test_flips_half_into_exact_mirrors():
    images = make_images(2500)
    flipped = np.asarray(flip(make_rngs(2500), images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.5) < 0.04  # 4 standard deviations


def test_flip_and_crop_are_independent():
    images = make_images(2500)
    cropped = np.asarray(pad_and_crop(make_rngs(2500), images, 2))
    left = np.array([position[1] for position in crop_positions(images, cropped, 2)])
    flipped = np.asarray(flip(make_rngs(2500), images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert abs(np.corrcoef(left, mirrored)[0, 1]) < 0.075


def test_other_keys_give_other_crops():
    images = make_images(2500)
    first, second = (pad_and_crop(make_rngs(2500, seed), images, 2) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_geometry_keeps_dtype_and_shape(dtype):
    images = jax.ShapeDtypeStruct((3, *SHAPE), dtype)
    for function in (partial(geometry.pad_and_crop, padding=4), geometry.flip):
        out = jax.eval_shape(function, make_rngs(3), images)
        assert (out.shape, out.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("height, width", [(300, 400), (32, 32), (213, 64)])
def test_boxes_are_those_of_the_host(height, width):
    draws = np.random.default_rng(0).random((1500, 10, 4), np.float32)
    boxes = np.asarray(random_boxes(draws, height, width))
    draws = draws.reshape(1500, -1).astype(float)
    expected = np.array([crops.random_box(height, width, one) for one in draws])
    # float32 rounds another way where a side is half a pixel or a place a whole one.
    assert (boxes == expected).all(1).mean() > 0.998
    assert np.abs(boxes - expected).max() <= 1


def test_boxes_where_no_attempt_fits():
    too_wide = np.tile(np.float32([0.999, 0.999, 0, 0]), (1, 10, 1))
    for height, width in ((300, 100), (90, 80)):
        expected = crops.random_box(height, width, too_wide.ravel().astype(float))
        np.testing.assert_array_equal(random_boxes(too_wide, height, width)[0], expected)


def test_box_of_the_specification():
    half_wide = jnp.asarray([[[0.5, 1.0, 0.0, 0.0]]])
    box = random_boxes(half_wide, 375, 500, (0.25, 0.75))
    np.testing.assert_array_equal(box, [[0, 0, 265, 354]])


@pytest.mark.slow
def test_random_resized_crop_draws_areas_aspects_and_places_evenly():
    # The pixels are their own coordinates, so that a crop's corner means tell its box.
    rows, columns = np.mgrid[:128, :128].astype(np.float32)
    images = jnp.tile(jnp.asarray(np.stack([rows, columns], -1))[None], (1500, 1, 1, 1))
    out = np.asarray(random_resized_crop(make_rngs(1500), images, 2, (0.05, 0.4)))
    # The centroids of the two cut-off triangles over a side lie 17 / 42 of its length apart.
    box_height = (out[:, 1, 0, 0] - out[:, 0, 0, 0]) * 42 / 17
    box_width = (out[:, 0, 1, 1] - out[:, 0, 0, 1]) * 42 / 17
    share = box_height * box_width / 128**2
    assert stats.kstest(share, stats.uniform(0.05, 0.35).cdf).pvalue > 0.001
    span = np.log(4 / 3)
    aspect = np.log(box_width / box_height)
    assert stats.kstest(aspect, stats.uniform(-span, 2 * span).cdf).pvalue > 0.001
    for axis, length in enumerate((box_height, box_width)):
        start = out[:, :, :, axis].mean((1, 2)) - length / 2 + 0.5
        place = (start + 0.5) / (128 - length + 1)
        assert stats.kstest(place, stats.uniform.cdf).pvalue > 0.001


@pytest.mark.parametrize("method, most, share", [("bilinear", 1, 1.0), ("bicubic", 10, 0.98)])
@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
def test_resized_boxes_match_pillow(name, method, most, share):
    photograph = load_sample_image(name)[::4, ::4]
    height, width = photograph.shape[:2]
    boxes = [(0, 0, height, width), (20, 31, 40, 77), (50, 50, 32, 32), (50, 60, 20, 13)]
    images = jnp.tile(jnp.asarray(photograph)[None], (len(boxes), 1, 1, 1))
    ours = np.asarray(resize_boxes(images, jnp.asarray(boxes, jnp.int32), 32, method)).astype(int)
    photograph = Image.fromarray(photograph)
    for out, (top, left, height, width) in zip(ours, boxes, strict=True):
        box = photograph.crop((left, top, left + width, top + height))
        expected = box.resize((32, 32), getattr(Image.Resampling, method.upper()))
        # Pillow rounds, and clips the overshoots of cubics, between the two directions too.
        difference = np.abs(out - np.asarray(expected))
        assert difference.max() <= most and (difference <= 1).mean() >= share


@pytest.mark.slow
def test_random_resized_crop_of_everything_is_the_image():
    images = make_images(3, 8, 8)
    out = random_resized_crop(make_rngs(3), images, 8, (1.0, 1.0), (1.0, 1.0))
    np.testing.assert_array_equal(out, images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(scale=(0.0, 1.0)), "scale must be a range of shares"),
        (dict(scale=(0.5, 1.1)), "scale must be a range of shares"),
        (dict(ratio=(2.0, 1.0)), "ratio must be a range of numbers > 0"),
        (dict(method="nearest"), "method must be one of .* got 'nearest'"),
    ],
)
def test_random_resized_crop_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        crop = partial(geometry.random_resized_crop, size=4, **arguments)
        jax.eval_shape(crop, make_rngs(1), jax.ShapeDtypeStruct((1, 6, 5, 3), jnp.float32))
