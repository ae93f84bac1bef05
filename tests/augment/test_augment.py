"""Augmentations against numpy, and the pipeline as the stages in a row."""

import collections
import colorsys
import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_image

from configs import common
from fixed_head_jax import augment
from fixed_head_jax.augment import Options, blur, color, geometry, make_augment, mix
from fixed_head_jax.data import crops

MEAN, STD = (0.1, 0.45, 0.8), (0.2, 0.25, 0.5)
SHAPE = (6, 5, 3)
COLORS = dict(
    brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1, jitter_probability=0.8,
    grey_probability=0.3, blur_probability=0.5, blur_sigma=(0.2, 0.5), solarize_probability=0.4,
    solarize_threshold=0.6, lighting=0.1,
)  # fmt: skip
MIXING = dict(mixup=0.4, cutmix=1.0, mix_probability=0.9, mix_switch_probability=0.3)
EVERYTHING = Options(
    pad_crop=2, flip=True, **COLORS, **MIXING, erase_probability=0.5, erase_fill="rand"
)
pad_and_crop = jax.jit(geometry.pad_and_crop, static_argnums=2)
flip = jax.jit(geometry.flip)
random_resized_crop = jax.jit(geometry.random_resized_crop, static_argnums=(2, 3, 4, 5))
random_boxes = jax.jit(geometry.random_boxes, static_argnums=(1, 2, 3))
resize_boxes = jax.jit(geometry.resize_boxes, static_argnums=(2, 3))
adjust_hue = jax.jit(color.adjust_hue)
random_grey = jax.jit(color.random_grey, static_argnums=2)
solarize = jax.jit(color.solarize, static_argnums=(2, 3))
jitter = jax.jit(color.jitter, static_argnums=(2, 3, 4, 5, 6))


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_images(count, height=6, width=5, channels=3):
    shape = (count, height, width, channels)
    return np.random.default_rng(1).integers(1, 256, shape).astype(np.uint8)


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


def test_normalize_matches_numpy():
    images = make_images(4)
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    out = color.normalize(color.to_float(jnp.asarray(images)), MEAN, STD)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_one_mean_and_std_serve_all_channels():
    images = color.to_float(jnp.asarray(make_images(2)))
    one, each = (color.normalize(images, (0.5,) * n, (0.25,) * n) for n in (1, 3))
    np.testing.assert_array_equal(one, each)


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


@pytest.mark.slow
def test_jitter_draws_factors_and_orders_evenly():
    images = jnp.tile(jnp.asarray([0.3, 0.5, 0.4]), (3000, 1, 1, 1))
    bright = jitter(make_rngs(3000), images, 0.4, 0.0, 0.0)
    factors = np.asarray(bright / images)[:, 0, 0]
    np.testing.assert_allclose(factors[:, 0], factors[:, 2], rtol=1e-5)
    counts, _ = np.histogram(factors[:, 0], np.linspace(0.6, 1.4, 11))
    assert counts.sum() == 3000
    assert ((counts - 300) ** 2 / 300).sum() < 27.9  # 99.9% point at 9 degrees of freedom
    strong = jitter(make_rngs(3000), images, 5.0, 0.0, 0.0)
    assert strong.min() >= 0 and strong.max() == 1  # a factor is at least 0, a pixel at most 1


@pytest.mark.slow
def test_jitter_takes_every_order(monkeypatch):
    def adds(digit):
        return lambda image, factor: 10 * image + digit

    for digit, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        monkeypatch.setattr(color, f"adjust_{name}", adds(digit + 1))
    for hue, expected in ((0.0, "123"), (0.1, "1234")):

        def digits(rngs, images, hue=hue):
            return color.jitter(rngs, images, 0.1, 0.1, 0.1, hue).ravel()

        out = jax.jit(digits)(make_rngs(2400), jnp.zeros((2400, 1, 1, 1)))
        counts = collections.Counter(np.asarray(out).astype(int).tolist())
        orders = {int("".join(order)) for order in itertools.permutations(expected)}
        assert set(counts) == orders
        assert stats.chisquare(list(counts.values())).pvalue > 0.001


