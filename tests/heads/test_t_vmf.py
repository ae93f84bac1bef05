"""t-vMF heads and their similarity against the specification's worked numbers and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.heads.cosine import TVMF, Cosine, t_vmf
from tests.heads.cosine_examples import (
    BIAS,
    COSINES,
    RNG,
    assert_finite,
    cross_entropy,
    given,
    loss_and_grads,
)

KAPPAS = (-0.499, -0.3, 0.0, 4.0, 16.0, 64.0)
EDGE_KAPPAS = (-0.5 + 1e-15, *KAPPAS, 1e6)  # anything above -1/2
PHI = {
    -0.3: [[0.81818182, 0.86813187, 0.53153153], [0.57894737, 0.95876289, 0.62393162]],
    0.0: COSINES,
    4.0: [[-0.38461538, -0.22727273, -0.74626866], [-0.71428571, 0.35714286, -0.67796610]],
    16.0: [[-0.78378378, -0.70689655, -0.92376682], [-0.91304348, -0.26923077, -0.90052356]],
    64.0: [[-0.93984962, -0.91584158, -0.97992916], [-0.97701149, -0.74324324, -0.97357441]],
}
LOSSES = {
    -0.3: [0.91006294, 1.30548825],
    0.0: [0.80081104, 1.57182559],
    4.0: [0.77998368, 2.04250458],
    16.0: [0.94414397, 1.58742064],
    64.0: [1.04988977, 1.24448751],
}


@pytest.mark.parametrize("kappa", PHI)
def test_kobayashi(kappa):
    logits = given(TVMF(3, kappa=kappa), raw_scale=0.0)
    np.testing.assert_allclose(logits, 1.69314718 * np.array(PHI[kappa]), atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits), LOSSES[kappa], atol=1e-5)


def test_kobayashi_defaults_and_bias():
    np.testing.assert_array_equal(
        given(TVMF(3), raw_scale=0.0), given(TVMF(3, kappa=16.0), raw_scale=0.0)
    )
    np.testing.assert_array_equal(
        given(Cosine(3), raw_scale=0.0), given(TVMF(3, kappa=0.0), raw_scale=0.0)
    )
    logits = given(TVMF(3, bias_form="inside"), raw_scale=0.0, bias=BIAS)
    np.testing.assert_allclose(cross_entropy(logits).mean(), 1.24267348, atol=1e-5)


TABLE = {
    -0.3: [-1, -0.09090909, 0.42857143, 0.76470588, 0.95876289, 1],
    4.0: [-1, -0.92857143, -0.8, -0.5, 0.35714286, 1],
    16.0: [-1, -0.98, -0.94117647, -0.83333333, -0.26923077, 1],
    64.0: [-1, -0.99484536, -0.98461538, -0.95454545, -0.74324324, 1],
}
SLOPES = {-0.3: (0.4, 2.5), 4.0: (9, 0.11111111), 16.0: (33, 0.03030303), 64.0: (129, 0.00775194)}


@pytest.mark.parametrize("kappa", TABLE)
def test_t_vmf_table(kappa):
    cosines = jnp.array([-1, -0.5, 0, 0.5, 0.9, 1])
    np.testing.assert_allclose(t_vmf(cosines, kappa), TABLE[kappa], atol=1e-5)
    slopes = [jax.grad(t_vmf)(cosine, kappa) for cosine in (1.0, -1.0)]
    np.testing.assert_allclose(slopes, SLOPES[kappa], rtol=1e-5)


def test_t_vmf_slope():
    assert jax.grad(t_vmf)(0.7, 16.0) == pytest.approx(0.98097503, abs=1e-5)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_t_vmf_values_and_slopes(kappa):
    cosines = np.linspace(-1, 1, 201)
    ours, slopes = jax.vmap(jax.value_and_grad(t_vmf), (0, None))(jnp.float32(cosines), kappa)
    denominator = 1 + kappa * (1 - cosines)
    np.testing.assert_allclose(ours, (1 + cosines) / denominator - 1, atol=2e-5)
    np.testing.assert_allclose(slopes, (1 + 2 * kappa) / denominator**2, rtol=1e-3, atol=1e-6)
    zero = jnp.float32(kappa / (1 + kappa))
    assert t_vmf(zero, kappa) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kappa", EDGE_KAPPAS)
def test_t_vmf_ends_and_order(kappa):
    values = t_vmf(jnp.linspace(-1, 1, 201), kappa)
    assert values[0] == -1 and values[-1] == 1 and (jnp.diff(values) >= 0).all()
    slopes = [float(jax.grad(t_vmf)(cosine, kappa)) for cosine in (1.0, -1.0)]
    assert slopes == pytest.approx([1 + 2 * kappa, 1 / (1 + 2 * kappa)], rel=1e-5)


@pytest.mark.parametrize("kappa", [EDGE_KAPPAS[0], -0.3, 64.0, EDGE_KAPPAS[-1]])
def test_t_vmf_head_is_finite_along_and_against_the_class_vectors(kappa):
    vectors = jax.random.normal(RNG, (20, 64))
    features = jnp.concatenate([vectors, -vectors, 1e6 * vectors, jnp.zeros((1, 64))])
    head, params = TVMF(20, kappa=kappa), {"kernel": vectors.T, "raw_scale": jnp.float32(0)}
    assert_finite(loss_and_grads(params, head, {}, features))
    # Some of these cosines are beyond -1 and 1 by a rounding error.
    assert jnp.abs(head.apply({"params": params}, features)).max() == pytest.approx(1.69314718)
