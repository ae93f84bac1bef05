"""Convolutions, in every lowering, and pooling of maps, against plain ones."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.layers.convolution import (
    Conv,
    average_pool,
    convolve,
    max_pool,
    plainly,
    resize_channels,
)

RNG = jax.random.key(0)


def test_convolution_pads_symmetrically():
    """Against a direct sum, so that a one-sided padding at stride 2 would show."""
    x = np.asarray(jax.random.normal(RNG, (1, 6, 6, 2)))
    for size, strides in ((3, 2), (1, 2)):
        conv = Conv(3, size, strides, use_bias=True)
        variables = conv.init(RNG, jnp.asarray(x))
        kernel, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
        pad = size // 2
        padded = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
        starts = range(0, 6 + 2 * pad - size + 1, strides)
        windows = [[padded[i : i + size, j : j + size] for j in starts] for i in starts]
        expected = np.einsum("ijabc,abcd->ijd", np.array(windows), kernel) + bias
        result = conv.apply(variables, jnp.asarray(x))
        np.testing.assert_allclose(result[0], expected, atol=2e-6)


@pytest.mark.parametrize(
    "channels, features, size, strides, padding, groups",
    [
        (6, 5, (1, 1), 1, (0, 0), 1),
        (6, 5, (1, 1), 2, (0, 0), 1),
        (6, 6, (3, 3), 1, (1, 1), 6),
        (6, 6, (3, 3), 2, (1, 1), 6),
        (6, 6, (1, 5), 1, (0, 2), 6),
        (3, 5, (4, 4), 4, (0, 0), 1),
    ],
    ids=["1x1", "1x1/2", "depthwise", "depthwise/2", "depthwise 1x5", "patches"],
)
def test_every_lowering_gives_the_plain_convolution(
    channels, features, size, strides, padding, groups
):
    keys = jax.random.split(RNG, 3)
    x = jax.random.normal(keys[0], (2, 9, 11, channels))
    kernel = jax.random.normal(keys[1], (*size, channels // groups, features))
    results = {}
    for platform in ("cpu", "gpu"):
        arguments = (strides, padding, groups, platform)
        y, vjp = jax.vjp(lambda x, kernel, a=arguments: convolve(x, kernel, *a), x, kernel)
        results[platform] = (y, *vjp(jax.random.normal(keys[2], y.shape)))
    for ours, plain in zip(results["cpu"], results["gpu"], strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    # In bfloat16 the sums are float32: the result alone is rounded, by 2^-8 of itself at most.
    rounded = [a.astype(jnp.bfloat16) for a in (x, kernel)]
    halves = convolve(*rounded, *arguments[:3], "cpu")
    assert halves.dtype == jnp.bfloat16
    plain = convolve(*(a.astype(jnp.float32) for a in rounded), *arguments[:3], "gpu")
    np.testing.assert_allclose(halves.astype(jnp.float32), plain, rtol=2**-8, atol=1e-5)
    text = str(
        jax.make_jaxpr(convolve, static_argnums=(2, 3, 4, 5))(x, kernel, *arguments[:3], "cpu")
    )
    assert "conv_general_dilated" not in text


def test_plainly_there_is_one_form():
    x = jnp.ones((1, 6, 6, 4))
    for conv in (Conv(5, 1), Conv(4, 3, groups=4), Conv(5, 2, 2, padding=0)):
        variables = conv.init(RNG, x)
        forms = []
        for context in (contextlib.nullcontext(), plainly()):
            with context:
                forms.append(str(jax.make_jaxpr(conv.apply)(variables, x)))
        assert ["conv_general_dilated" in form for form in forms] == [False, True]


@pytest.mark.parametrize("size, strides, padding", [(3, 1, 1), (2, 2, 0), (3, 2, 1)])
def test_average_pool_leaves_the_padding_out(size, strides, padding):
    x = np.asarray(jax.random.normal(RNG, (2, 5, 6, 3)))
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, pads, constant_values=np.nan)
    result = average_pool(jnp.asarray(x), size, strides, padding)
    for i, j in np.ndindex(*result.shape[1:3]):
        window = padded[:, i * strides :, j * strides :][:, :size, :size]
        np.testing.assert_allclose(result[:, i, j], np.nanmean(window, (1, 2)), atol=3e-7)


def test_max_pool_pads_with_minus_infinity():
    x = -1.0 - jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[-1, -2], [-5, -6]])


@pytest.mark.parametrize(("height", "width"), [(1, 2), (5, 5), (6, 7), (8, 4)])
def test_max_pool_and_its_gradient_take_the_first_largest_of_each_window(height, width):
    """Values 0 to 2, so that ties abound: all of a window's gradient goes to one place."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, height, width, 3)).astype(np.float32)
    out, vjp = jax.vjp(max_pool, jnp.asarray(x))
    cotangent = rng.normal(size=out.shape).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    expected, grad = np.zeros_like(cotangent), np.zeros_like(padded)
    for b, i, j, c in np.ndindex(*out.shape):
        window = padded[b, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
        row, column = np.unravel_index(window.argmax(), window.shape)
        expected[b, i, j, c] = window[row, column]
        grad[b, 2 * i + row, 2 * j + column, c] += cotangent[b, i, j, c]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(vjp(cotangent)[0], grad[:, 1:-1, 1:-1], rtol=1e-6, atol=1e-6)


def test_max_pool_shows_what_is_not_a_number():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 2, 3, 0].set(jnp.nan)
    assert jnp.isnan(max_pool(x)[0, 1, 1:, 0]).all() and jnp.isnan(max_pool(x)).sum() == 2


def test_resize_channels():
    def resized(inputs, outputs):
        x = jnp.arange(1.0, inputs + 1)[None, None, None]
        return np.asarray(resize_channels(x, outputs))[0, 0, 0]

    np.testing.assert_array_equal(resized(6, 4), [2, 3, 4, 5])
    wide = resized(64, 100)
    assert wide[18] == 1 and wide[81] == 64 and np.count_nonzero(wide) == 64
    for inputs, outputs, pad in ((512, 1000, 244), (512, 196, -158), (512, 102, -205)):
        result = resized(inputs, outputs)
        assert len(result) == outputs
        assert result[pad] == 1 if pad > 0 else result[0] == 1 - pad
    for inputs, outputs, pad in ((2048, 1000, -524), (2048, 196, -926), (2048, 102, -973)):
        assert resized(inputs, outputs)[0] == 1 - pad
    np.testing.assert_array_equal(resized(6, 3), [2, 3, 4])
    np.testing.assert_array_equal(resized(6, 9), [0, 1, 2, 3, 4, 5, 6, 0, 0])