@pytest.mark.slow
def test_jitter_of_grey_images():
    images = color.to_float(jnp.asarray(make_images(5, channels=1)))
    out = jitter(make_rngs(5), images, 0.4, 0.4, 0.4)
    assert out.shape == images.shape and not np.array_equal(out, images)
    np.testing.assert_allclose(jitter(make_rngs(5), images, 0.0, 0.0, 0.4), images, atol=1e-6)


@pytest.mark.parametrize("shift", [-0.5, -0.21, 0.0, 0.1, 0.5])
def test_hue_matches_colorsys(shift):
    pixels = load_sample_image("flower.jpg")[::16, ::16].reshape(-1, 3) / 255
    corners = np.array(list(itertools.product((0.0, 0.5, 1.0), repeat=3)))  # greys, ties, extremes
    pixels = np.concatenate([pixels, corners])
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels]
    expected = [colorsys.hsv_to_rgb((h + shift) % 1.0, s, v) for h, s, v in hsv]
    ours = adjust_hue(jnp.asarray(pixels[None], jnp.float32), jnp.asarray(shift))[0]
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_hue_is_near_that_of_pillow():
    photograph = load_sample_image("flower.jpg")[::4, ::4]
    hsv = np.array(Image.fromarray(photograph).convert("HSV"))
    hsv[..., 0] += 51  # of 255
    expected = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), np.float32)
    ours = 255 * adjust_hue(color.to_float(jnp.asarray(photograph)[None])[0], jnp.asarray(0.2))
    difference = np.abs(np.asarray(ours) - expected)
    # Pillow rounds hue and saturation down to 256 levels; one of hue is 6 of a channel.
    assert difference.max() < 10 and difference.mean() < 1


@pytest.mark.slow
def test_jitter_draws_hues_evenly():
    images = jnp.tile(jnp.asarray([1.0, 0.0, 0.0]), (2000, 1, 1, 1))
    out = np.asarray(jitter(make_rngs(2000), images, 0.0, 0.0, 0.0, 0.1))[:, 0, 0]
    np.testing.assert_allclose(out[:, 0], 1.0, atol=1e-6)
    shifts = (out[:, 1] - out[:, 2]) / 6  # red turns towards yellow or towards magenta
    assert stats.kstest(shifts, stats.uniform(-0.1, 0.2).cdf).pvalue > 0.001


@pytest.mark.slow
def test_jitter_side_by_side_equals_one_after_the_other(monkeypatch):
    rngs, images = make_rngs(16), color.to_float(jnp.asarray(make_images(16)))
    expected = jitter(rngs, images, 0.4, 0.3, 0.2, 0.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    out = jax.jit(lambda *arrays: color.jitter(*arrays, 0.4, 0.3, 0.2, 0.1))(rngs, images)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.slow
def test_jitter_leaves_images_as_they_are_at_its_probability():
    images = color.to_float(jnp.asarray(make_images(2000, 2, 2)))
    some = jitter(make_rngs(2000), images, 0.4, 0.0, 0.0, 0.0, 0.8)
    whole = jitter(make_rngs(2000), images, 0.4, 0.0, 0.0)
    kept = (np.asarray(some) == np.asarray(images)).all((1, 2, 3))
    assert abs(kept.mean() - 0.2) < 0.033  # 3.7 standard deviations
    np.testing.assert_array_equal(some[~kept], whole[~kept])


@pytest.mark.slow
def test_random_grey_replaces_a_share_by_the_luma():
    images = make_images(2000, 3, 2)
    out = np.asarray(random_grey(make_rngs(2000), color.to_float(jnp.asarray(images)), 0.2))
    changed = (out != np.asarray(color.to_float(jnp.asarray(images)))).any((1, 2, 3))
    assert abs(changed.mean() - 0.2) < 0.033
    luma = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])[
        ..., None
    ]
    difference = 255 * out[changed] - luma[changed]
    assert np.abs(difference).max() < 0.51  # Pillow rounds
    one_channel = color.to_float(jnp.asarray(images[..., :1]))
    np.testing.assert_array_equal(color.random_grey(make_rngs(2000), one_channel, 1.0), one_channel)


