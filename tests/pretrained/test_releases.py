"""Checkpoints as other code writes them: wrappers, released heads, other image sizes."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from fixed_head_jax import pretrained
from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.backbones.positions import resample_positions
from fixed_head_jax.backbones.vit import ViT
from fixed_head_jax.heads import get_head
from fixed_head_jax.layers import convolution
from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.pooling import Mean
from fixed_head_jax.model import Classifier
from fixed_head_jax.pretrained import conversion
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.pretrained.files import read_weights
from fixed_head_jax.pretrained.runs import as_run
from fixed_head_jax.pretrained.torch_names import plain_names
from tests.pretrained.torch_pickles import save

RANDOM = np.random.default_rng(0)
Conv = partial(convolution.Conv, kernel_init=nn.initializers.zeros)


class Small(nn.Module):
    """A backbone that compiles at once, with a block as residual networks have it."""

    num_features: int = 4
    axis_name: str | None = None
    torch_head = "linear"
    layers = (("conv1", "bn1"), ("layer2.0",))

    @nn.compact
    def __call__(self, images, train):
        x = BatchNorm(self.axis_name, name="bn1")(Conv(4, name="conv1")(images), train)
        return Block(name="layer2.0")(x, train)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        shortcut = BatchNorm(name="downsample.1")(Conv(4, 1, name="downsample.0")(x), train)
        return shortcut + Conv(4, name="conv2")(x)


def classifier(head="linear", backbone=None, **options):
    return Classifier(backbone or Small(), Mean(), get_head(head, num_classes=3, **options))


def random_dict(model, size=8):
    """Returns a state dict of random numbers for a model."""
    images = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: RANDOM.normal(size=leaf.shape).astype("f"), shapes)
    return pretrained.to_torch(variables, model)


LINEAR = random_dict(classifier())
BACKBONE = {name: value for name, value in LINEAR.items() if not name.startswith("linear.")}
NORMS = [name.replace("running_mean", "num_batches_tracked") for name in BACKBONE if "mean" in name]
COUNTERS = dict.fromkeys(NORMS, np.array(7))


def same(state_dict, expected):
    return state_dict.keys() == expected.keys() and all(
        np.array_equal(value, expected[name]) for name, value in state_dict.items()
    )


def renamed(state_dict, rename):
    return {rename(name): value for name, value in state_dict.items()}


# Wrappers.


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"model.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"module.module.{name}",
        lambda name: f"model._orig_mod.module.{name}",
        lambda name: f"model.model.{name}",
        lambda name: (
            f"module.model.{name}" if "linear" in name else f"module.model.backbone.{name}"
        ),
        # Compiled or parallel are the features alone, or a part of them.
        lambda name: name if "linear" in name else f"model.{name}",
        lambda name: name.replace("layer2.", "layer2._orig_mod.module."),
    ],
    ids=lambda rename: rename("x"),
)
def test_wrappers_are_removed(rename):
    given = renamed(LINEAR | COUNTERS, rename)
    back = pretrained.to_torch(pretrained.from_torch(given, classifier(), 8), classifier())
    assert same(back, LINEAR)


def test_what_stands_beside_the_wrapped_network_can_be_left_out():
    given = renamed(LINEAR, lambda name: f"model.{name}") | {"criterion.weight": np.ones(3)}
    with pytest.raises(ValueError, match="unexpected: criterion.weight. Leave"):
        pretrained.from_torch(given, classifier(), 8)
    variables = pretrained.from_torch(given, classifier(), 8, skip=("^criterion",))
    assert same(pretrained.to_torch(variables, classifier()), LINEAR)


def test_a_part_of_the_network_is_no_wrapper():
    names = {"model.0.weight", "model.module_list.1.weight", "features.model.weight", "fc.bias"}
    own = types.SimpleNamespace(torch_head="fc", layers=(("model.0",), ("features.model",)))
    wrapped = {f"module.backbone.{name}": np.ones(1) for name in names}
    assert set(plain_names(wrapped, own)) == names - {"fc.bias"} | {"head.bias"}
    other = types.SimpleNamespace(torch_head="fc", layers=(("features.model",),))
    assert "features.model.weight" in plain_names(wrapped, other)


def test_two_wrappings_of_one_weight_are_refused():
    given = LINEAR | {"model.conv1.weight": LINEAR["conv1.weight"]}
    message = "hold 'conv1.weight' twice, once as 'model.conv1.weight'; remove one"
    with pytest.raises(ValueError, match=message):
        pretrained.from_torch(given, classifier(), 8)


# Kobayashi's checkpoints: features and classifier apart, the classifier a `torch.nn.Linear` with a
# parameter `s_` of shape (1,) (the scale is 1 + softplus of it) and, of t-vMF, a buffer `kappa`.


def kobayashi(kappa=None, bias=False, stage=1):
    prefix = "module." if stage == 2 else ""
    fc = {"weight": RANDOM.normal(size=(3, 4)), "s_": np.array([0.75])}
    fc |= {} if kappa is None else {"kappa": np.array([kappa])}
    fc |= {"bias": RANDOM.normal(size=3)} if bias else {}
    return {
        "epoch": 90,
        "arch": "resnet10",
        "feat_state_dict": renamed(BACKBONE | COUNTERS, lambda name: prefix + name),
        "fc_state_dict": {name: value.astype("f") for name, value in fc.items()},
        "stats": {"test_err1": [55.5]},
        "optimizer": {"state": {0: {"momentum_buffer": np.ones(2)}}, "param_groups": [{"lr": 0.2}]},
    }


def kobayashi_logits(features, fc):
    """The loss' logits as the release computes them, in float64."""
    kappa, bias = fc.get("kappa", np.zeros(1)), fc.get("bias", np.zeros(3))
    norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (features, fc["weight"])]
    cosine = (features / norms[0]) @ (fc["weight"] / norms[1]).T
    similarity = (1 + cosine) / (1 + (1 - cosine) * kappa) - 1
    return (similarity + bias) * (1 + np.log1p(np.exp(fc["s_"])))


