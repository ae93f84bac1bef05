"""Wrong and extreme values of every key: each is taken or refused in one line, never more."""

import math
import random

import pytest

from fixed_head_jax.configs import common, digits
from fixed_head_jax.training import experiment

VALUES = (
    None, True, -1, 0, 1, 3, 7, 10**3, 65536, 10**6, 10**9, 10**12, 10**20, 2**31, -(10**12),
    -0.5, 0.5, 1.0, 1.5, 1e-300, 1e9, 1e300, math.nan, math.inf, -math.inf,
    "", "x", "none", "a\nb", "[", "(", "/nonexistent/path", "\x00", b"x", {}, object(),
    (), (0.5,), (1,), (0.1, 0.5), (0.5, 0.1), (0, 0, 0), (None,), ("a",), ("[",), (("a", 1),),
    (("[", 1),), (("a", -1.0),), (("a",),), (1e12, 1e13), (10**8,), (10**7,), ("knn", "knn"),
    ((),), [], [1],
)  # fmt: skip
# Parts that read the options of others than the digits' own.
READERS = {
    "model.backbone_options.image_size": {"model.backbone": "vit_tiny", "data.image_size": 32},
    "model.backbone_options.patch_size": {"model.backbone": "vit_tiny", "data.image_size": 32},
    "model.backbone_options.width": {"model.backbone": "mobilenet_v2"},
    "model.head_options.kappa": {"model.head": "tvmf"},
    "model.head_options.margin": {"model.head": "arcface"},
    "model.head_options.init_scale": {"model.head": "cosine"},
    "model.pool_options.p": {"model.pool": "power"},
    "model.pool_options.units": {"model.pool": "attention"},
    "model.pool_options.window": {"model.pool": "flatten"},
    "data.per_class": {"data.sampler": "class_aware"},
}


def is_taken(key, value):
    """Whether the table of keys lets a value through."""
    key = common.KEYS[key]
    return key.kind.holds(value) or value is None and key.default is None


def test_values_that_a_key_may_not_have_are_refused_by_its_name():
    config = common.get_config()
    for key in common.KEYS:
        for value in VALUES:
            if is_taken(key, value):
                continue
            with pytest.raises(ValueError, match="must be") as error:
                common.override(config, {key: value})
            assert str(error.value).startswith(f"{key}=") and "\n" not in str(error.value)


def build_or_refuse(data_dir, seed, count):
    """Builds the digits' run with one extreme value that its key may have, `count` times."""
    pairs = [
        (key, value)
        for key, one in common.KEYS.items()
        for value in VALUES
        if is_taken(key, value) and one.kind.type is not bool and not one.kind.names
    ]
    results = []
    for key, value in random.Random(seed).sample(pairs, count):
        config = digits.get_config("smoke")
        config.data_dir = data_dir
        try:
            config = common.override(config, {**READERS.get(key, {}), key: value})
            results.append(experiment.build(config))
        except ValueError as error:
            assert "\n" not in str(error), key
            results.append(error)
    return results


def test_extreme_values_build_or_are_refused(data_dir):
    results = build_or_refuse(data_dir, seed=0, count=15)
    assert any(isinstance(one, ValueError) for one in results)
    assert any(isinstance(one, experiment.Run) for one in results)


@pytest.mark.slow
def test_more_extreme_values_build_or_are_refused(data_dir):
    build_or_refuse(data_dir, seed=1, count=150)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 100_000, "batch_size=100000 is more than the 1,442 training images"),
        ("data.image_size", 60_000, "needs at least .* GiB of memory .* the size of images"),
        ("total_steps", 10**9, "total_steps=1000000000 is more than 100,000 epochs"),
        ("data.per_class", 10**9, "data.per_class=1000000000 is more than batch_size=8"),
    ],
)
def test_sizes_that_cannot_be_meant_are_refused(data_dir, key, value, message):
    config = digits.get_config("smoke")
    config.data_dir = data_dir
    config = common.override(config, {**READERS.get(key, {}), key: value})
    with pytest.raises(ValueError, match=message):
        experiment.build(config)
