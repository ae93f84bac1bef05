"""View sets: the published table, views drawn on their own, crops of the host or of the device."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.augment import Options, ViewSet, geometry, make_view_augment
from fixed_head_jax.augment.views import NUM_GLOBAL, view_kinds

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = ViewSet(
    num_local=3, global_size=6, local_size=4, flip=False, brightness=0.0, contrast=0.0,
    saturation=0.0, hue=0.0, grey_probability=0.0, blur_probability=(0.0,) * 3,
    solarize_probability=(0.0,) * 3,
)  # fmt: skip


def make_rngs(count):
    return jax.random.split(jax.random.key(0), count)


def make_images(*shape):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), jnp.uint8)


@partial(jax.jit, static_argnums=0)
def draw(views, batch, rngs):
    return make_view_augment(3, MEAN, STD, views)(rngs, jax.random.key(9), batch)


def levels(images):
    return 255 * (np.asarray(images) * np.array(STD) + np.array(MEAN))


def test_the_published_table():
    jitter = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter_probability=0.8)
    shared = Options(flip=True, **jitter, grey_probability=0.2, blur_sigma=(0.1, 2.0))
    first, second, local = view_kinds(ViewSet())
    assert [kind.views for kind in (first, second, local)] == [range(1), range(1, 2), range(2, 8)]
    assert [kind.size for kind in (first, second, local)] == [224, 224, 96]
    assert first.scale == second.scale == (0.4, 1.0) and local.scale == (0.05, 0.4)
    blurs = [(0.1, 0.0), (1.0, 0.2), (0.5, 0.0)]
    for kind, (blur, solarize) in zip((first, second, local), blurs, strict=True):
        expected = replace(shared, blur_probability=blur, solarize_probability=solarize)
        assert Options(**kind.options) == expected
    assert Options().solarize_threshold == 0.5  # level 128


def test_the_recipe_for_cifar_has_two_views():
    views = ViewSet(
        num_local=0, global_size=32, global_scale=(0.2, 1.0), saturation=0.4,
        blur_probability=(0.5,) * 3, solarize_probability=(0.0,) * 3,
    )  # fmt: skip
    augment = make_view_augment(3, MEAN, STD, views)
    batch = {"image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)}
    out = jax.eval_shape(augment, make_rngs(2), jax.random.key(0), batch)
    assert [x.shape for x in out["global"]] == [(2, 32, 32, 3)] * 2 and out["local"] == ()


@pytest.mark.slow
def test_whole_images_are_cropped_for_every_view():
    images = make_images(2, 12, 10, 3)
    views = replace(PLAIN, local_scale=(0.2, 0.3))
    out = draw(views, {"image": images, "index": jnp.arange(2)}, make_rngs(2))
    assert set(out) == {"global", "local", "index"}
    crop = jax.jit(partial(geometry.random_resized_crop, method="bicubic"), static_argnums=(2, 3))
    drawn = [*out["global"], *out["local"]]
    assert len(drawn) == 5
    for view, ours in enumerate(drawn):
        size, scale = (6, (0.4, 1.0)) if view < NUM_GLOBAL else (4, (0.2, 0.3))
        rngs = jax.vmap(
            lambda rng, view=view: jax.random.fold_in(jax.random.fold_in(rng, 12), view)
        )(make_rngs(2))
        expected = crop(rngs, images, size, scale)
        np.testing.assert_allclose(levels(ours), expected, atol=1e-3)
    assert len({np.asarray(view).tobytes() for view in drawn}) == 5


def test_crops_of_the_host_keep_their_places():
    batch = {"global": make_images(2, 2, 6, 6, 3), "local": make_images(2, 3, 4, 4, 3)}
    out = draw(PLAIN, batch, make_rngs(2))
    for name in ("global", "local"):
        for view, images in enumerate(out[name]):
            np.testing.assert_allclose(levels(images), batch[name][:, view], atol=1e-3)


def test_each_view_of_an_image_is_drawn_by_itself():
    count = 400
    batch = {"global": make_images(count, 2, 6, 6, 3), "local": make_images(count, 3, 4, 4, 3)}
    out = draw(replace(PLAIN, flip=True), batch, make_rngs(count))
    views = [(out["global"][view], batch["global"][:, view]) for view in range(2)]
    views += [(out["local"][view], batch["local"][:, view]) for view in range(3)]
    flipped = [(np.abs(levels(ours) - whole) > 0.5).any((1, 2, 3)) for ours, whole in views]
    np.testing.assert_allclose(np.mean(flipped, axis=1), 0.5, atol=0.1)  # 4 deviations
    correlations = np.corrcoef(np.asarray(flipped, float)) - np.eye(5)
    assert np.abs(correlations).max() < 0.2


@pytest.mark.slow
def test_views_are_changed_as_often_as_the_table_says():
    count = 1500
    views = replace(
        PLAIN, num_local=2, blur_probability=(0.1, 1.0, 0.5), solarize_probability=(0.0, 0.2, 0.0),
        blur_sigma=(0.5, 1.0),
    )  # fmt: skip
    impulse = jnp.zeros((count, 6, 6, 3), jnp.uint8).at[:, 3, 3].set(255)
    batch = {
        "global": jnp.stack([impulse] * 2, 1),
        "local": jnp.stack([impulse[:, 1:5, 1:5]] * 2, 1),
    }
    drawn = draw(views, batch, make_rngs(count))
    blurred = [
        (np.abs(levels(view) - 127.5) < 127).any((1, 2, 3))
        for view in (*drawn["global"], *drawn["local"])
    ]
    for changed, probability in zip(blurred, (0.1, 1.0, 0.5, 0.5), strict=True):
        assert abs(changed.mean() - probability) <= 3.7 * np.sqrt(
            probability * (1 - probability) / count
        )
    assert abs(np.corrcoef(blurred[2], blurred[3])[0, 1]) < 0.1  # each view on its own
    white = {"global": jnp.full((count, 2, 6, 6, 3), 255, jnp.uint8), "local": batch["local"]}
    black = [
        (levels(view) < 1).all((1, 2, 3)).mean()
        for view in draw(views, white, make_rngs(count))["global"]
    ]
    assert black[0] == 0 and abs(black[1] - 0.2) < 0.04


@pytest.mark.slow
def test_jitter_grey_and_flips_of_views():
    count = 1000
    views = replace(PLAIN, num_local=0, flip=True, hue=0.1, jitter_probability=0.8)
    images = jnp.zeros((count, 2, 6, 6, 3), jnp.uint8).at[:, :, :, 3:, 0].set(255)
    first, second = (
        levels(view) for view in draw(views, {"global": images}, make_rngs(count))["global"]
    )
    for view in (first, second):
        flipped = view[:, 0, 0, 0] > 128
        assert abs(flipped.mean() - 0.5) < 0.06
        turned = (np.abs(view[..., 1:]) > 0.01).any((1, 2, 3))
        assert abs(turned.mean() - 0.8) < 0.05
    assert abs(np.corrcoef(first[:, 0, 0, 0], second[:, 0, 0, 0])[0, 1]) < 0.12
    views = replace(views, hue=0.0, grey_probability=0.2)
    grey = draw(views, {"global": images}, make_rngs(count))["global"][0]
    is_grey = np.ptp(levels(grey), axis=-1).max((1, 2)) < 0.01
    assert abs(is_grey.mean() - 0.2) < 0.05


@pytest.mark.slow
def test_the_default_set_depends_on_the_example_alone():
    views = ViewSet(num_local=2, global_size=6, local_size=4)
    images, rngs = make_images(4, 16, 16, 3), make_rngs(4)
    whole = draw(views, {"image": images}, rngs)
    order = np.array([3, 1, 0, 2])
    other = draw(views, {"image": images[order]}, rngs[order])
    for ours, expected in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, expected[order], atol=2e-5)
        assert ours.dtype == jnp.float32