@pytest.mark.parametrize(
    "release, head, options",
    [
        (kobayashi(16.0), "tvmf", {}),
        (kobayashi(-0.3, stage=2), "tvmf", {"kappa": -0.3}),
        (kobayashi(4.0, bias=True), "cosine", {"kappa": 4.0, "bias_form": "inside"}),
        (kobayashi(stage=2), "cosine", {}),
    ],
    ids=["default", "stage 2, kappa < 0", "bias", "cosine"],
)
def test_t_vmf_release_with_its_head(release, head, options):
    model = classifier(head, **options)
    variables = pretrained.from_torch(release, model, 8)
    fc, params = release["fc_state_dict"], variables["params"]["head"]
    assert params["raw_scale"].shape == () and params["raw_scale"] == fc["s_"][0]
    np.testing.assert_array_equal(params["kernel"], fc["weight"].T)
    features = RANDOM.normal(size=(7, 4)).astype("f")
    logits = model.head.apply({"params": params}, jnp.asarray(features))
    np.testing.assert_allclose(logits, kobayashi_logits(features, fc), atol=2e-6)
    back = pretrained.to_torch(variables, model)
    assert same({name: back[name] for name in BACKBONE}, BACKBONE)


def test_t_vmf_release_without_its_head():
    variables = pretrained.from_torch(kobayashi(16.0), classifier(), 8, skip_head=True)
    back = pretrained.to_torch(variables, classifier())
    assert same({name: back[name] for name in BACKBONE}, BACKBONE)
    with pytest.raises(ValueError, match="unexpected: head.raw_scale, head.kappa. Leave"):
        pretrained.from_torch(kobayashi(16.0), classifier(use_bias=False), 8)


@pytest.mark.parametrize("head, ours", [("tvmf", "16"), ("cosine", "0")])
def test_another_kappa_is_refused(head, ours):
    message = f"a head with kappa=-0.3, the model has {ours}; set model.head_options.kappa"
    with pytest.raises(ValueError, match=message):
        pretrained.from_torch(kobayashi(-0.3), classifier(head), 8)
    pretrained.from_torch(kobayashi(-0.3), classifier(head), 8, skip=(r"^head\.kappa$",))


# Shalev's: the features alone, the class vectors in files of their own.


def test_shalev_release():
    names = renamed(BACKBONE | COUNTERS, lambda name: name.replace("downsample", "shortcut"))
    assert any("shortcut.1.running_var" in name for name in names)
    release = {"model_state": names, "epoch": 7, "loss": 0.4, "acc": 81.5}
    model = classifier("random")
    variables = pretrained.from_torch(release, model, 8, skip=("^head",))
    back = pretrained.to_torch(variables, model)
    assert same({name: back[name] for name in BACKBONE}, BACKBONE)
    with pytest.raises(ValueError, match="do not fit the model; missing: head.fixed_weight. Leave"):
        pretrained.from_torch(release, model, 8)


