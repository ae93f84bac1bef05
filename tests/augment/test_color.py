"""Changes of colour against pillow and colorsys, and the laws they are drawn by."""

import collections
import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import color, geometry
from tests.augment.images import MEAN, STD, make_images, make_rngs

adjust_hue = jax.jit(color.adjust_hue)
random_grey = jax.jit(color.random_grey, static_argnums=2)
solarize = jax.jit(color.solarize, static_argnums=(2, 3))
jitter = jax.jit(color.jitter, static_argnums=(2, 3, 4, 5, 6))


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


def test_each_change_is_drawn_by_itself():
    images, rngs = color.to_float(jnp.asarray(make_images(400, 2, 2))), make_rngs(400)
    changed = [
        random_grey(rngs, images, 0.5),
        solarize(rngs, images, 0.5, 0.0),
        jitter(rngs, images, 0.4, 0.0, 0.0, 0.0, 0.5),
        jax.jit(geometry.flip)(rngs, images),
    ]
    is_changed = [(np.asarray(out) != np.asarray(images)).any((1, 2, 3)) for out in changed]
    np.testing.assert_allclose(np.mean(is_changed, axis=1), 0.5, atol=0.1)  # 4 deviations
    correlations = np.corrcoef(np.asarray(is_changed, float)) - np.eye(4)
    assert np.abs(correlations).max() < 0.2


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
