"""Vision transformer: counts, names, a plain numpy network, positions at other sizes, options."""

import itertools
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from scipy.special import erf

from fixed_head_jax.backbones import vit
from fixed_head_jax.backbones.positions import resample_positions, resize_positions
from fixed_head_jax.backbones.vit import ViT

RNG = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
tiny = partial(ViT, width=16, depth=2, num_heads=2, patch_size=4, image_size=16)
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def named(tree):
    """Returns the leaves by their dotted path."""
    return traverse_util.flatten_dict(tree, sep=".")


def random_variables(backbone, images=IMAGES):
    """Returns variables far from their initial values: every bias and scale counts."""
    shapes = jax.eval_shape(lambda: backbone.init(RNG, images, False))
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    leaves = [(0.4 * rng.normal(size=leaf.shape) + 0.1).astype(np.float32) for leaf in leaves]
    return jax.tree.map(jnp.asarray, jax.tree.unflatten(structure, leaves))


def apply(backbone, variables, images, train=False):
    return jax.jit(backbone.apply, static_argnums=2)(variables, images, train)


# Networks.


@pytest.mark.parametrize(
    "name, expected",
    [
        ("vit_tiny", 5_524_416),
        ("vit_small", 21_665_664),
        ("vit_base", 85_798_656),
        ("deit_tiny", 5_524_416),
        ("deit_small", 21_665_664),
    ],
)
def test_counts_and_shapes(name, expected):
    backbone = getattr(vit, name)()
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    run = partial(backbone.init_with_output, train=False)
    feature_map, variables = jax.eval_shape(run, RNG, images)
    assert feature_map.shape == (2, 1, 1, backbone.num_features)
    assert feature_map.dtype == jnp.float32 and set(variables) == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


def test_names_are_those_of_timm():
    """Up to kernel and scale, which are its weight."""
    params = jax.eval_shape(lambda: tiny(depth=1).init(RNG, IMAGES, False))["params"]
    layers = ["patch_embed.proj", *(f"blocks.0.{layer}" for layer in BLOCK), "norm"]
    expected = {"cls_token", "pos_embed"} | {f"{layer}.bias" for layer in layers}
    expected |= {f"{layer}.{'scale' if 'norm' in layer else 'kernel'}" for layer in layers}
    assert set(named(params)) == expected
    assert params["cls_token"].shape == (1, 1, 16) and params["pos_embed"].shape == (1, 17, 16)


def test_layers_cover_the_parameters_in_order():
    params = jax.eval_shape(lambda: tiny().init(RNG, IMAGES, False))["params"]
    layers = tiny().layers
    embedding = ("cls_token", "pos_embed", "patch_embed")
    assert layers == (embedding, ("blocks.0",), ("blocks.1",), ("norm",))
    names = [name for layer in layers for name in layer]
    assert len(names) == len(set(names)) and set(names) == set(params)


def test_initial_values():
    params = jax.jit(lambda: tiny(width=64, depth=1).init(RNG, IMAGES, False))()["params"]
    for name, leaf in named(params).items():
        values = np.asarray(leaf)
        if name.startswith("patch_embed"):
            bound = (4 * 4 * 3) ** -0.5
            assert 0.9 * bound < np.abs(values).max() <= bound, name
        elif leaf.ndim == 1:
            np.testing.assert_array_equal(values, float(name.endswith("scale")), name)
        else:
            assert values.std() == pytest.approx(0.02, rel=4 / values.size**0.5), name
            if values.size > 4096:
                assert np.abs(values).max() > 0.06, name  # normal, not truncated at two sigma


# Forward and backward pass.


def numpy_layer_norm(x, params):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * params["scale"] + params["bias"]


def numpy_dense(x, params):
    return x @ params["kernel"] + params["bias"]


def numpy_attention(x, params, num_heads):
    """One example [N, C]: queries of all heads come first, then keys, then values."""
    width = x.shape[1] // num_heads
    qkv = numpy_dense(x, params["qkv"])
    heads = []
    for head in range(num_heads):
        starts = [(part * num_heads + head) * width for part in range(3)]
        query, key, value = (qkv[:, start : start + width] for start in starts)
        weights = np.exp(query @ key.T / np.sqrt(width))
        heads.append(weights / weights.sum(1, keepdims=True) @ value)
    return numpy_dense(np.concatenate(heads, axis=1), params["proj"])


