"""The blur against scipy and Pillow, and how often and how strongly it is drawn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage, stats
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import blur

gaussian_blur = jax.jit(blur.gaussian_blur, static_argnums=2)
random_blur = jax.jit(blur.random_blur, static_argnums=(2, 3))


def make_rngs(count):
    return jax.random.split(jax.random.key(0), count)


def test_blur_matches_scipy():
    photograph = load_sample_image("flower.jpg")[::8, ::12] / np.float32(255)
    sigma = [0.1, 0.8, 2.0]
    images = jnp.tile(jnp.asarray(photograph)[None], (3, 1, 1, 1))
    for kernel_size in (1, 5, 23):
        ours = gaussian_blur(images, jnp.asarray(sigma), kernel_size)
        for blurred, width in zip(ours, sigma, strict=True):
            expected = ndimage.gaussian_filter(
                photograph, width, mode="mirror", radius=kernel_size // 2, axes=(0, 1)
            )
            np.testing.assert_allclose(blurred, expected, atol=1e-6)


def test_blur_is_near_that_of_pillow():
    photograph = load_sample_image("flower.jpg")[::4, ::4]
    images = jnp.asarray(photograph, jnp.float32)[None] / 255
    for radius in (0.5, 1.0, 2.0):  # Pillow repeats three box filters
        expected = Image.fromarray(photograph).filter(ImageFilter.GaussianBlur(radius))
        ours = 255 * gaussian_blur(images, jnp.asarray([radius]), 23)[0]
        difference = np.abs(np.asarray(ours) - np.asarray(expected, np.float32))[8:-8, 8:-8]
        assert difference.mean() < 1 and difference.max() < 12


@pytest.mark.slow
def test_random_blur_draws_widths_evenly():
    impulse = jnp.zeros((1000, 9, 9, 1)).at[:, 4, 4].set(1.0)
    out = np.asarray(random_blur(make_rngs(1000), impulse, 0.5, (0.5, 1.0)))[..., 0]
    blurred = out[:, 4, 4] < 1
    assert abs(blurred.mean() - 0.5) < 0.055
    # One step beside the centre the Gaussian has fallen by exp(-1 / (2 sigma^2)).
    ratio = out[blurred, 4, 5] / out[blurred, 4, 4]
    sigma = np.sqrt(-0.5 / np.log(ratio))
    assert stats.kstest(sigma, stats.uniform(0.5, 0.5).cdf).pvalue > 0.001


@pytest.mark.parametrize("height, width, reach", [(9, 12, 8), (20, 4, 3), (1, 5, 0)])
def test_kernel_reaches_four_sigma_or_the_edge(monkeypatch, height, width, reach):
    sizes = []

    def record(images, sigma, kernel_size):
        sizes.append(kernel_size)
        return images

    monkeypatch.setattr(blur, "gaussian_blur", record)
    blur.random_blur(make_rngs(1), jnp.zeros((1, height, width, 3)), 1.0, (0.1, 2.0))
    assert sizes == [2 * reach + 1]
    assert math.erfc(4 / math.sqrt(2)) < 7e-5  # what lies beyond four sigma


@pytest.mark.parametrize("kernel_size", [4, 11])
def test_blur_rejects(kernel_size):
    with pytest.raises(ValueError, match=f"kernel_size must be odd and at most 9 .* {kernel_size}"):
        blur.gaussian_blur(jnp.zeros((1, 6, 5, 3)), jnp.ones(1), kernel_size)