# Heads of other classes.


def head_of(num_classes, **others):
    arrays = {"weight": np.ones((num_classes, 4)), "bias": np.ones(num_classes), **others}
    return {f"linear.{name}": value for name, value in arrays.items() if value is not None}


OTHER_HEADS = {
    "more classes": (head_of(1000), "linear", "1,000 classes in the weights, 3 here"),
    "fixed vectors of more": (
        head_of(9, weight=None, fixed_weight=np.ones((9, 4))), "random",
        "bias, fixed_weight of 9 classes in the weights, fixed_weight of 3 classes here",
    ),
    "learned for fixed": (
        head_of(3), "random",
        "bias, weight of 3 classes in the weights, fixed_weight of 3 classes here",
    ),
    "no head": ({}, "linear", "none in the weights, bias, weight of 3 classes here"),
    "none here": (head_of(9), "identity", "bias, weight of 9 classes in the weights, none here"),
    "t-vMF for linear": (
        head_of(3, raw_scale=np.ones(1), kappa=np.ones(1)), "linear",
        "bias, raw_scale, weight of 3 classes in the weights, bias, weight of 3 classes here",
    ),
    "Self-Classifier": (
        {"module.mlp_head.mlp.0.weight": np.ones((4, 4)), "module.cls_0.weight": np.ones((7, 4))},
        "linear", "cls_0.weight, mlp_head.mlp.0.weight in the weights, bias, weight of 3 classes "
        "here",
    ),
}  # fmt: skip


@pytest.mark.parametrize("given, head, line", OTHER_HEADS.values(), ids=OTHER_HEADS)
def test_a_head_of_other_classes_is_left_out_and_told(given, head, line):
    model, told = classifier(head), []
    variables = pretrained.from_torch(BACKBONE | given, model, 8, on_other_head=told.append)
    assert told == [f"head left out: {line}"]
    back = pretrained.to_torch(variables, model)
    assert same({name: back[name] for name in BACKBONE}, BACKBONE)
    skipping = pretrained.from_torch(BACKBONE | given, model, 8, skip_head=True)
    jax.tree.map(np.testing.assert_array_equal, variables, skipping)
    with pytest.raises(ValueError, match="the weights do not fit the model; .*head"):
        pretrained.from_torch(BACKBONE | given, model, 8)
    pretrained.from_torch(BACKBONE | given, model, 8, skip_head=True, on_other_head=told.append)
    assert len(told) == 1


def test_what_is_no_other_head_is_loaded_or_refused():
    told = []
    load = partial(pretrained.from_torch, image_size=8, on_other_head=told.append)
    assert same(pretrained.to_torch(load(LINEAR, classifier()), classifier()), LINEAR)
    load(kobayashi(16.0), classifier("tvmf"))
    load(LINEAR | {"linear.bias": np.ones(9)}, classifier(), skip=(r"^head\.bias$",))
    refused = {
        "half a backbone": {key: value for key, value in LINEAR.items() if "bn1" not in key},
        "half a backbone, other classes": BACKBONE | head_of(9) | {"conv1.weight": np.ones(3)},
        "other features": LINEAR | {"linear.weight": np.ones((3, 8))},
    }
    for given in refused.values():
        with pytest.raises(ValueError, match="the weights do not fit the model"):
            load(given, classifier())
    assert told == ["head left out: 9 classes in the weights, 3 here"]
    with pytest.raises(ValueError, match="a head with kappa=-0.3, the model has 16"):
        load(kobayashi(-0.3), classifier("tvmf"))


# Files.


@pytest.mark.parametrize("name", ["model_best.pth.tar", "run.ckpt"])
def test_files_of_releases_are_opened(tmp_path, name):
    read = read_weights(save(tmp_path / name, {"model_state": BACKBONE | COUNTERS, "epoch": 7}))
    assert same({key: value for key, value in read.items() if key not in COUNTERS}, BACKBONE)
    read = read_weights(save(tmp_path / name, kobayashi(16.0)))
    assert read["head.kappa"] == 16.0 and read["head.weight"].shape == (3, 4)


def test_convert_keeps_the_head_of_t_vmf(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKBONES, "small", Small)
    target = str(tmp_path / "out.safetensors")
    source = str(save(tmp_path / "model_best.pth.tar", kobayashi(-0.3, stage=2)))
    convert(source, target, "small", 8)
    written = load_file(target)
    head = {name for name in written if name.startswith("linear.")}
    assert head == {"linear.weight", "linear.raw_scale", "linear.kappa"}
    params = pretrained.from_torch(written, classifier("tvmf", kappa=-0.3), 8)["params"]["head"]
    assert params["raw_scale"] == 0.75
    convert(source, target, "small", 8, skip=("^head",))
    assert not any(name.startswith("linear.") for name in load_file(target))


