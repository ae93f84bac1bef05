"""Poolings against numpy and the reference's flatten order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.pooling import POOLINGS, get_pool

MAPS = np.asarray(jax.random.normal(jax.random.key(0), (2, 6, 8, 5)))


def pool(name, maps, **options):
    return np.asarray(get_pool(name, **options).apply({}, jnp.asarray(maps)))


def test_mean_and_max():
    np.testing.assert_allclose(pool("mean", MAPS), MAPS.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(pool("max", MAPS), MAPS.max((1, 2)))


def test_flatten_order_is_channel_major():
    row, column, channel = np.meshgrid(range(3), range(3), range(512), indexing="ij")
    values = (9 * channel + 3 * row + column)[None].astype(np.float32)
    np.testing.assert_array_equal(pool("flatten", values)[0], np.arange(4608))


def test_flatten_averages_windows():
    channels_first = MAPS.transpose(0, 3, 1, 2)[:, :, :6, :6]
    expected = channels_first.reshape(2, 5, 2, 3, 2, 3).mean((3, 5)).reshape(2, -1)
    np.testing.assert_allclose(pool("flatten", MAPS, window=3), expected, atol=1e-6)


def test_flatten_errors():
    with pytest.raises(ValueError, match="window >= 1, got 0"):
        get_pool("flatten", window=0)
    with pytest.raises(ValueError, match="window 7 exceeds the 6x8 feature map"):
        pool("flatten", MAPS, window=7)


@pytest.mark.parametrize("name", POOLINGS)
def test_contract(name):
    module = get_pool(name)
    features = module.apply({}, jnp.asarray(MAPS))
    assert features.dtype == np.float32
    assert module.num_features(5) in (None, features.shape[1])
    # XLA may sum in another order under jit.
    np.testing.assert_allclose(jax.jit(module.apply)({}, jnp.asarray(MAPS)), features, atol=1e-6)


def test_unknown_names_say_what_would_have_worked():
    with pytest.raises(ValueError, match="unknown pool 'flaten'.*did you mean 'flatten'"):
        get_pool("flaten")
    with pytest.raises(ValueError, match="pool 'mean' has no option 'window'.*it takes: none"):
        get_pool("mean", window=2)
