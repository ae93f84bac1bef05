"""The pipeline as the stages in a row, and the options it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax import augment
from fixed_head_jax.augment import Options, blur, color, geometry, make_augment, mix
from fixed_head_jax.configs import common
from tests.augment.images import MEAN, SHAPE, STD, make_images, make_rngs

COLORS = dict(
    brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1, jitter_probability=0.8,
    grey_probability=0.3, blur_probability=0.5, blur_sigma=(0.2, 0.5), solarize_probability=0.4,
    solarize_threshold=0.6, lighting=0.1,
)  # fmt: skip
MIXING = dict(mixup=0.4, cutmix=1.0, mix_probability=0.9, mix_switch_probability=0.3)
EVERYTHING = Options(
    pad_crop=2, flip=True, **COLORS, **MIXING, erase_probability=0.5, erase_fill="rand"
)
random_resized_crop = jax.jit(geometry.random_resized_crop, static_argnums=(2, 3, 4, 5))


def make_batch(count, shape=SHAPE):
    images = jnp.asarray(make_images(count, *shape))
    return {"image": images, "label": jnp.arange(count) % 4, "index": jnp.arange(count)}


def make_train_augment(options, shape=SHAPE, **arguments):
    return make_augment(shape, 4, MEAN[: shape[-1]], STD[: shape[-1]], options, **arguments)[0]


def test_the_config_has_every_option_at_its_default():
    assert dict(common.get_config().augment) == vars(Options())


@pytest.mark.slow
def test_the_pipeline_is_the_stages_in_the_documented_order():
    rngs, batch_rng, batch = make_rngs(8), jax.random.key(5), make_batch(8)

    @jax.jit
    def stages(rngs, batch_rng, batch):
        images = geometry.flip(rngs, geometry.pad_and_crop(rngs, batch["image"], 2))
        images = color.jitter(rngs, color.to_float(images), 0.4, 0.3, 0.5, 0.1, 0.8)
        images = blur.random_blur(rngs, color.random_grey(rngs, images, 0.3), 0.5, (0.2, 0.5))
        images = color.lighting(rngs, color.solarize(rngs, images, 0.4, 0.6), 0.1)
        shares = mix.draw_shares(batch_rng, 6, 5, 0.4, 1.0, 0.9, 0.3)
        images, targets = mix.mix(images, jax.nn.one_hot(batch["label"], 4), shares)
        return mix.erase(rngs, color.normalize(images, MEAN, STD), 0.5, "rand"), targets

    images, targets = stages(rngs, batch_rng, batch)
    out = jax.jit(make_train_augment(EVERYTHING))(rngs, batch_rng, batch)
    np.testing.assert_allclose(out["image"], images, atol=1e-5)
    np.testing.assert_allclose(out["targets"], targets, atol=1e-6)
    assert set(out) == {"image", "label", "index", "targets"}


def test_the_policy_comes_after_crop_and_flip(monkeypatch):
    def number(images):  # depends on where a pixel is
        return images + jnp.arange(images.shape[2], dtype=jnp.uint8)[None, None, :, None]

    monkeypatch.setattr(
        augment, "make_policy", lambda *_, **__: lambda rngs, images: number(images)
    )
    rngs, batch = make_rngs(8), make_batch(8)
    train_augment = make_train_augment(Options(flip=True, pad_crop=1, policy="trivial-wide"))
    out = jax.jit(train_augment)(rngs, jax.random.key(0), batch)["image"]
    images = number(geometry.flip(rngs, geometry.pad_and_crop(rngs, batch["image"], 1)))
    expected = color.normalize(color.to_float(images), MEAN, STD)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.slow
def test_crops_have_the_size_of_the_images():
    rngs, batch = make_rngs(4), make_batch(4, (6, 6, 3))
    train_augment = jax.jit(make_train_augment(Options(crop_scale=(0.3, 0.6)), (6, 6, 3)))
    out = train_augment(rngs, jax.random.key(0), batch)
    images = random_resized_crop(rngs, batch["image"], 6, (0.3, 0.6))
    expected = color.normalize(color.to_float(images), MEAN, STD)
    np.testing.assert_allclose(out["image"], expected, atol=1e-6)
    assert set(out) == set(batch)


def test_the_policy_changes_levels_and_fills_with_the_mean(monkeypatch):
    made = []

    def make_policy(name, fill, as_published):
        made.append((name, list(fill), as_published))
        return lambda rngs, images: 255 - images

    monkeypatch.setattr(augment, "make_policy", make_policy)
    batch = make_batch(4)
    options = Options(policy="rand-m9", policy_as_published=True)
    out = make_train_augment(options)(make_rngs(4), jax.random.key(0), batch)
    expected = color.normalize(color.to_float(255 - batch["image"]), MEAN, STD)
    np.testing.assert_array_equal(out["image"], expected)
    assert made == [("rand-m9", [26, 115, 204], True)]  # 255 times the mean


@pytest.mark.slow
def test_a_policy_runs_in_the_pipeline():
    options = Options(policy="rand-m9-mstd0.5-inc1")
    rngs, batch = make_rngs(32), make_batch(32, (8, 8, 3))
    train_augment = jax.jit(make_train_augment(options, (8, 8, 3)))
    out = np.asarray(train_augment(rngs, jax.random.key(0), batch)["image"])
    levels = 255 * (out * np.array(STD) + np.array(MEAN))
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    kept = np.abs(levels - np.asarray(batch["image"])).max((1, 2, 3)) < 0.1
    assert 0.05 < kept.mean() < 0.7  # two turns, each left out with probability 1/2


def test_mixing_ends_at_its_step_and_nothing_else_does():
    options = Options(mixup=1.0, flip=True)
    rngs, batch = make_rngs(4), make_batch(4)
    always = make_train_augment(options)(rngs, jax.random.key(0), batch)
    train_augment = jax.jit(make_train_augment(options, mix_steps=10))
    for step, expected in ((9, always), (10, None), (500, None)):
        out = train_augment(rngs, jax.random.key(0), batch, jnp.int32(step))
        if expected is None:
            unmixed = make_train_augment(replace(options, mixup=0.0))
            expected = unmixed(rngs, jax.random.key(0), batch)
            np.testing.assert_array_equal(out["targets"], jax.nn.one_hot(batch["label"], 4))
        np.testing.assert_allclose(out["image"], expected["image"], rtol=1e-6, atol=1e-6)
    assert train_augment._cache_size() == 1
    assert not np.array_equal(always["targets"], jax.nn.one_hot(batch["label"], 4))


def test_images_that_stay_in_levels_are_mixed_in_levels(monkeypatch):
    shares = lambda *_: jnp.full((1, 1), 0.7)  # noqa: E731
    monkeypatch.setattr(mix, "draw_shares", shares)
    images = jnp.asarray([10, 201], jnp.uint8).reshape(2, 1, 1, 1)
    batch = {"image": images, "label": jnp.array([0, 2])}
    for changes, levels in ((dict(), [67, 144]), (dict(contrast=1e-6), [67.3, 143.7])):
        train_augment, _ = make_augment(
            (1, 1, 1), 4, (0.485,), (0.229,), Options(mixup=0.2, **changes)
        )
        out = train_augment(make_rngs(2), jax.random.key(0), batch)
        expected = (np.array(levels) - 123.675) / 58.395
        np.testing.assert_allclose(out["image"].ravel(), expected, atol=1e-4)
        expected = [[0.7, 0, 0.3, 0], [0.3, 0, 0.7, 0]]
        np.testing.assert_allclose(out["targets"], expected, atol=1e-6)
    assert (67 - 123.675) / 58.395 == pytest.approx(-0.9705454, abs=1e-7)  # the specification's


@pytest.mark.slow
def test_an_example_does_not_depend_on_its_batch():
    options = replace(EVERYTHING, mixup=0.0, cutmix=0.0)
    train_augment = jax.jit(make_train_augment(options))
    rngs, batch = make_rngs(4), make_batch(4)
    whole = train_augment(rngs, jax.random.key(0), batch)["image"]
    order = np.array([2, 0, 3, 1])
    other = jax.tree.map(lambda x: x[order], batch)
    out = train_augment(rngs[order], jax.random.key(1), other)["image"]
    np.testing.assert_allclose(out, whole[order], atol=1e-6)
    assert train_augment._cache_size() == 1


def test_no_augmentation_equals_eval():
    train_augment, eval_augment = make_augment(SHAPE, 4, MEAN, STD, Options())
    batch = make_batch(4)
    out = train_augment(make_rngs(4), jax.random.key(0), batch)
    np.testing.assert_array_equal(out["image"], eval_augment(batch["image"]))
    assert set(out) == set(batch)


def test_the_pipeline_takes_grey_images():
    options = replace(EVERYTHING, lighting=0.0)
    batch = jax.eval_shape(
        make_train_augment(options, (6, 5, 1)), make_rngs(2), jax.random.key(0),
        make_batch(2, (6, 5, 1)),
    )  # fmt: skip
    assert batch["image"].shape == (2, 6, 5, 1) and batch["image"].dtype == jnp.float32


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(mix_off_epoch=3), "mix_off_epoch=3.0 ends mixing, but augment.mixup and .* are 0"),
        (dict(crop_scale=(0.5, 1.0)), "augment.crop_scale needs square images, got 6 x 5"),
        (dict(crop_scale=(0.5, 1.0), pad_crop=4), "both crop; set one of them"),
        (dict(policy="rand-m9", hue=0.1), "takes the place of the jitter; set augment.hue=0"),
        (dict(policy="nope"), "augment.policy='nope'"),
    ],
)  # fmt: skip
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_train_augment(Options(**options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "mean, std, message",
    [
        ((0.5,), (0.5, 0.5), "one value per channel"),
        ((0.5,), (0.0,), "std > 0; got"),
        ((), (), "std > 0; got"),
        ((123.7, 116.0, 103.0), (58.0, 57.0, 57.0), "divide those of levels by 255"),
        ((0.5,), (float("nan"),), "std > 0; got"),
        ((0.5, 0.5), (0.5, 0.5), "each of the 3 channels"),
    ],
)
def test_rejects_statistics(mean, std, message):
    with pytest.raises(ValueError, match=message):
        make_augment(SHAPE, 4, mean, std, Options())


def test_rejects_what_needs_three_channels():
    with pytest.raises(ValueError, match="set augment.lighting=0"):
        make_augment((6, 5, 1), 4, (0.5,), (0.5,), Options(lighting=0.1))
