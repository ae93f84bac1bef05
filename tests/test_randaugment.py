"""RandAugment's operations against Pillow on photographs, and what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import randaugment
from fixed_head_jax.augment.randaugment import OPERATIONS, WARPS

pytestmark = pytest.mark.slow  # most of it compiles

FILL = (124, 116, 104)
apply = jax.jit(randaugment.apply, static_argnums=(2, 3))
draw_operations = jax.jit(randaugment.draw_operations, static_argnums=(1, 2, 3, 4))


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_images(count, channels=3):
    shape = (count, 6, 5, channels)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def make_draw(operation, magnitude=9.0, sign=1.0, is_cubic=False):
    index = jnp.asarray(OPERATIONS.index(operation))
    magnitude, sign = jnp.asarray(magnitude), jnp.asarray(sign)
    return randaugment.Draw(index, jnp.asarray(True), magnitude, sign, jnp.asarray(is_cubic))


def by_pillow(image, operation, magnitude, sign, is_cubic):
    """Does an operation, with the levels of the specification's section 7.3."""
    width, height = image.size
    share = sign * magnitude / 10
    mask = 256 - 2 ** (4 + int(4 * magnitude / 10))
    posterized = [level & mask for level in range(256)]
    added = [level + int(11 * magnitude) * (level < 128) for level in range(256)]
    method = Image.Resampling.BICUBIC if is_cubic else Image.Resampling.BILINEAR

    def affine(*numbers):
        return image.transform(image.size, Image.Transform.AFFINE, numbers, method, fillcolor=FILL)

    def enhance(enhancer):
        return enhancer(image).enhance(1 + sign * 0.09 * magnitude)

    return {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: image.point(posterized * 3),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(25.6 * magnitude)),
        "solarize_add": lambda: image.point(np.minimum(added, 255).tolist() * 3),
        "brightness": lambda: enhance(ImageEnhance.Brightness),
        "contrast": lambda: enhance(ImageEnhance.Contrast),
        "color": lambda: enhance(ImageEnhance.Color),
        "sharpness": lambda: enhance(ImageEnhance.Sharpness),
        "rotate": lambda: image.rotate(30 * share, method, fillcolor=FILL),
        "shear_x": lambda: affine(1, 0.3 * share, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, 0.3 * share, 1, 0),
        "translate_x": lambda: affine(1, 0, 0.45 * share * width, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, 0.45 * share * height),
    }[operation]()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_match_pillow(operation):
    flower, china = (load_sample_image(name)[::8, ::8] for name in ("flower.jpg", "china.jpg"))
    for photograph in (flower, china, china // 3 + 40):  # the last without extreme levels
        for magnitude in (0.0, 5.0, 9.0, 9.5, 10.0):
            for sign in (1.0, -1.0):
                for is_cubic in (False, True) if operation in WARPS else (False,):
                    settings = (operation, magnitude, sign, is_cubic)
                    ours = apply(photograph, make_draw(*settings), FILL, True)
                    expected = by_pillow(Image.fromarray(photograph), *settings)
                    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(expected))
                    # Pillow rounds whole levels down where float64 brings them just below.
                    assert difference.max() <= (operation in ("auto_contrast", *WARPS))
                    assert (difference > 0).mean() < 0.06


@pytest.mark.parametrize(
    "magnitude, bits, threshold, added",
    [(0.0, 4, 256, 0), (5.0, 2, 128, 55), (8.0, 1, 52, 88), (9.0, 1, 26, 99), (9.5, 1, 13, 104)],
)
def test_levels_of_the_specification(magnitude, bits, threshold, added):
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(16, 16, 1)

    def becomes(operation):
        return np.asarray(apply(levels, make_draw(operation, magnitude), (0,))).ravel().astype(int)

    assert len(np.unique(becomes("posterize"))) == 2**bits
    np.testing.assert_array_equal(becomes("solarize")[:threshold], np.arange(threshold))
    np.testing.assert_array_equal(becomes("solarize")[threshold:], np.arange(256 - threshold)[::-1])
    expected = np.minimum(np.arange(128) + added, 255)
    np.testing.assert_array_equal(becomes("solarize_add")[:128], expected)


def test_a_pixel_of_the_specification():
    pixel = jnp.asarray([200, 100, 37], jnp.uint8).reshape(1, 1, 3)
    for operation, expected in (("posterize", [128, 0, 0]), ("solarize", [55, 155, 218])):
        np.testing.assert_array_equal(apply(pixel, make_draw(operation), FILL)[0, 0], expected)


