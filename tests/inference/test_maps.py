"""Class maps: their means are the logits, on every head that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.display.class_maps import overlay, scale_maps
from fixed_head_jax.heads import HEADS
from fixed_head_jax.inference.map_sheet import map_sheet
from fixed_head_jax.inference.maps import class_maps, grad_cam
from fixed_head_jax.inference.predict import predict_files
from fixed_head_jax.inference.predictor import Predictor, Preprocessing
from fixed_head_jax.model import get_model

CLASSES = np.array([4, 0, 3])


def after_backbone(model, feature_map):
    features = model.pool(feature_map)
    return features, model.head(features)


def make(head, pool="mean", **options):
    """Returns a model of 5 classes, its head's variables and a feature map [2, 3, 4, 8]."""
    model = get_model(5, "resnet20", head, pool, head_options=options)
    feature_map = jax.random.normal(jax.random.key(1), (2, 3, 4, 8)) + 0.3
    variables = model.init(jax.random.key(0), feature_map, method=after_backbone)
    return model, variables, feature_map


@pytest.mark.parametrize("head", HEADS)
def test_the_mean_of_a_map_is_the_logit(head):
    model, variables, feature_map = make(head)
    maps = class_maps(model, variables, feature_map, CLASSES)
    assert maps.shape == (2, 3, 4, 3)
    features, logits = map(np.asarray, model.apply(variables, feature_map, method=after_backbone))
    means, norms = np.asarray(maps.mean((1, 2))), np.linalg.norm(features, axis=1)
    if model.head.compares_directions:
        kernel = np.asarray(model.class_vectors(variables, 8))
        cosines = features @ kernel / np.linalg.norm(kernel, axis=0) / norms[:, None]
        np.testing.assert_allclose(means / norms[:, None], cosines[:, CLASSES], atol=1e-5)
        assert (np.argsort(logits, 1) == np.argsort(cosines, 1)).all()
        return
    _, bias = model.apply(variables, 0 * feature_map, method=after_backbone)
    shown = (logits - np.asarray(bias))[:, CLASSES]
    if getattr(model.head, "normalize_features", False):
        means = means / norms[:, None]
    np.testing.assert_allclose(means, shown, atol=1e-5)


@pytest.mark.parametrize("take", ["first", "last"])
def test_with_an_identity_head_a_channel_is_the_map(take):
    model, variables, feature_map = make("identity", take=take)
    maps = class_maps(model, variables, feature_map, CLASSES)
    np.testing.assert_array_equal(maps, feature_map[..., CLASSES + (3 if take == "last" else 0)])
    program = jax.make_jaxpr(lambda f: class_maps(model, variables, f, CLASSES))(feature_map)
    assert "dot_general" not in str(program)


def test_what_has_no_maps_says_why():
    for head, pool, message in (
        ("linear", "max", "max pooling has no class maps"),
        ("projection", "mean", "projection head has no class maps"),
    ):
        model = get_model(5, "resnet20", head, pool)
        with pytest.raises(ValueError, match=message):
            class_maps(model, {}, jnp.ones((1, 2, 2, 64)), CLASSES)


def test_grad_cam_of_a_linear_head_on_mean_pooling_is_its_positive_part():
    model, variables, feature_map = make("linear")
    labels = np.array([3, 1])
    found = grad_cam(model, variables, feature_map, labels)
    maps = class_maps(model, variables, feature_map, labels)
    expected = np.maximum(np.stack([maps[0, ..., 0], maps[1, ..., 1]]), 0) / 12  # positions
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_scales_and_overlays():
    maps = np.array([[[-1.0, 2.0, 1.0], [4.0, 2.0, 0.0]]])
    np.testing.assert_allclose(scale_maps(maps), [[[0, 0.5, 0.25], [1, 0.5, 0]]])
    np.testing.assert_allclose(scale_maps(maps, is_joint=False), [[[0, 0, 1], [1, 0, 0]]])
    photograph = np.full((5, 5, 1), 100, np.uint8)
    drawn = overlay(photograph, np.array([[0.0, 1.0]]), 40)
    assert drawn.shape == (40, 40, 3)
    brightness = drawn.astype(int).sum((0, 2))
    assert (np.diff(brightness) >= 0).all() and brightness[-1] > 2 * brightness[0]


class Quarters:
    """Its feature map, of an identity head on four classes, is the brightness of each quarter."""

    pool = get_model(4, "resnet20", "identity").pool
    head = get_model(4, "resnet20", "identity").head

    def apply(self, variables, images, train):
        del variables, train
        size = images.shape[1] // 2
        feature_map = jnp.zeros((len(images), 2, 2, 4))
        for k in range(4):
            row, column = divmod(k, 2)
            part = images[:, row * size :, column * size :][:, :size, :size].mean((1, 2, 3)) + 1
            feature_map = feature_map.at[:, row, column, k].set(part)
        features = feature_map.mean((1, 2))
        return {"logits": features, "features": features, "feature_map": feature_map}


@pytest.fixture
def predictor():
    preprocessing = Preprocessing((8, 8, 1), 0, "bilinear", (0.5,), (0.5,))
    names = ("upper left", "upper right", "lower left", "lower right")
    return Predictor("q", Quarters(), {}, preprocessing, names)


def test_prediction_draws_the_maps_of_every_photograph(predictor, tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4, 4:] = 255  # upper right
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    predict_files(predictor, [str(tmp_path)], tmp_path / "out.csv", maps=True)
    drawn = sorted((tmp_path / "out_maps").iterdir())
    assert [path.name for path in drawn] == ["000000_a.png", "000001_b.png"]
    picture = np.asarray(Image.open(drawn[1])).astype(int).sum(-1)[20:-20]
    cell = picture[:, 4 + 228 : 4 + 228 + 224]  # of the most probable class
    assert cell[:112, 112:].mean() > 3 * cell[112:, :112].mean()
    with pytest.raises(ValueError, match="--maps needs --out"):
        predict_files(predictor, [str(tmp_path / "a.png")], maps=True)


def test_a_sheet_shows_each_class_where_it_is(predictor, tmp_path):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[8:, :8] = 255  # lower left
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sheet = map_sheet(predictor, [tmp_path / "a.png"], top_k=1, sizes=(8, 16), cell=40)
    assert sheet.shape == (16 + 4 + 2 * (40 + 16 + 4), 4 + 3 * 44, 3)
    for row in range(2):  # of two sizes: the photograph, its class, the least probable one
        top = 20 + row * 60
        drawn, other = (sheet[top : top + 40, 4 + c * 44 :][:, :40].sum(-1) for c in (1, 2))
        assert drawn[20:, :20].mean() > 3 * drawn[:20, 20:].mean()
        assert other.max() < drawn.max() / 2
    with pytest.raises(ValueError, match="'lower', .*did you mean 'lower left'"):
        map_sheet(predictor, [pixels], classes=["lower"])