def numpy_vit(image, params, num_heads, depth, patch):
    """Returns the features of one image [H, W, 3] in float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    image, proj = np.asarray(image, np.float64), params["patch_embed"]["proj"]
    tokens = [params["cls_token"][0, 0]]
    for row in range(0, image.shape[0], patch):
        for column in range(0, image.shape[1], patch):
            square = image[row : row + patch, column : column + patch]
            tokens.append(np.einsum("ijc,ijcd->d", square, proj["kernel"]) + proj["bias"])
    x = np.stack(tokens) + params["pos_embed"][0]
    for index in range(depth):
        block = params[f"blocks.{index}"]
        x = x + numpy_attention(numpy_layer_norm(x, block["norm1"]), block["attn"], num_heads)
        y = numpy_dense(numpy_layer_norm(x, block["norm2"]), block["mlp"]["fc1"])
        x = x + numpy_dense(0.5 * y * (1 + erf(y / np.sqrt(2))), block["mlp"]["fc2"])
    return numpy_layer_norm(x, params["norm"])[0]


def test_forward_against_numpy():
    variables = random_variables(tiny())
    result = apply(tiny(), variables, IMAGES)
    assert result.shape == (2, 1, 1, 16) and result.dtype == jnp.float32
    for image, features in zip(IMAGES, result[:, 0, 0], strict=True):
        expected = numpy_vit(image, variables["params"], num_heads=2, depth=2, patch=4)
        np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)
    plain = tiny().apply(variables, IMAGES, True)
    np.testing.assert_allclose(plain, result, rtol=1e-6, atol=1e-6)


def test_every_example_by_itself():
    """Exchanging the other example changes nothing, in training either."""
    variables = random_variables(tiny())
    other = IMAGES.at[1].set(5.0)
    both = [apply(tiny(), variables, images, True) for images in (IMAGES, other)]
    np.testing.assert_array_equal(both[0][0], both[1][0])
    assert np.abs(both[0][1] - both[1][1]).max() > 0.1


@pytest.mark.slow
def test_other_sizes_interpolate_the_positions():
    """96 pixels with a table for 224: as a network whose own table is the interpolated one."""
    backbone = ViT(width=32, depth=1, num_heads=2)
    images = jax.random.normal(RNG, (2, 96, 96, 3))
    variables = random_variables(backbone, images)
    table = variables["params"]["pos_embed"]
    assert table.shape == (1, 197, 32)
    result = apply(backbone, variables, images)
    own = {"params": {**variables["params"], "pos_embed": resize_positions(table, 6, 6)}}
    expected = apply(backbone.clone(image_size=96), own, images)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    wide = apply(backbone, variables, images[:, :32])
    assert wide.shape == (2, 1, 1, 32)


@cache
def gradients(backbone):
    """Returns the gradient of the sum of squares, by dotted path."""
    variables = random_variables(backbone)

    def loss(params):
        features = backbone.apply({"params": params}, IMAGES, True)
        return jnp.square(features.astype(jnp.float32)).sum()

    return named(jax.jit(jax.grad(loss))(variables["params"]))


@pytest.mark.slow
def test_gradients_reach_every_parameter():
    for name, leaf in gradients(tiny()).items():
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-3, name


@pytest.mark.slow
def test_remat_changes_no_value():
    plain, remat = tiny(), tiny(remat=True)
    variables = random_variables(plain)
    jax.tree.map(np.testing.assert_array_equal, random_variables(remat), variables)
    results = [apply(backbone, variables, IMAGES) for backbone in (plain, remat)]
    np.testing.assert_allclose(*results, rtol=1e-6, atol=1e-6)
    for name, leaf in gradients(remat).items():
        np.testing.assert_allclose(leaf, gradients(plain)[name], rtol=1e-6, atol=2e-6, err_msg=name)
    for backbone in (plain, remat):
        program = jax.make_jaxpr(lambda v, b=backbone: b.apply(v, IMAGES, True))(variables)
        assert str(program).count("prevent_cse") == 2 * backbone.remat


@pytest.mark.slow
def test_bfloat16_keeps_parameters_softmax_and_statistics_in_float32():
    backbone = tiny(dtype=jnp.bfloat16)
    variables = random_variables(backbone)
    initial = jax.eval_shape(lambda: backbone.init(RNG, IMAGES, False))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}
    result = apply(backbone, variables, IMAGES)
    assert result.dtype == jnp.bfloat16
    expected = apply(tiny(), variables, IMAGES)
    assert 0 < np.abs(result.astype(jnp.float32) - expected).max() < 0.02
    assert {leaf.dtype for leaf in gradients(backbone).values()} == {jnp.dtype("float32")}
    text = str(jax.make_jaxpr(lambda v: backbone.apply(v, IMAGES, False))(variables))
    # Exponentials: softmax; reciprocal roots: layer norm.
    assert set(re.findall(r":(\w+)\[[\d,]*\] = (?:exp|rsqrt)\b", text)) == {"f32"}


# Positions.


def test_positions_of_the_reference():
    """Worked numbers of the specification: step 14 / 6.1 and not 14 / 6, which gives 1.845332."""
    table = (jnp.arange(197 * 192.0) / 1000).reshape(1, 197, 192)
    result = resize_positions(table, 6, 6)
    assert result.shape == (1, 37, 192) and result.dtype == jnp.float32
    expected = [0.0, 1.786184, 2.240293, 8.143698, 35.251846]
    np.testing.assert_allclose(result[0, [0, 1, 2, 7, 36], 0], expected, rtol=1e-6, atol=1e-6)
    assert resize_positions(table, 14, 14) is table


@pytest.mark.parametrize("rows, columns", [(3, 7), (9, 4), (1, 5)])
def test_positions_against_a_direct_sum(rows, columns):
    """One new position at a time, from the sixteen old ones around it."""
    table = np.random.default_rng(0).normal(size=(1, 26, 3)).astype(np.float32)
    result = resize_positions(jnp.asarray(table), rows, columns)
    np.testing.assert_array_equal(result[:, 0], table[:, 0])

    def weight(distance):
        near = 1.25 * distance**3 - 2.25 * distance**2 + 1
        far = -0.75 * distance**3 + 3.75 * distance**2 - 6 * distance + 3
        return near if distance < 1 else far if distance < 2 else 0.0

    for i, j in np.ndindex(rows, columns):
        y = (i + 0.5) * 5 / (rows + 0.1) - 0.5
        x = (j + 0.5) * 5 / (columns + 0.1) - 0.5
        total = np.zeros(3)
        for old_y, old_x in np.ndindex(11, 11):
            old_y, old_x = old_y - 3, old_x - 3
            index = 1 + 5 * min(max(old_y, 0), 4) + min(max(old_x, 0), 4)
            total += weight(abs(y - old_y)) * weight(abs(x - old_x)) * table[0, index]
        np.testing.assert_allclose(result[0, 1 + i * columns + j], total, atol=1e-6)


def test_resampled_positions_of_torch():
    """Outputs of torch 2.13 in float64: bicubic interpolation to (2, 3), antialiased."""
    rows, columns = np.ogrid[:5, :5]
    grid = (7.0 * rows + 3 * columns**2) % 10
    table = np.concatenate([[-1.0], grid.ravel()]).reshape(1, 26, 1)
    result = resample_positions(table, 2, 3)[0, :, 0]
    expected = [-1.0, 3.246147, 4.905036, 5.042412, 3.987975, 3.450258, 5.831516]
    np.testing.assert_allclose(result, expected, atol=1e-6)


def cubic(distance):
    """The cubic convolution kernel with a = -1/2."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return near if distance < 1 else far if distance < 2 else 0.0