@pytest.mark.parametrize("is_cubic", [False, True])
def test_a_row_of_the_specification(is_cubic):
    row = jnp.asarray([10, 20, 30, 40, 50], jnp.uint8).reshape(1, 5, 1)
    places = jnp.full((1, 5), 0.5), jnp.arange(5.0)[None] + 2.5
    shifted = randaugment.warp(row, places, jnp.asarray(is_cubic), (7,))
    np.testing.assert_array_equal(shifted.ravel(), [30, 40, 50, 7, 7])


def test_posterize_keeps_a_bit_but_as_published():
    image = jnp.asarray(make_images(1)[0])
    published = apply(image, make_draw("posterize", 10.0), FILL, True)
    assert not np.asarray(published).any()
    corrected = apply(image, make_draw("posterize", 10.0), FILL)
    np.testing.assert_array_equal(corrected, np.asarray(image) & 128)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_grey_flat_and_tiny_images(operation):
    fills = {1: (7,), 3: FILL}
    for shape in ((6, 5, 1), (2, 2, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        assert apply(image, make_draw(operation), fills[shape[2]]).shape == shape
    flat = np.full((6, 5, 3), 90, np.uint8)
    expected = by_pillow(Image.fromarray(flat), operation, 9.0, -1.0, True)
    ours = apply(flat, make_draw(operation, 9.0, -1.0, True), FILL)
    np.testing.assert_array_equal(ours, expected)


def test_draws_are_even_and_independent():
    draws = draw_operations(make_rngs(3000), 2, 9.0, 0.5, 0.5)
    for turn in range(2):
        counts = np.bincount(draws.operation[:, turn], minlength=15)
        assert counts.shape == (15,) and stats.chisquare(counts).pvalue > 0.001
    for half in (draws.is_applied, draws.is_cubic, draws.sign > 0):
        assert abs(half.mean() - 0.5) < 0.024  # 3.7 standard deviations of 6000
    assert set(np.unique(draws.sign)) == {-1, 1}
    magnitudes = np.asarray(draws.magnitude).ravel()
    assert magnitudes.max() == 10 and abs((magnitudes == 10).mean() - 0.0228) < 0.008
    below = magnitudes[magnitudes < 10]
    assert stats.kstest(below, stats.truncnorm(-18, 2, 9, 0.5).cdf).pvalue > 0.001
    columns = [np.asarray(leaf[:, turn], float) for leaf in draws for turn in range(2)]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.075  # 4 standard deviations


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # one image after the other, and side by side
def test_operations_run_in_the_order_drawn(backend, monkeypatch):
    rngs, images = make_rngs(16), make_images(16)
    options = dict(magnitude=8.0, magnitude_std=1.0, probability=0.7)
    draws = jax.device_get(draw_operations(rngs, 2, *options.values()))
    expected = list(images)
    for i in range(16):
        for turn in range(2):
            draw = randaugment.Draw(*(jnp.asarray(leaf[i, turn]) for leaf in draws))
            if draw.is_applied:
                expected[i] = apply(expected[i], draw, FILL)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    out = jax.jit(lambda *arrays: randaugment.randaugment(*arrays, **options))(rngs, images)
    assert out.dtype == jnp.uint8
    np.testing.assert_array_equal(out, expected)


def test_what_is_not_applied_leaves_images_as_they_are():
    images = jnp.asarray(make_images(3))
    out = randaugment.randaugment(make_rngs(3), images, num_operations=0)
    np.testing.assert_array_equal(out, images)
    draw = make_draw("invert")._replace(is_applied=jnp.asarray(False))
    np.testing.assert_array_equal(apply(images[0], draw, FILL), images[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(fill=(1, 2)), "fill must be a level 0 ... 255 for each of 3"),
        (dict(fill=(1, 2, 256)), "fill must be a level 0 ... 255 for each of 3"),
        (dict(num_operations=-1), "num_operations must be >= 0, got -1"),
        (dict(magnitude=11.0), "magnitude must be in 0 ... 10, got 11.0"),
        (dict(magnitude_std=-0.5), "magnitude_std must be >= 0, got -0.5"),
        (dict(probability=1.5), "probability must be in 0 ... 1, got 1.5"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        randaugment.randaugment(make_rngs(1), jnp.asarray(make_images(1)), **arguments)


def test_rejects_other_channels():
    with pytest.raises(ValueError, match="one channel or three, got 4"):
        randaugment.randaugment(make_rngs(1), jnp.asarray(make_images(1, 4)), fill=(0, 0, 0, 0))
