"""Dictionaries of torch weights: names, wrappings of releases, parts left out, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fixed_head_jax import pretrained
from fixed_head_jax.model import get_model
from fixed_head_jax.pretrained.torch_names import to_detectron2
from tests.pretrained.weights import SMALL, model, small, small_dict, small_variables, state_dict


@pytest.mark.slow
def test_names_are_torch_names():
    names = set(small_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv2.weight", "linear.bias"} <= names
    assert small_dict()["layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert small_dict()["linear.weight"].shape == (3, 64)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: {f"module.{key}": value for key, value in d.items()},
        lambda d: {"state_dict": d, "epoch": 3},
        lambda d: {"state_dict": {}, "state_dict_ema": {f"module.{k}": v for k, v in d.items()}},
        lambda d: {f"module.backbone.{key}": value for key, value in d.items()},
        lambda d: {
            "feat_state_dict": {key: value for key, value in d.items() if "linear" not in key},
            "fc_state_dict": {key[7:]: value for key, value in d.items() if "linear" in key},
        },
        lambda d: d | {"bn1.num_batches_tracked": np.array(7)},
    ],
    ids=["parallel", "checkpoint", "ema", "self-classifier", "t-vMF", "counters"],
)
def test_wrappings_of_releases(wrap):
    back = pretrained.to_torch(pretrained.from_torch(wrap(small_dict()), SMALL, 8), SMALL)
    assert all(np.array_equal(back[key], value) for key, value in small_dict().items())


@pytest.mark.slow
def test_self_classifier_release_without_its_heads():
    release = {f"module.backbone.{k}": v for k, v in small_dict().items() if "linear" not in k}
    release |= {
        "module.mlp_head.mlp.0.weight": np.ones((4, 64)),
        "module.cls_0.weight_g": np.ones(3),
    }
    with pytest.raises(ValueError, match="unexpected: head.mlp_head.mlp.0.weight, head.cls_0"):
        pretrained.from_torch(release, SMALL, 8)
    variables = pretrained.from_torch(release, SMALL, 8, skip_head=True)
    assert np.array_equal(
        variables["params"]["backbone"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
        small_dict()["conv1.weight"],
    )


def test_one_error_lists_everything():
    given = small(extra=np.ones(2), **{"linear.weight": np.ones((4, 64), np.float32)})
    del given["conv1.weight"], given["bn1.running_mean"]
    with pytest.raises(ValueError) as error:
        pretrained.from_torch(given, SMALL, 8)
    for part in (
        "missing: bn1.running_mean, conv1.weight",
        "unexpected: extra",
        "shape: head.weight (4, 64) instead of (3, 64)",
        "init_skip",
    ):
        assert part in str(error.value)


def test_weights_of_rgb_images_name_the_key_that_reads_grey_ones_so():
    with pytest.raises(ValueError, match="data.channels=3"):
        pretrained.from_torch(small_dict(), SMALL, (8, 8, 1))
    with pytest.raises(ValueError, match="do not fit") as error:
        pretrained.from_torch(small(**{"linear.weight": np.ones((4, 64), np.float32)}), SMALL, 8)
    assert "data.channels" not in str(error.value)


def test_weights_of_another_network_are_refused_in_one_short_error():
    with pytest.raises(ValueError, match="and [0-9]+ more") as error:
        pretrained.from_torch(small_dict(), get_model(3, "resnet10"), 32)
    assert len(str(error.value)) < 1500


def test_skipped_parts_stay_at_their_initial_values():
    rng = jax.random.key(5)
    initial = small_variables(rng)
    given = small(**{"linear.weight": np.ones((7, 64)), "linear.bias": np.ones(7)})
    skip = (r"^head", r"layer3\.2")
    variables = pretrained.from_torch(given, SMALL, 8, skip=skip, rng=rng)
    initial, variables = (
        traverse_util.flatten_dict(tree, sep="/") for tree in (initial, variables)
    )
    for path, value in variables.items():
        kept = "head" in path or "layer3.2" in path
        differs = not np.array_equal(value, initial[path])
        assert not (kept and differs), path
        assert kept or differs or value.ndim < 2, path
    with pytest.raises(ValueError, match="skip pattern 'layer9' matches no name"):
        pretrained.from_torch(given, SMALL, 8, skip=("layer9",))


@pytest.mark.slow
def test_background_row_of_the_old_inception_file_is_dropped():
    given = state_dict("inception_v4")
    old = dict(given)
    for key in ("last_linear.weight", "last_linear.bias"):
        old[key] = np.concatenate([np.full_like(given[key][:1], 7), given[key]])
    head = pretrained.from_torch(old, model("inception_v4"), 107)["params"]["head"]
    np.testing.assert_array_equal(head["kernel"], given["last_linear.weight"].T)
    np.testing.assert_array_equal(head["bias"], given["last_linear.bias"])


def test_half_precision_becomes_float32():
    given = small(**{"linear.bias": np.array([1, 2, 3], np.float16)})
    assert pretrained.from_torch(given, SMALL, 8)["params"]["head"]["bias"].dtype == jnp.float32


def test_learned_weights_never_take_the_place_of_fixed_vectors():
    fixed = get_model(3, "resnet20", "orthogonal")
    variables = fixed.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    exported = pretrained.to_torch(variables, fixed)
    kernel = variables["fixed"]["head"]["kernel"]
    np.testing.assert_array_equal(exported["linear.fixed_weight"], kernel.T)
    back = pretrained.from_torch(exported, fixed, 8)
    np.testing.assert_array_equal(back["fixed"]["head"]["kernel"], kernel)
    with pytest.raises(ValueError, match="missing: head.fixed_weight; unexpected: head.weight"):
        pretrained.from_torch(small_dict(), fixed, 8)


@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({}, {"skip": "^head"}, "is a string; pass a sequence"),
        ({}, {"skip": ("(",)}, "is no pattern"),
        ({"module.conv1.weight": np.zeros((16, 3, 3, 3))}, {}, "hold 'conv1.weight' twice"),
        ({"linear.weight": np.zeros((1001, 64))}, {}, "shape: head.weight"),
        ({3: np.zeros(3)}, {}, "unexpected: 3"),
    ],
)
def test_mistakes(changes, options, message):
    with pytest.raises(ValueError, match=message):
        pretrained.from_torch({**small_dict(), **changes}, SMALL, 8, **options)


def test_head_may_be_skipped_where_there_is_none():
    identity = get_model(3, "resnet20", "identity")
    backbone = {key: value for key, value in small_dict().items() if "linear" not in key}
    variables = pretrained.from_torch(backbone, identity, 8, skip=("^head",))
    assert set(variables["params"]) == {"backbone"}


@pytest.mark.slow
def test_self_classifier_release_with_its_heads():
    options = dict(num_clusters=(3, 5), hidden_dim=6, dim=4)
    model = get_model(3, "resnet20", "projection", head_options=options)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)), train=False)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: random.random(x.shape, np.float32), variables)
    state_dict = pretrained.to_torch(variables, model)
    release = {
        "module." + (name.removeprefix("linear.") if "linear." in name else f"backbone.{name}"): v
        for name, v in state_dict.items()
    }
    heads = {name: v.shape for name, v in release.items() if "backbone" not in name}
    assert heads == {
        "module.mlp_head.mlp.0.weight": (6, 64), "module.mlp_head.mlp.0.bias": (6,),
        **{f"module.mlp_head.mlp.1.{leaf}": (6,) for leaf in (
            "weight", "bias", "running_mean", "running_var"
        )},
        "module.mlp_head.mlp.3.weight": (4, 6), "module.mlp_head.mlp.3.bias": (4,),
        "module.cls_0.weight_g": (3, 1), "module.cls_0.weight_v": (3, 4),
        "module.cls_1.weight_g": (5, 1), "module.cls_1.weight_v": (5, 4),
    }  # fmt: skip
    back = pretrained.from_torch(release, model, 8)
    for ours, theirs in zip(*map(jax.tree.leaves, (back, variables)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The classifiers can be left out, and nothing else with them.
    kept = pretrained.from_torch(release, model, 8, skip=("^head.cls_",))
    assert "mlp_head" in kept["params"]["head"]


def test_detectron2_names():
    resnet50 = get_model(2, "resnet50")
    shapes = jax.eval_shape(
        lambda: resnet50.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    exported = to_detectron2(pretrained.to_torch(variables, resnet50))
    assert set(exported) == {"model", "__author__", "matching_heuristics"}
    names = exported["model"]
    assert len(names) == 318 - 53  # without the counters of batches
    for name in (
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res3.0.shortcut.norm.weight",
        "res3.0.shortcut.weight",
        "res2.0.conv1.weight",
        "res5.2.conv3.norm.bias",
    ):
        assert name in names
    with pytest.raises(ValueError, match="needs a ResNet"):
        to_detectron2({"features.0.0.weight": np.ones(1)})