@pytest.mark.parametrize("level", [0, 1, 128, 200, 255])
def test_solarize_matches_pillow(level):
    photograph = load_sample_image("china.jpg")[::8, ::8]
    expected = ImageOps.solarize(Image.fromarray(photograph), level)
    images = color.to_float(jnp.asarray(photograph)[None])
    ours = solarize(make_rngs(1), images, 1.0, level / 255)
    np.testing.assert_allclose(255 * ours[0], expected, atol=1e-3)


@pytest.mark.slow
def test_solarize_draws_a_share():
    images = color.to_float(jnp.asarray(make_images(2000, 2, 2)))
    out = solarize(make_rngs(2000), images, 0.2, 0.0)
    changed = (np.asarray(out) != np.asarray(images)).any((1, 2, 3))
    assert abs(changed.mean() - 0.2) < 0.033
    # 0.5 splits the 256 levels where 128 does.
    levels = color.to_float(jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1))
    halves = 255 * color.solarize(make_rngs(1), levels, 1.0).ravel()
    expected = [level if level < 128 else 255 - level for level in range(256)]
    np.testing.assert_allclose(halves, expected, atol=1e-4)


def test_lighting_offsets_of_the_specification():
    offsets = color.lighting_offsets(jnp.array([[0.1, -0.2, 0.05]]))
    np.testing.assert_allclose(offsets, [[-0.01495711, -0.01279863, -0.00998628]], atol=1e-7)


@pytest.mark.slow
def test_lighting_adds_one_offset_per_image_and_channel():
    images = color.to_float(jnp.asarray(make_images(4000)))
    added = np.asarray(
        jax.jit(color.lighting, static_argnums=2)(make_rngs(4000), images, 0.1) - images
    )
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-6)
    scaled = np.array(color._COMPONENTS) * color._DEVIATIONS * 0.1
    np.testing.assert_allclose(np.cov(added[:, 0, 0].T), scaled @ scaled.T, rtol=0.1, atol=1e-6)
    with pytest.raises(ValueError, match="3 channels, got 1; set augment.lighting=0"):
        color.lighting(make_rngs(2), jnp.zeros((2, 4, 4, 1)), 0.1)


def test_rejects_other_channels():
    with pytest.raises(ValueError, match="each of the 3 channels"):
        color.normalize(color.to_float(jnp.asarray(make_images(2))), (0.5, 0.5), (0.5,))


# The pipeline.


def make_batch(count, shape=SHAPE):
    images = jnp.asarray(make_images(count, *shape))
    return {"image": images, "label": jnp.arange(count) % 4, "index": jnp.arange(count)}


def make_train_augment(options, shape=SHAPE, **arguments):
    return make_augment(shape, 4, MEAN[: shape[-1]], STD[: shape[-1]], options, **arguments)[0]


def test_the_config_has_every_option_at_its_default():
    assert dict(common.get_config().augment) == vars(Options())


@pytest.mark.slow
def test_the_pipeline_is_the_stages_in_the_documented_order():
    rngs, batch_rng, batch = make_rngs(8), jax.random.key(5), make_batch(8)

    @jax.jit
    def stages(rngs, batch_rng, batch):
        images = geometry.flip(rngs, geometry.pad_and_crop(rngs, batch["image"], 2))
        images = color.jitter(rngs, color.to_float(images), 0.4, 0.3, 0.5, 0.1, 0.8)
        images = blur.random_blur(rngs, color.random_grey(rngs, images, 0.3), 0.5, (0.2, 0.5))
        images = color.lighting(rngs, color.solarize(rngs, images, 0.4, 0.6), 0.1)
        shares = mix.draw_shares(batch_rng, 6, 5, 0.4, 1.0, 0.9, 0.3)
        images, targets = mix.mix(images, jax.nn.one_hot(batch["label"], 4), shares)
        return mix.erase(rngs, color.normalize(images, MEAN, STD), 0.5, "rand"), targets

    images, targets = stages(rngs, batch_rng, batch)
    out = jax.jit(make_train_augment(EVERYTHING))(rngs, batch_rng, batch)
    np.testing.assert_allclose(out["image"], images, atol=1e-5)
    np.testing.assert_allclose(out["targets"], targets, atol=1e-6)
    assert set(out) == {"image", "label", "index", "targets"}


