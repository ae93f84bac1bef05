"""Augmentations against numpy, and each example independent of the rest of its batch."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from fixed_head_jax import augment
from fixed_head_jax.augment import color, geometry

MEAN, STD = (0.1, 0.45, 0.8), (0.2, 0.25, 0.5)
EVERYTHING = dict(pad_crop=2, flip=True, brightness=0.4, contrast=0.3, saturation=0.5, lighting=0.1)
pad_and_crop = jax.jit(geometry.pad_and_crop, static_argnums=2)


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_images(count, height=6, width=5, channels=3):
    shape = (count, height, width, channels)
    return np.random.default_rng(1).integers(1, 256, shape).astype(np.uint8)


def crop_positions(images, crops, padding):
    """Finds by search where in the padded image each crop lies."""
    height, width = images.shape[1:3]
    side = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    found = []
    for image, crop in zip(np.pad(images, side), crops, strict=True):
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
    crops = np.asarray(pad_and_crop(make_rngs(2500), images, 2))
    counts = collections.Counter(crop_positions(images, crops, 2))
    assert len(counts) == 25
    chi_square = sum((count - 100) ** 2 / 100 for count in counts.values())
    assert chi_square < 51.2  # 99.9% point at 24 degrees of freedom


def test_flips_half_into_exact_mirrors():
    images = make_images(2000)
    flipped = np.asarray(jax.jit(geometry.flip)(make_rngs(2000), images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.mean() - 0.5) < 0.04  # 3.6 standard deviations


def test_flip_and_crop_are_independent():
    images = make_images(2000)
    crops = np.asarray(pad_and_crop(make_rngs(2000), images, 1))
    left = np.array([position[1] for position in crop_positions(images, crops, 1)])
    flipped = np.asarray(geometry.flip(make_rngs(2000), jnp.asarray(images)))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert abs(np.corrcoef(left, mirrored)[0, 1]) < 0.08


def test_other_keys_give_other_crops():
    images = make_images(64)
    first, second = (pad_and_crop(make_rngs(64, seed), images, 2) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_an_example_does_not_depend_on_its_batch():
    train_augment, _ = augment.make_augment(MEAN, STD, **EVERYTHING)
    rngs, images = make_rngs(8), jnp.asarray(make_images(8))
    whole = train_augment(rngs, images)
    for i in range(8):
        alone = train_augment(rngs[i : i + 1], images[i : i + 1])
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_geometry_keeps_dtype_and_shape(dtype):
    images = jnp.asarray(make_images(3), dtype)
    for out in (
        geometry.pad_and_crop(make_rngs(3), images, 4),
        geometry.flip(make_rngs(3), images),
    ):
        assert (out.shape, out.dtype) == (images.shape, images.dtype)


def test_normalize_matches_numpy():
    images = make_images(4)
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    out = color.normalize(color.to_float(jnp.asarray(images)), MEAN, STD)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_one_mean_and_std_serve_all_channels():
    images = color.to_float(jnp.asarray(make_images(2)))
    one, each = (color.normalize(images, (0.5,) * n, (0.25,) * n) for n in (1, 3))
    np.testing.assert_array_equal(one, each)


def test_jit_equals_no_jit_and_compiles_once():
    train_augment, eval_augment = augment.make_augment(MEAN, STD, **EVERYTHING)
    images = jnp.asarray(make_images(4))
    jitted = jax.jit(train_augment)
    for seed in (0, 1):
        rngs = make_rngs(4, seed)
        np.testing.assert_allclose(jitted(rngs, images), train_augment(rngs, images), atol=1e-6)
    assert jitted._cache_size() == 1
    np.testing.assert_allclose(jax.jit(eval_augment)(images), eval_augment(images), atol=1e-6)


def test_no_augmentation_equals_eval():
    train_augment, eval_augment = augment.make_augment(MEAN, STD)
    images = jnp.asarray(make_images(4))
    np.testing.assert_array_equal(train_augment(make_rngs(4), images), eval_augment(images))


ENHANCERS = {
    color.adjust_brightness: ImageEnhance.Brightness,
    color.adjust_contrast: ImageEnhance.Contrast,
    color.adjust_saturation: ImageEnhance.Color,
}


@pytest.mark.parametrize("adjust", ENHANCERS)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 2.0])
def test_colour_changes_match_pillow(adjust, factor):
    photograph = load_sample_image("flower.jpg")[::4, ::4]
    enhanced = ENHANCERS[adjust](Image.fromarray(photograph)).enhance(factor)
    ours = adjust(color.to_float(jnp.asarray(photograph)[None])[0], jnp.asarray(factor))
    difference = np.abs(255 * np.asarray(ours) - np.asarray(enhanced, np.float32))
    # Pillow rounds the luma and then the result down to whole levels.
    assert difference.max() <= 1 + abs(1 - factor)
    assert difference.mean() < 0.75


def test_jitter_draws_factors_and_orders_evenly():
    images = jnp.tile(jnp.asarray([0.3, 0.5, 0.4]), (3000, 1, 1, 1))
    bright = jax.jit(color.jitter, static_argnums=(2, 3, 4))(make_rngs(3000), images, 0.4, 0.0, 0.0)
    factors = np.asarray(bright / images)[:, 0, 0]
    np.testing.assert_allclose(factors[:, 0], factors[:, 2], rtol=1e-5)
    counts, _ = np.histogram(factors[:, 0], np.linspace(0.6, 1.4, 11))
    assert counts.sum() == 3000
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # 99.9% point at 9 degrees of freedom
    strong = jax.jit(color.jitter, static_argnums=(2, 3, 4))(make_rngs(3000), images, 5.0, 0.0, 0.0)
    assert strong.min() >= 0 and strong.max() == 1  # a factor is at least 0, a pixel at most 1


def test_jitter_takes_every_order(monkeypatch):
    def adds(digit):
        return lambda image, factor: 10 * image + digit

    for digit, name in enumerate(("adjust_brightness", "adjust_contrast", "adjust_saturation")):
        monkeypatch.setattr(color, name, adds(digit + 1))
    out = color.jitter(make_rngs(1200), jnp.zeros((1200, 1, 1, 1)), 0.1, 0.1, 0.1).ravel()
    counts = collections.Counter(np.asarray(out).astype(int).tolist())
    assert set(counts) == {123, 132, 213, 231, 312, 321}
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20.5  # 5 degrees


def test_jitter_is_the_same_image_by_image_and_side_by_side(monkeypatch):
    images, rngs = color.to_float(jnp.asarray(make_images(6))), make_rngs(6)
    in_turn = color.jitter(rngs, images, 0.4, 0.3, 0.5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(color.jitter(rngs, images, 0.4, 0.3, 0.5), in_turn, atol=1e-6)


def test_jitter_of_grey_images():
    images = color.to_float(jnp.asarray(make_images(5, channels=1)))
    out = color.jitter(make_rngs(5), images, 0.4, 0.4, 0.4)
    assert out.shape == images.shape and not np.array_equal(out, images)
    np.testing.assert_allclose(color.jitter(make_rngs(5), images, 0.0, 0.0, 0.4), images, atol=1e-6)


def test_lighting_offsets_of_the_specification():
    offsets = color.lighting_offsets(jnp.array([[0.1, -0.2, 0.05]]))
    np.testing.assert_allclose(offsets, [[-0.01495711, -0.01279863, -0.00998628]], atol=1e-7)


def test_lighting_adds_one_offset_per_image_and_channel():
    images = color.to_float(jnp.asarray(make_images(4000)))
    added = np.asarray(color.lighting(make_rngs(4000), images, 0.1) - images)
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-6)
    scaled = np.array(color._COMPONENTS) * color._DEVIATIONS * 0.1
    np.testing.assert_allclose(np.cov(added[:, 0, 0].T), scaled @ scaled.T, rtol=0.1, atol=1e-6)
    with pytest.raises(ValueError, match="3 channels, got 1; set augment.lighting=0"):
        color.lighting(make_rngs(2), jnp.zeros((2, 4, 4, 1)), 0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(mean=(0.5,), std=(0.5, 0.5)), "one value per channel"),
        (dict(mean=(0.5,), std=(0.0,)), "std must be > 0"),
        (dict(mean=(), std=()), "std must be > 0"),
        (dict(mean=(0.5,), std=(0.5,), pad_crop=-1), "pad_crop must be >= 0 .* got -1"),
        (dict(mean=(0.5,), std=(0.5,), contrast=-0.4), "contrast must be >= 0 .* got -0.4"),
        (dict(mean=(0.5,), std=(0.5,), lighting=-1.0), "lighting must be >= 0 .* got -1.0"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        augment.make_augment(**arguments)


def test_rejects_other_channels():
    with pytest.raises(ValueError, match="each of the 3 channels"):
        color.normalize(color.to_float(jnp.asarray(make_images(2))), (0.5, 0.5), (0.5,))
