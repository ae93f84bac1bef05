"""Batch norm against worked numbers and float64, also where the mean is large, and over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from fixed_head_jax.layers.batch_norm import BatchNorm

RNG = jax.random.key(0)


def test_running_statistics():
    """Batch 1, 2, 4, 5: the running variance takes the unbiased 10/3, not the biased 2.5."""
    x = jnp.array([1.0, 2, 4, 5]).reshape(4, 1, 1, 1)
    norm = BatchNorm()
    variables = norm.init(RNG, x, True)
    assert variables["batch_stats"]["mean"] == 0 and variables["batch_stats"]["var"] == 1
    y, updated = norm.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), (x.ravel() - 3) / np.sqrt(2.5 + 1e-5), atol=1e-6)
    stats = updated["batch_stats"]
    np.testing.assert_allclose([stats["mean"][0], stats["var"][0]], [0.3, 1.23333333], atol=1e-6)
    y = norm.apply({**variables, **updated}, x, False)
    np.testing.assert_allclose(y.ravel(), (x.ravel() - 0.3) / 1.23334333**0.5, atol=2e-6)


def by_numpy(x, cotangent):
    """Returns output, gradient by x, by the scale, new running mean and variance, in float64."""
    x, axes = x.astype(np.float64), tuple(range(x.ndim - 1))
    mean, deviation = x.mean(axes), np.sqrt(x.var(axes) + 1e-5)
    y = (x - mean) / deviation
    by_scale = (cotangent * y).mean(axes)
    gradient = (cotangent - cotangent.mean(axes) - y * by_scale) / deviation
    count = x[..., 0].size
    running_var = 0.9 + 0.1 * x.var(axes, ddof=1)
    return y, gradient, count * by_scale, 0.1 * mean, running_var


def on_devices(norm, variables, count):
    """Returns `(x, cotangent) -> ` what `by_numpy` returns, computed by the norm on devices."""

    def step(x, cotangent):
        def objective(x, params):
            values = {**variables, "params": params}
            y, updated = norm.apply(values, x, True, mutable=["batch_stats"])
            return jnp.sum(y * cotangent), (y, updated["batch_stats"])

        gradient = jax.grad(objective, (0, 1), has_aux=True)
        (by_x, params), (y, stats) = gradient(x, variables["params"])
        return y, by_x, jax.lax.psum(params["scale"], "data"), stats["mean"], stats["var"]

    mesh = jax.make_mesh(
        (count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:count]
    )
    split, same = P("data"), P()
    out_specs = (split, split, same, same, same)
    return jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=split, out_specs=out_specs, check_vma=False)
    )


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("shape", [(8, 4, 4, 3), (64, 3)])
def test_right_however_large_the_mean_is(shape, count):
    """E[x^2] - E[x]^2 is off by 0.02 at a mean of 300 deviations and clamped at zero at 3,000."""
    norm = BatchNorm(axis_name="data")
    generator = np.random.default_rng(0)
    noise, cotangent = generator.normal(size=(2, *shape)).astype(np.float32)
    compute = on_devices(norm, norm.init(RNG, jnp.asarray(noise), False), count)
    for ratio in (0, 1, 300, 1000, 3000, 100_000):
        x = noise + np.float32(ratio) * np.array([1, -1, 2], np.float32)
        names = ("output", "gradient", "gradient of the scale", "mean", "variance")
        pairs = zip(names, compute(x, cotangent), by_numpy(x, cotangent), strict=True)
        for name, found, expected in pairs:
            message = f"{name} at a mean of {ratio} deviations"
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=5e-6, err_msg=message)


def test_an_outlier_in_front_costs_no_digits():
    """The first example, whose mean the values are shifted by, lies 31 deviations off.

    Compiled as for users: without optimisation, sums are added up one by one, less exactly.
    """
    x = np.random.default_rng(0).normal(size=(1024, 2)).astype(np.float32) / 100
    x[0] = [1e4, -1e4]
    norm = BatchNorm()
    variables = norm.init(RNG, jnp.asarray(x), False)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def apply(x):
        return norm.apply(variables, x, True, mutable=["batch_stats"])

    y, _ = apply(x)
    expected = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)


def test_evaluation_takes_off_a_large_running_mean():
    x = np.float32(3000) + np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    norm = BatchNorm()
    stats = {"mean": jnp.full(3, 3000.0), "var": jnp.full(3, 2.0)}
    variables = {**norm.init(RNG, jnp.asarray(x), False), "batch_stats": stats}
    y = norm.apply(variables, jnp.asarray(x), False)
    expected = (x.astype(np.float64) - 3000) / np.sqrt(2 + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_over_devices_equals_one_device():
    x = jax.random.normal(RNG, (8, 2, 2, 3)) * 2 + 1
    alone, over = BatchNorm(), BatchNorm(axis_name="data")
    variables = alone.init(RNG, x, True)
    step = jax.shard_map(
        lambda v, x: over.apply(v, x, True, mutable=["batch_stats"]),
        mesh=jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(P(), P("data")),
        out_specs=(P("data"), P()),
    )
    expected = alone.apply(variables, x, True, mutable=["batch_stats"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
        jax.jit(step)(variables, x),
        expected,
    )