def test_the_policy_comes_after_crop_and_flip(monkeypatch):
    def number(images):  # depends on where a pixel is
        return images + jnp.arange(images.shape[2], dtype=jnp.uint8)[None, None, :, None]

    monkeypatch.setattr(
        augment, "make_policy", lambda *_, **__: lambda rngs, images: number(images)
    )
    rngs, batch = make_rngs(8), make_batch(8)
    train_augment = make_train_augment(Options(flip=True, pad_crop=1, policy="trivial-wide"))
    out = jax.jit(train_augment)(rngs, jax.random.key(0), batch)["image"]
    images = number(geometry.flip(rngs, geometry.pad_and_crop(rngs, batch["image"], 1)))
    expected = color.normalize(color.to_float(images), MEAN, STD)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.slow
def test_crops_have_the_size_of_the_images():
    rngs, batch = make_rngs(4), make_batch(4, (6, 6, 3))
    train_augment = jax.jit(make_train_augment(Options(crop_scale=(0.3, 0.6)), (6, 6, 3)))
    out = train_augment(rngs, jax.random.key(0), batch)
    images = random_resized_crop(rngs, batch["image"], 6, (0.3, 0.6))
    expected = color.normalize(color.to_float(images), MEAN, STD)
    np.testing.assert_allclose(out["image"], expected, atol=1e-6)
    assert set(out) == set(batch)


def test_the_policy_changes_levels_and_fills_with_the_mean(monkeypatch):
    made = []

    def make_policy(name, fill, as_published):
        made.append((name, list(fill), as_published))
        return lambda rngs, images: 255 - images

    monkeypatch.setattr(augment, "make_policy", make_policy)
    batch = make_batch(4)
    options = Options(policy="rand-m9", policy_as_published=True)
    out = make_train_augment(options)(make_rngs(4), jax.random.key(0), batch)
    expected = color.normalize(color.to_float(255 - batch["image"]), MEAN, STD)
    np.testing.assert_array_equal(out["image"], expected)
    assert made == [("rand-m9", [26, 115, 204], True)]  # 255 times the mean


@pytest.mark.slow
def test_a_policy_runs_in_the_pipeline():
    options = Options(policy="rand-m9-mstd0.5-inc1")
    rngs, batch = make_rngs(32), make_batch(32, (8, 8, 3))
    train_augment = jax.jit(make_train_augment(options, (8, 8, 3)))
    out = np.asarray(train_augment(rngs, jax.random.key(0), batch)["image"])
    levels = 255 * (out * np.array(STD) + np.array(MEAN))
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    kept = np.abs(levels - np.asarray(batch["image"])).max((1, 2, 3)) < 0.1
    assert 0.05 < kept.mean() < 0.7  # two turns, each left out with probability 1/2


def test_mixing_ends_at_its_step_and_nothing_else_does():
    options = Options(mixup=1.0, flip=True)
    rngs, batch = make_rngs(4), make_batch(4)
    always = make_train_augment(options)(rngs, jax.random.key(0), batch)
    train_augment = jax.jit(make_train_augment(options, mix_steps=10))
    for step, expected in ((9, always), (10, None), (500, None)):
        out = train_augment(rngs, jax.random.key(0), batch, jnp.int32(step))
        if expected is None:
            unmixed = make_train_augment(replace(options, mixup=0.0))
            expected = unmixed(rngs, jax.random.key(0), batch)
            np.testing.assert_array_equal(out["targets"], jax.nn.one_hot(batch["label"], 4))
        np.testing.assert_allclose(out["image"], expected["image"], rtol=1e-6, atol=1e-6)
    assert train_augment._cache_size() == 1
    assert not np.array_equal(always["targets"], jax.nn.one_hot(batch["label"], 4))


