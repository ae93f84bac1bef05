"""Parity with public models, and exact round trips of their weights."""

import json

import jax
import numpy as np
import pytest

from fixed_head_jax import pretrained
from tests.golden.generate import CASES, images
from tests.pretrained.weights import WITHOUT_HEAD, golden, model, state_dict

QUICK = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "vit_tiny")
# Of the standard deviation of the reference; measured 5.3e-6, in MobileNetV2 2.1e-5.
TOLERANCE = {**dict.fromkeys(CASES, 2e-5), "mobilenet_v2": 8e-5}


def outputs(name, variables, batch, train=False):
    key = "features" if name in WITHOUT_HEAD else "logits"

    def apply(variables, batch):
        out, updated = model(name).apply(variables, batch, train, mutable=["batch_stats"])
        return out[key][:, :100], updated

    return jax.jit(apply)(variables, batch)


def assert_parity(ours, reference, tolerance):
    assert ours.shape == reference.shape
    assert np.abs(ours - reference).max() <= tolerance * reference.std()


def converted(name, resolution):
    skip_head = name in WITHOUT_HEAD
    return pretrained.from_torch(state_dict(name), model(name), resolution, skip_head=skip_head)


ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", ALL)
def test_eval_mode_equals_the_public_model(name):
    resolution, batch, _, _ = CASES[name]
    ours, _ = outputs(name, converted(name, resolution), images(batch, resolution, 0))
    assert_parity(ours, golden(name)["eval"], TOLERANCE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_other_resolutions_equal_the_public_model(name):
    resolution = CASES[name][2]
    ours, _ = outputs(name, converted(name, resolution), images(2, resolution, 1))
    assert_parity(ours, golden(name)["other"], TOLERANCE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_train_mode_and_its_running_statistics_equal_the_public_model(name):
    """Statistics of four images amplify rounding, in torch's float32 as well: we may be four times
    as far from float64 as that is, in Inception v4, where that is 3.4e-3, twice. Measured: 1.9
    times at most, there 1.4.
    """
    resolution = CASES[name][3]
    variables = converted(name, resolution)
    ours, updated = outputs(name, variables, images(4, resolution, 2), train=True)
    amplified = (2 if name == "inception_v4" else 4) * golden(name)["train_error"]
    assert_parity(ours, golden(name)["train"], max(TOLERANCE[name], amplified))
    if updated:
        stats = pretrained.to_torch(updated, model(name))
        names = json.loads(str(golden(name)["stats_of"]))
        means = [stats[key.replace("shortcut", "downsample")].mean() for key in names]
        tolerance = 1e-5 if name == "inception_v4" else 1e-6
        np.testing.assert_allclose(means, golden(name)["stats"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ALL)
def test_round_trip_is_exact(name):
    given = state_dict(name)
    if name in WITHOUT_HEAD:
        given |= {"fc.weight": np.ones((10, model_dim(name)), np.float32)}
        given |= {"fc.bias": np.arange(10, dtype=np.float32)}
    variables = pretrained.from_torch(given, model(name), CASES[name][0])
    back = pretrained.to_torch(variables, model(name))
    assert {key.replace("shortcut", "downsample") for key in given} == set(back)
    for key, value in given.items():
        result = back[key.replace("shortcut", "downsample")]
        assert result.dtype == value.dtype and np.array_equal(result, value), key
    again = pretrained.from_torch(back, model(name), CASES[name][0])
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), variables, again))


def model_dim(name):
    return 4608 if name == "stl_resnet18" else 512
