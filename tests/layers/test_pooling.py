"""Poolings against numpy, the worked numbers of the specification and the reference's orders."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.layers.pooling import POOLINGS, get_pool

MAPS = np.asarray(jax.random.normal(jax.random.key(0), (2, 6, 8, 5)))
# Two channels on 2x2 positions, specification 7.4.
WORKED = np.array([[[[1, 0.5], [4, 0.5]], [[0, 3], [2, 1]]]], np.float32)
PRINTED = {
    0.5: (19.48528137, 17.19150823),
    1: (7, 5),
    1.5: (5.19140207, 3.62551289),
    2: (4.58257569, 3.24037035),
    4: (4.06481385, 3.01036285),
}
AVERAGED = {
    0.5: (1.21783009, 1.07446926),
    1: (1.75, 1.25),
    1.5: (2.06020928, 1.43878574),
    2: (2.29128785, 1.62018517),
    4: (2.87425744, 2.12864798),
}


def pool(name, maps, **options):
    return np.asarray(jax.jit(get_pool(name, **options).apply)({}, jnp.asarray(maps)))


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


def gradient(name, maps, **options):
    """Differentiates the sum of the features."""
    module = get_pool(name, **options)
    return np.asarray(jax.jit(jax.grad(lambda x: module.apply({}, x).sum()))(jnp.asarray(maps)))


def test_power_worked_numbers():
    modules = [get_pool("power", p=p) for p in PRINTED]
    printed = [get_pool("power", p=p, as_published=True) for p in PRINTED]
    results = jax.jit(lambda x: [module.apply({}, x)[0] for module in modules + printed])(WORKED)
    np.testing.assert_allclose(results[:5], list(AVERAGED.values()), rtol=1e-6)
    np.testing.assert_allclose(results[5:], list(PRINTED.values()), rtol=1e-6)


@pytest.mark.parametrize("as_published", [False, True])
def test_power_gradient(as_published):
    maps = np.abs(MAPS.astype(np.float64)) + 0.05
    weights = np.asarray(jax.random.normal(jax.random.key(1), (2, 5)))
    exponents = (0.3, *PRINTED)
    modules = [get_pool("power", p=p, as_published=as_published) for p in exponents]

    def gradients(x):
        return [jax.grad(lambda x, m=m: (weights * m.apply({}, x)).sum())(x) for m in modules]

    for p, result in zip(exponents, jax.jit(gradients)(jnp.float32(maps)), strict=True):
        count = 1 if as_published else 48
        totals = ((maps**p).sum((1, 2), keepdims=True) / count) ** (1 / p)
        expected = weights[:, None, None] * totals ** (1 - p) * maps ** (p - 1) / count
        np.testing.assert_allclose(result, expected, rtol=2e-4)


def test_power_is_the_mean_at_one_and_tends_to_the_maximum():
    np.testing.assert_array_equal(pool("power", MAPS, p=1), pool("mean", MAPS))
    np.testing.assert_array_equal(gradient("power", MAPS, p=1.0), gradient("mean", MAPS))
    maximum = MAPS.max((1, 2))
    np.testing.assert_allclose(pool("power", MAPS, p=200), maximum, rtol=0.03)
    assert (pool("power", MAPS, p=200) <= maximum).all()


@pytest.mark.parametrize("p", [0.05, *PRINTED, 50])
def test_power_is_finite_where_features_are_zero(p):
    # All zero; zero but for one; tiny beside large; one value everywhere.
    maps = np.zeros((1, 2, 2, 5), np.float32)
    maps[0, 0, 1, 1] = 3
    maps[0, ..., 2] = [[1e-38, 100], [0, 1e-20]]
    maps[0, ..., 3] = 1e12
    maps[0, ..., 4] = 1e-12
    features = pool("power", maps, p=p)[0]
    assert features[0] == 0
    np.testing.assert_allclose(features[1], 3 * 0.25 ** (1 / p), rtol=1e-5)
    np.testing.assert_allclose(features[3:], [1e12, 1e-12], rtol=1e-5)
    grads = gradient("power", maps, p=p)
    assert np.isfinite(grads).all()
    power = jax.jit(lambda x: get_pool("power", p=p).apply({}, x))
    assert np.isfinite(jax.jvp(power, (maps,), (np.ones_like(maps),))[1]).all()
    if p != 1:
        assert not grads[..., 0].any()
        assert grads[0, 0, 1, 1] > 0 and np.count_nonzero(grads[..., 1]) == 1
    np.testing.assert_allclose(grads[..., 3:], 0.25, rtol=1e-5)


def test_power_makes_no_nan_on_the_way():
    module = get_pool("power", p=2)
    with jax.debug_nans(True):
        assert not jax.grad(lambda x: module.apply({}, x).sum())(jnp.zeros((1, 2, 2, 1))).any()


@pytest.mark.parametrize("p", [0.5, 2])
def test_power_counts_negative_values_as_zero_and_passes_nan_on(p):
    np.testing.assert_array_equal(pool("power", MAPS, p=p), pool("power", np.maximum(MAPS, 0), p=p))
    assert not gradient("power", MAPS, p=p)[MAPS < 0].any()
    maps = MAPS.copy()
    maps[0, 1, 2, 3] = np.nan
    np.testing.assert_array_equal(np.argwhere(np.isnan(pool("power", maps, p=p))), [[0, 3]])


@pytest.mark.parametrize("p", [0, -0.5, math.inf, math.nan])
def test_power_errors(p):
    with pytest.raises(ValueError, match=f"power needs 0 < p < infinity, got p={p}; pool 'max'"):
        get_pool("power", p=p)


def test_attention_worked_numbers():
    params = {
        "hidden": {"kernel": [[1, 0, 1], [0, 1, -1]], "bias": [0, 0.1, -0.1]},
        "score": {"kernel": [[0.5], [-1], [2]], "bias": [0.25]},
    }
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), params, is_leaf=lambda x: isinstance(x, list)
    )
    features = get_pool("attention", units=3).apply({"params": params}, jnp.asarray(WORKED))
    np.testing.assert_allclose(features[0], [3.01920696, 0.63731032], rtol=1e-6)


def test_attention_against_numpy_with_gradients():
    module = get_pool("attention", units=7)
    variables = jax.jit(module.init)(jax.random.key(2), jnp.asarray(MAPS))

    def features(params, maps):
        x = maps.reshape(2, 48, 5)
        hidden = np.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        scores = np.exp(hidden @ params["score"]["kernel"] + params["score"]["bias"])
        return (x * scores / scores.sum(1, keepdims=True)).sum(1)

    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    maps = MAPS.astype(np.float64)
    result = module.apply(variables, jnp.asarray(MAPS))
    np.testing.assert_allclose(result, features(exact, maps), atol=1e-6)
    grad = jax.grad(lambda v, x: module.apply(v, x).sum(), argnums=(0, 1))
    grads = jax.jit(grad)(variables, MAPS)
    step = 1e-6
    for name, leaf in exact["hidden"].items():
        index = (3, 4)[-leaf.ndim :]
        leaf[index] += step
        above = features(exact, maps).sum()
        leaf[index] -= 2 * step
        slope = (above - features(exact, maps).sum()) / (2 * step)
        leaf[index] += step
        np.testing.assert_allclose(grads[0]["params"]["hidden"][name][index], slope, rtol=1e-3)
    assert np.isfinite(grads[1]).all()
    np.testing.assert_allclose(grads[0]["params"]["score"]["bias"], 0, atol=1e-6)


@pytest.mark.parametrize(
    "units, expected",
    [(32, 32_065), (64, 64_129), (128, 128_257), (256, 256_513), (512, 513_025), (1024, 1_026_049)],
)
def test_attention_parameters(units, expected):
    maps = jax.ShapeDtypeStruct((1, 7, 7, 1000), jnp.float32)
    module = get_pool("attention", units=units)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), maps)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_attention_starts_as_the_reference_does():
    init = jax.jit(jax.vmap(get_pool("attention", units=64).init, in_axes=(0, None)))
    params = init(jax.random.split(jax.random.key(0), 200), jnp.asarray(MAPS))["params"]
    for name, fan_in in (("hidden", 5), ("score", 64)):
        for leaf in params[name].values():
            np.testing.assert_allclose(np.abs(leaf).max(), fan_in**-0.5, rtol=0.02)
            np.testing.assert_allclose(np.std(leaf), (3 * fan_in) ** -0.5, rtol=0.1)


def test_attention_errors():
    with pytest.raises(ValueError, match="attention needs units >= 1, got 0"):
        get_pool("attention", units=0)


@pytest.mark.parametrize("name", POOLINGS)
def test_contract(name):
    module, maps = get_pool(name), jnp.asarray(MAPS)
    variables = jax.jit(module.init)(jax.random.key(0), maps)
    features = module.apply(variables, maps)
    assert set(variables) == ({"params"} if name == "attention" else set())
    assert features.dtype == np.float32
    assert module.num_features(5) in (None, features.shape[1])
    # XLA may sum in another order under jit.
    np.testing.assert_allclose(jax.jit(module.apply)(variables, maps), features, atol=1e-6)


def test_unknown_names_say_what_would_have_worked():
    with pytest.raises(ValueError, match="unknown pool 'flaten'.*did you mean 'flatten'"):
        get_pool("flaten")
    with pytest.raises(ValueError, match="pool 'mean' has no option 'window'.*it takes: none"):
        get_pool("mean", window=2)
