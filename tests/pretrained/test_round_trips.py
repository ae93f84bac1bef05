"""Every variable of every head, shortcut and pooling goes to torch and back, bit for bit."""

import itertools
from dataclasses import fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from safetensors.numpy import save_file

from fixed_head_jax import pretrained
from fixed_head_jax.backbones import BACKBONES, cifar_resnet, get_backbone, resnet
from fixed_head_jax.backbones.vit import ViT
from fixed_head_jax.heads import EMBEDDING_HEADS, HEADS, get_head, projection
from fixed_head_jax.layers.pooling import POOLINGS, Mean, get_pool
from fixed_head_jax.model import Classifier
from fixed_head_jax.pretrained.files import read_weights

BOOL = (False, True)
# Per head: the values of the options that decide what there is to learn or to store.
OPTIONS = {
    "linear": {"use_bias": BOOL, "class_scales": BOOL},
    "random": {"learned": BOOL},
    "orthogonal": {"init_scale": (None, 10.0), "use_bias": BOOL},
    "hadamard": {"learn_scale": BOOL, "use_bias": BOOL, "learned": BOOL},
    "identity": {"use_bias": BOOL},
    "simplex": {"project": BOOL, "learn_scale": BOOL},
    "simplex_etf": {"project": BOOL, "learn_scale": BOOL},
    "orthoplex": {"project": BOOL, "learn_scale": BOOL},
    "cube": {"project": BOOL, "random_codes": BOOL, "learn_scale": BOOL},
    **dict.fromkeys(
        ("cosine", "tvmf"),
        {
            "fixed": BOOL,
            "scale_form": ("softplus", "learned", "constant"),
            "bias_form": ("none", "inside", "outside"),
        },
    ),
    "cosface": {"fixed": BOOL},
    "arcface": {"fixed": BOOL},
    "projection": {
        "num_clusters": ((3, 3),),
        "evaluated": (0, -1),
        "num_layers": (0, 3),
        "hidden_dim": (6,),
        "dim": (4,),
        "use_batch_norm": BOOL,
        "frame": (None, "orthogonal"),
    },
}
IMAGES = jnp.zeros((1, 4, 4, 3))


class Pointwise(nn.Module):
    """A backbone of one layer: what is tested is behind it."""

    num_features: int = 4
    torch_head = "fc"
    layers = (("conv1",),)

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.num_features, name="conv1")(images)


def variants(name):
    """Returns every combination of the options of a head."""
    values = OPTIONS[name]
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def random_variables(model, images=IMAGES):
    """Returns variables of random bits that are numbers, none like another."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), shapes)


def assert_round_trip(model, images=IMAGES):
    """Asserts that to_torch and from_torch lose nothing, and returns the state dict."""
    variables = random_variables(model, images)
    state_dict = pretrained.to_torch(variables, model)
    back = pretrained.from_torch(state_dict, model, images.shape[1:])
    ours, theirs = (traverse_util.flatten_dict(tree) for tree in (variables, back))
    assert ours.keys() == theirs.keys()
    for (path, value), (name, written) in zip(ours.items(), state_dict.items(), strict=True):
        assert written.ndim == value.ndim and written.flags.c_contiguous, name
        result = np.asarray(theirs[path])
        assert (result.shape, result.dtype) == (value.shape, value.dtype), path
        assert result.tobytes() == value.tobytes(), path
    return state_dict


def with_head(name, **options):
    """Returns a model of 4 features; a simplex on them as they are has 5 vertices."""
    head = get_head(name, num_classes=5 if name == "simplex" else 3, **options)
    return Classifier(Pointwise(), Mean(), head)


@pytest.mark.parametrize("name", [*HEADS, *EMBEDDING_HEADS])
def test_heads(name):
    for options in variants(name):
        assert_round_trip(with_head(name, **options))


@pytest.mark.parametrize("name", [*HEADS, *EMBEDDING_HEADS])
def test_other_switches_of_a_head_add_nothing(name):
    """So that the table above names every option that adds a variable."""
    cls = {**HEADS, **EMBEDDING_HEADS}[name]

    def paths(**options):
        variables = random_variables(with_head(name, **options))
        return set(traverse_util.flatten_dict(variables))

    switches = [field for field in fields(cls) if isinstance(field.default, bool)]
    for field in switches:
        if field.name not in OPTIONS[name]:
            assert paths(**{field.name: not field.default}) == paths(), field.name


@pytest.mark.parametrize("frame", projection.FIXED_FRAMES)
def test_frames_of_projection(frame):
    sizes = (5,) if frame in ("simplex", "max_separation") else (4, 3)
    model = with_head("projection", num_clusters=sizes, frame=frame, dim=4, hidden_dim=6)
    state_dict = assert_round_trip(model)
    assert state_dict["fc.cls_0.fixed_weight"].shape == (sizes[0], 4)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings(name):
    assert_round_trip(Classifier(Pointwise(), get_pool(name), get_head("linear", num_classes=3)))


BASIC, BOTTLENECK = (
    partial(resnet.ResNet, block, (1, 1, 1, 1)) for block in (resnet.BasicBlock, resnet.Bottleneck)
)


@pytest.mark.parametrize("shortcut", cifar_resnet.SHORTCUTS)
@pytest.mark.parametrize("out_shortcut", cifar_resnet.OUT_SHORTCUTS)
def test_shortcuts_of_cifar_resnets(shortcut, out_shortcut):
    backbone = cifar_resnet.CifarResNet(1, shortcut, 40, out_shortcut)
    model = Classifier(backbone, Mean(), get_head("identity", num_classes=40))
    state_dict = assert_round_trip(model)
    if out_shortcut == "hadamard":
        assert state_dict["layer3.0.downsample.0.weight"].shape == ()


@pytest.mark.parametrize("out_shortcut", resnet.OUT_SHORTCUTS)
@pytest.mark.parametrize("block", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_shortcuts_of_resnets(block, out_shortcut):
    backbone = block(out_channels=7, out_shortcut=out_shortcut)
    head = get_head("identity", num_classes=7)
    assert_round_trip(Classifier(backbone, Mean(), head), jnp.zeros((1, 32, 32, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    options = [{}]
    if hasattr(get_backbone(name), "out_channels"):
        options.append({"out_channels": 7})
    for chosen in options:
        model = Classifier(get_backbone(name, **chosen), Mean(), get_head("linear", num_classes=3))
        assert_round_trip(model, jnp.zeros((1, 96, 96, 3)))


def test_vision_transformers():
    backbone = ViT(width=8, depth=1, num_heads=2, patch_size=2, image_size=4)
    assert_round_trip(Classifier(backbone, Mean(), get_head("linear", num_classes=3)))


@pytest.mark.parametrize("name", ["tvmf", "hadamard"])
def test_files(name, tmp_path):
    """As above, through a file; and one of before, when a number was written as a vector."""
    model = with_head(name)
    variables = random_variables(model)
    state_dict = pretrained.to_torch(variables, model)
    older = {key: np.ascontiguousarray(value) for key, value in state_dict.items()}
    for content in (state_dict, older):
        save_file(content, tmp_path / "weights.safetensors")
        weights = read_weights(tmp_path / "weights.safetensors")
        back = pretrained.from_torch(weights, model, IMAGES.shape[1:])
        jax.tree.map(np.testing.assert_array_equal, back, variables)