def taps(size, new_size, i):
    """Returns the old positions within reach of new position i and their weights, one by one."""
    step = size / new_size
    stretch = max(step, 1.0)
    centre = (i + 0.5) * step
    first = max(int(centre - 2 * stretch + 0.5), 0)
    last = min(int(centre + 2 * stretch + 0.5), size)
    weights = [cubic(abs(old + 0.5 - centre) / stretch) for old in range(first, last)]
    return [(old, w / sum(weights)) for old, w in zip(range(first, last), weights, strict=True)]


@pytest.mark.parametrize("rows, columns", [(3, 7), (9, 4), (1, 5), (5, 6), (8, 8), (2, 2)])
def test_resampled_positions_against_a_direct_sum(rows, columns):
    table = np.random.default_rng(0).normal(size=(1, 26, 3)).astype(np.float32)
    result = resample_positions(table, rows, columns)
    assert result.dtype == np.float32 and result.shape == (1, 1 + rows * columns, 3)
    np.testing.assert_array_equal(result[:, 0], table[:, 0])
    for i, j in np.ndindex(rows, columns):
        total = np.zeros(3)
        for (y, wy), (x, wx) in itertools.product(taps(5, rows, i), taps(5, columns, j)):
            total += wy * wx * table[0, 1 + 5 * y + x]
        np.testing.assert_allclose(result[0, 1 + i * columns + j], total, atol=3e-7)


def test_positions_of_the_same_size_stay_as_they_are():
    table = np.random.default_rng(0).normal(size=(1, 26, 3)).astype(np.float32)
    assert resample_positions(table, 5, 5) is table
    # A grid of as many positions in another form is another grid.
    square = np.random.default_rng(0).normal(size=(1, 37, 3)).astype(np.float32)
    assert not np.array_equal(resample_positions(square, 4, 9), square)


def test_errors():
    for field in ("width", "depth", "num_heads", "patch_size", "image_size"):
        with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
            tiny(**{field: 0})
    with pytest.raises(ValueError, match=r"width must be a multiple of num_heads \(3\), got 16"):
        tiny(num_heads=3)
    with pytest.raises(ValueError, match=r"image_size must be a multiple of patch_size \(4\)"):
        tiny(image_size=18)
    for what, images in (("height", IMAGES[:, :10]), ("width", IMAGES[:, :, :10])):
        message = rf"image {what} must be a multiple of patch_size \(4\), got 10; resize the images"
        with pytest.raises(ValueError, match=message):
            tiny().init(RNG, images, False)
    with pytest.raises(ValueError, match=r"table must hold 1 \+ g \* g positions, got 16"):
        resize_positions(jnp.zeros((1, 16, 4)), 2, 2)
    with pytest.raises(ValueError, match=r"table must hold 1 \+ g \* g positions, got 198"):
        resample_positions(np.zeros((1, 198, 4)), 2, 2)
