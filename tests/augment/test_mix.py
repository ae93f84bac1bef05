"""Mixup and CutMix against numpy and on split batches; erased rectangles and their fills."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from scipy import stats

from fixed_head_jax.augment import mix
from fixed_head_jax.devices import parallel

many_shares = jax.jit(
    lambda rngs, options: jax.vmap(lambda rng: mix.draw_shares(rng, 12, 20, **dict(options)))(rngs),
    static_argnums=1,
)
cutmix_shares = jax.jit(mix.cutmix_shares, static_argnums=(2, 3))
erase = jax.jit(mix.erase, static_argnums=(2, 3, 4, 5))
erased_boxes = jax.jit(
    lambda draws, height, width: jax.vmap(lambda one: mix.erased_box(one, height, width))(draws),
    static_argnums=(1, 2),
)


def make_rngs(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def make_batch(count, height=4, width=6):
    random = np.random.default_rng(0)
    images = random.normal(size=(count, height, width, 3)).astype(np.float32)
    return images, np.eye(5, dtype=np.float32)[random.integers(0, 5, count)]


def test_mixup_of_the_specification():
    pixels = jnp.asarray([10, 201], jnp.uint8).reshape(2, 1, 1, 1)
    targets = optax.smooth_labels(jax.nn.one_hot(jnp.array([0, 2]), 4), 0.1)
    images, targets = mix.mix(pixels, targets, jnp.full((1, 1), 0.7))
    np.testing.assert_array_equal(images.ravel(), [67, 144])
    assert images.dtype == jnp.uint8
    expected = [[0.655, 0.025, 0.295, 0.025], [0.295, 0.025, 0.655, 0.025]]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    logits = jnp.array([[2.0, 1.0, 0.0, -1.0]])
    loss = optax.softmax_cross_entropy(logits, targets[:1])
    np.testing.assert_allclose(loss, [1.1301897], atol=1e-6)


def test_mix_matches_numpy():
    images, targets = make_batch(5)
    shares = np.random.default_rng(1).uniform(size=(4, 6)).astype(np.float32)
    mixed, mixed_targets = mix.mix(*map(jnp.asarray, (images, targets, shares)))
    for i in range(5):
        share = shares[..., None]
        expected = share * images[i] + (1 - share) * images[4 - i]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)
        expected = shares.mean() * targets[i] + (1 - shares.mean()) * targets[4 - i]
        np.testing.assert_allclose(mixed_targets[i], expected, atol=1e-6)
    kept, kept_targets = mix.mix(jnp.asarray(images), jnp.asarray(targets), jnp.ones((4, 6)))
    np.testing.assert_array_equal(kept, images)
    np.testing.assert_array_equal(kept_targets, targets)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_pairs_do_not_depend_on_the_number_of_devices(num_devices):
    images, targets = make_batch(8)
    shares = jnp.full((4, 6), 0.3)

    def step(images, targets):
        return mix.mix(images, targets, shares, parallel.AXIS)

    spec = PartitionSpec(parallel.AXIS)
    mesh = parallel.make_mesh(num_devices)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    whole = mix.mix(jnp.asarray(images), jnp.asarray(targets), shares)
    for out, expected in zip(jax.jit(mapped)(images, targets), whole, strict=True):
        np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.slow
def test_mixup_weights_are_beta():
    shares = np.asarray(many_shares(make_rngs(1500), (("mixup_alpha", 0.2),)))
    np.testing.assert_array_equal(shares, np.broadcast_to(shares[:, :1, :1], shares.shape))
    assert shares.min() >= 0 and shares.max() <= 1
    assert stats.kstest(shares[:, 0, 0], stats.beta(0.2, 0.2).cdf).pvalue > 0.001


def numpy_cutmix(weight, down, across, height, width):
    shares = np.ones((height, width))
    half_height = int(height * np.sqrt(1 - weight)) // 2
    half_width = int(width * np.sqrt(1 - weight)) // 2
    top, left = max(down - half_height, 0), max(across - half_width, 0)
    shares[top : down + half_height, left : across + half_width] = 0
    return shares


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("down, across", [(0, 0), (5, 13), (11, 19)])
def test_cutmix_matches_numpy(weight, down, across):
    centre = jnp.asarray([(down + 0.5) / 12, (across + 0.5) / 20])
    shares = cutmix_shares(jnp.asarray(weight), centre, 12, 20)
    np.testing.assert_array_equal(shares, numpy_cutmix(weight, down, across, 12, 20))


def test_cutmix_pastes_and_weighs_by_the_area():
    images, targets = make_batch(4, 12, 20)
    shares = cutmix_shares(jnp.asarray(0.5), jnp.asarray([0.1, 0.5]), 12, 20)
    mixed, mixed_targets = mix.mix(jnp.asarray(images), jnp.asarray(targets), shares)
    inside = np.asarray(shares) == 0  # 12 and 20 times sqrt(1/2): 8 and 14; 3 rows are outside
    assert inside.sum() == 5 * 14
    np.testing.assert_array_equal(np.asarray(mixed)[:, inside], images[::-1][:, inside])
    np.testing.assert_array_equal(np.asarray(mixed)[:, ~inside], images[:, ~inside])
    own = 1 - 70 / 240
    np.testing.assert_allclose(mixed_targets, own * targets + (1 - own) * targets[::-1], atol=1e-6)


@pytest.mark.slow
def test_the_policy_switches_and_skips_and_draws_rectangles_evenly():
    options = dict(mixup_alpha=2.0, cutmix_alpha=1.0, probability=0.8, switch_probability=0.75)
    shares = np.asarray(many_shares(make_rngs(4000), tuple(options.items())))
    flat = (shares == shares[:, :1, :1]).all((1, 2))
    mixed = flat & (shares[:, 0, 0] < 1)
    weights = shares[mixed, 0, 0]
    assert stats.kstest(weights, stats.beta(2, 2).cdf).pvalue > 0.001
    random = np.random.default_rng(0)
    cuts = np.array(
        [
            numpy_cutmix(random.beta(1, 1), random.integers(12), random.integers(20), 12, 20)
            for _ in range(4000)
        ]
    )
    is_cut = (cuts < 1).any((1, 2))  # small rectangles have no pixels
    assert abs(mixed.mean() - 0.8 * 0.25) < 0.024
    assert abs((~flat).mean() - 0.8 * 0.75 * is_cut.mean()) < 0.035
    expected, ours = cuts[is_cut].mean(0), shares[~flat]
    deviation = np.sqrt(expected * (1 - expected) * (1 / is_cut.sum() + 1 / len(ours)))
    assert (np.abs(ours.mean(0) - expected) < 4 * deviation).all()


@pytest.mark.slow
def test_cutmix_alone_is_always_taken():
    for shares in np.asarray(many_shares(make_rngs(4), (("cutmix_alpha", 3.0),))):
        np.testing.assert_array_equal(np.unique(shares), [0, 1])


def test_erased_rectangle_of_the_specification():
    ratio = np.log(2 / 0.3) / np.log(1 / 0.3**2)
    area = (0.1 - 0.02) / (1 / 3 - 0.02)
    box = mix.erased_box(jnp.asarray([[area, ratio, 0.0, 0.999]]), 299, 299)
    np.testing.assert_array_equal(box, [0, 299 - 67, 134, 67])


def test_rectangles_are_spread_evenly():
    draws = np.random.default_rng(0).random((1500, 10, 4), np.float32)
    boxes = np.asarray(erased_boxes(draws, 100, 120))
    top, left, height, width = boxes.T
    assert boxes.min() >= 0 and height.max() < 100 and width.max() < 120
    assert (top + height).max() <= 100 and (left + width).max() <= 120
    share, aspect = height * width / 12000, height / width
    assert 0.018 < share.min() and share.max() < 0.345
    assert 0.28 < aspect.min() and aspect.max() < 3.6
    # Up to an area of 0.24 every aspect fits: the smaller shares are uniform, their aspects too.
    small = share < 0.22
    assert stats.kstest(share[small], stats.uniform(0.02, 0.2).cdf).pvalue > 0.001
    log = stats.uniform(np.log(0.3), -2 * np.log(0.3))
    assert stats.kstest(np.log(aspect[small]), log.cdf).pvalue > 0.001
    for start, length, side in ((top, height, 100), (left, width, 120)):
        # A place among n, spread over its share of 0 ... 1.
        spread = np.random.default_rng(1).random(len(start))
        place = (start + spread) / (side - length + 1)
        assert stats.kstest(place, stats.uniform.cdf).pvalue > 0.001


def test_later_attempts_and_none():
    draws = np.zeros((2, 3, 4), np.float32)
    draws[:, :, :2] = [0.9999, 0.9999]  # a third of the area at aspect 1 / 0.3: too high here
    draws[1, 1] = [0.0, 0.5, 0.0, 0.0]
    np.testing.assert_array_equal(erased_boxes(draws, 20, 40), [[0, 0, 0, 0], [0, 0, 4, 4]])


@pytest.mark.parametrize(
    "fill", ["const", *(pytest.param(fill, marks=pytest.mark.slow) for fill in ("rand", "pixel"))]
)
def test_fills(fill):
    images = np.full((600, 16, 12, 3), 9.0, np.float32)
    out = np.asarray(erase(make_rngs(600), images, 0.5, fill))
    elsewhere = erase(make_rngs(600)[::-1], images, 0.5, fill)[::-1]  # in another batch and place
    np.testing.assert_array_equal(out, elsewhere)
    erased = (out != 9).any(-1)
    np.testing.assert_array_equal(erased, (out != 9).all(-1))
    changed = erased.any((1, 2))
    assert abs(changed.mean() - 0.5) < 0.075  # 3.7 standard deviations
    rows, columns = erased.any(2), erased.any(1)
    np.testing.assert_array_equal(erased, rows[:, :, None] & columns[:, None])
    for line in (rows, columns):  # without gaps
        edges = np.abs(np.diff(np.pad(line[changed], ((0, 0), (1, 1))).astype(int)))
        assert (edges.sum(1) == 2).all()
    if fill == "const":
        assert (out[erased] == 0).all()
        return
    if fill == "rand":
        for image, pixels in zip(out[changed], erased[changed], strict=True):
            assert (image[pixels] == image[pixels][0]).all()
        colours = np.array([image[p][0] for image, p in zip(out, erased, strict=True) if p.any()])
    else:
        colours = out[erased]
        assert len(np.unique(colours)) > 0.99 * colours.size
    assert stats.kstest(colours.ravel(), stats.norm.cdf).pvalue > 0.001
    np.testing.assert_allclose(np.corrcoef(colours.T), np.eye(3), atol=0.25)


@pytest.mark.slow
def test_erasing_side_by_side_equals_one_after_the_other(monkeypatch):
    images = np.zeros((600, 16, 12, 3), np.float32)
    expected = erase(make_rngs(600), images, 0.5, "pixel")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    out = jax.jit(lambda *arrays: mix.erase(*arrays, 0.5))(make_rngs(600), images)
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(area=(0.0, 0.3)), "area must be a range of shares"),
        (dict(area=(0.5, 1.3)), "area must be a range of shares"),
        (dict(aspect=(3.0, 0.3)), "aspect must be a range of numbers > 0"),
    ],
)
def test_erase_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        mix.erase(make_rngs(1), jnp.zeros((1, 4, 4, 3)), 0.5, **arguments)