def test_images_that_stay_in_levels_are_mixed_in_levels(monkeypatch):
    shares = lambda *_: jnp.full((1, 1), 0.7)  # noqa: E731
    monkeypatch.setattr(mix, "draw_shares", shares)
    images = jnp.asarray([10, 201], jnp.uint8).reshape(2, 1, 1, 1)
    batch = {"image": images, "label": jnp.array([0, 2])}
    for changes, levels in ((dict(), [67, 144]), (dict(contrast=1e-6), [67.3, 143.7])):
        train_augment, _ = make_augment(
            (1, 1, 1), 4, (0.485,), (0.229,), Options(mixup=0.2, **changes)
        )
        out = train_augment(make_rngs(2), jax.random.key(0), batch)
        expected = (np.array(levels) - 123.675) / 58.395
        np.testing.assert_allclose(out["image"].ravel(), expected, atol=1e-4)
        expected = [[0.7, 0, 0.3, 0], [0.3, 0, 0.7, 0]]
        np.testing.assert_allclose(out["targets"], expected, atol=1e-6)
    assert (67 - 123.675) / 58.395 == pytest.approx(-0.9705454, abs=1e-7)  # the specification's


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch():
    options = replace(EVERYTHING, mixup=0.0, cutmix=0.0)
    train_augment = jax.jit(make_train_augment(options))
    rngs, batch = make_rngs(4), make_batch(4)
    whole = train_augment(rngs, jax.random.key(0), batch)["image"]
    order = np.array([2, 0, 3, 1])
    other = jax.tree.map(lambda x: x[order], batch)
    out = train_augment(rngs[order], jax.random.key(1), other)["image"]
    np.testing.assert_allclose(out, whole[order], atol=1e-6)
    assert train_augment._cache_size() == 1


def test_no_augmentation_equals_eval():
    train_augment, eval_augment = make_augment(SHAPE, 4, MEAN, STD, Options())
    batch = make_batch(4)
    out = train_augment(make_rngs(4), jax.random.key(0), batch)
    np.testing.assert_array_equal(out["image"], eval_augment(batch["image"]))
    assert set(out) == set(batch)


def test_the_pipeline_takes_grey_images():
    options = replace(EVERYTHING, lighting=0.0)
    batch = jax.eval_shape(
        make_train_augment(options, (6, 5, 1)), make_rngs(2), jax.random.key(0),
        make_batch(2, (6, 5, 1)),
    )  # fmt: skip
    assert batch["image"].shape == (2, 6, 5, 1) and batch["image"].dtype == jnp.float32


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(mix_off_epoch=3), "mix_off_epoch=3.0 ends mixing, but augment.mixup and .* are 0"),
        (dict(crop_scale=(0.5, 1.0)), "augment.crop_scale needs square images, got 6 x 5"),
        (dict(crop_scale=(0.5, 1.0), pad_crop=4), "both crop; set one of them"),
        (dict(policy="rand-m9", hue=0.1), "takes the place of the jitter; set augment.hue=0"),
        (dict(policy="nope"), "augment.policy='nope'"),
    ],
)  # fmt: skip
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_train_augment(Options(**options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "mean, std, message",
    [
        ((0.5,), (0.5, 0.5), "one value per channel"),
        ((0.5,), (0.0,), "std > 0; got"),
        ((), (), "std > 0; got"),
        ((123.7, 116.0, 103.0), (58.0, 57.0, 57.0), "divide those of levels by 255"),
        ((0.5,), (float("nan"),), "std > 0; got"),
        ((0.5, 0.5), (0.5, 0.5), "each of the 3 channels"),
    ],
)
def test_rejects_statistics(mean, std, message):
    with pytest.raises(ValueError, match=message):
        make_augment(SHAPE, 4, mean, std, Options())


def test_rejects_what_needs_three_channels():
    with pytest.raises(ValueError, match="set augment.lighting=0"):
        make_augment((6, 5, 1), 4, (0.5,), (0.5,), Options(lighting=0.1))