@pytest.mark.parametrize("head", ["tvmf", "hadamard", "orthogonal"])
def test_runs_are_read_back(monkeypatch, tmp_path, head):
    """A workdir as the start of another run, or exported to a file that is."""
    monkeypatch.setitem(BACKBONES, "small", Small)
    model = classifier(head)
    variables = pretrained.from_torch(random_dict(model), model, 8)
    monkeypatch.setattr(conversion, "read_config", lambda workdir: {"model.backbone": "small"})
    read = {"last": variables, "best": jax.tree.map(jnp.zeros_like, variables)}
    for module in (conversion, pretrained):
        monkeypatch.setattr(module, "read_variables", lambda workdir, which: read[which])
    convert(str(tmp_path), str(tmp_path / "out.safetensors"), "small")
    for source in (tmp_path, f"{tmp_path}:last", tmp_path / "out.safetensors"):
        back = pretrained.from_torch(pretrained.load(source, model), model, 8)
        jax.tree.map(np.testing.assert_array_equal, back, variables)
    convert(f"{tmp_path}:best", str(tmp_path / "best.safetensors"), "small")
    for source in (f"{tmp_path}:best", tmp_path / "best.safetensors"):
        assert not any(np.any(value) for value in pretrained.load(source, model).values())


# Vision transformers for images of another size.


def vit(image_size):
    backbone = ViT(width=4, depth=1, num_heads=2, patch_size=2, image_size=image_size)
    return classifier(backbone=backbone)


def test_positions_of_a_vit_for_another_size_are_resampled():
    given = random_dict(vit(10))
    assert given["pos_embed"].shape == (1, 26, 4)
    for size, grid in ((10, 5), (16, 8), (6, 3)):
        back = pretrained.to_torch(pretrained.from_torch(given, vit(size), size), vit(size))
        expected = resample_positions(given["pos_embed"], grid, grid)
        assert back["pos_embed"].shape == (1, 1 + grid**2, 4)
        assert same(back, given | {"pos_embed": expected})
    assert same(pretrained.to_torch(pretrained.from_torch(given, vit(10), 16), vit(10)), given)


def test_tables_that_cannot_be_resampled_are_listed():
    given = random_dict(vit(10))
    message = r"shape: pos_embed \(1, 26, 4\) instead of \(1, 65, 4\)"
    with pytest.raises(ValueError, match=message):
        pretrained.from_torch(given, vit(16), 16, resample=False)
    # With a token for distillation too, or one dimension less.
    distilled = given | {"dist_token": np.ones((1, 1, 4)), "pos_embed": np.ones((1, 27, 4))}
    with pytest.raises(ValueError, match=r"unexpected: dist_token; shape: pos_embed \(1, 27, 4\)"):
        pretrained.from_torch(distilled, vit(16), 16)
    with pytest.raises(ValueError, match=r"pos_embed \(26, 4\) instead of"):
        pretrained.from_torch(given | {"pos_embed": np.ones((26, 4))}, vit(16), 16)


def test_converting_resamples_nothing(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKBONES, "small_vit", partial(ViT, 4, 1, 2, 2))
    source, target = str(tmp_path / "in.safetensors"), str(tmp_path / "out.safetensors")
    save_file(random_dict(vit(10)), source)
    with pytest.raises(ValueError, match="shape: pos_embed"):
        convert(source, target, "small_vit", 8)
    convert(source, target, "small_vit", 10)
    assert same(load_file(target), load_file(source))


def test_checkpoints_of_runs_by_name(tmp_path):
    for source, message in (
        (f"{tmp_path}:bset", "unknown checkpoint 'bset'; known: last, best"),
        (f"{tmp_path}:best", "holds no checkpoint"),
        (tmp_path, "holds no checkpoint"),
        (f"{tmp_path}/no:best", "weights file '.*/no:best' does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrained.load(source, classifier())
    colon = tmp_path / "run:best"
    colon.mkdir()
    (tmp_path / "run").mkdir()
    assert as_run(colon) == (colon, "last") and as_run(f"{colon}:best") == (colon, "best")
    save_file(BACKBONE, tmp_path / "run:a.safetensors")
    assert as_run(tmp_path / "run:a.safetensors") is None
