"""Whole runs with the dials of transfer, on a small network and the digits."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax import pretrained
from fixed_head_jax.configs import digits
from fixed_head_jax.data.sampling import epoch_start
from fixed_head_jax.model import get_model
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.optim.transforms import L2SPState
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.experiment.updates import make_training
from tests.loops import final_state, same_bits, stop_after


@pytest.fixture
def make_config(data_dir):
    def make(**overrides):
        config = digits.get_config("linear,smoke")
        config.data_dir, config.model.backbone = data_dir, "tiny"
        config.data.eval_split, config.eval_batch_size = "test[:30]", 32
        config.total_steps, config.log_every_steps, config.eval_every_epochs = 6, 1, 0.0
        config.update_from_flattened_dict(overrides)
        return config

    return make


@pytest.fixture(scope="module")
def source(data_dir, tmp_path_factory, tiny_backbone):
    """The workdir of a run on the first five digits."""
    config = digits.get_config("linear,smoke")
    config.data_dir, config.model.backbone, config.data.first_classes = data_dir, "tiny", 5
    folder = tmp_path_factory.mktemp("source")
    loop.train(experiment.build(config), folder)
    return str(folder)


@pytest.mark.parametrize("remat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_frozen_groups_keep_every_bit_through_warm_up(make_config, source, tmp_path, remat):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 3, "transfer.lr_lower": 0.0,
            "optim.schedule": "step", "optim.warmup_epochs": 4 * 8 / 1442,
            "optim.warmup_from": 1e-2, "optim.weight_decay": 0.1, "optim.clip_norm": 1.0,
            "model.backbone_options.remat": remat,
        },
    )  # fmt: skip
    run = experiment.build(config)
    before = jax.jit(run.create_state)(run.initial)
    result = loop.train(run, tmp_path)
    after = final_state(config, tmp_path)
    trees = (
        (before.params["backbone"], after.params["backbone"]),
        tuple(state.model_state["batch_stats"]["backbone"] for state in (before, after)),
    )
    for old, new in trees:
        for part in ("conv1", "bn1", "layer1.0", "layer2.0"):
            assert same_bits(old.get(part), new.get(part)), part
        assert not same_bits(old["layer3.0"], new["layer3.0"])
    upper = sum(leaf.size for leaf in jax.tree.leaves(after.params["backbone"]["layer3.0"]))
    assert result["params"] == upper + 64 * 10 + 10


def test_as_published_a_group_of_rate_0_trains_while_the_rate_warms_up(
    make_config, source, tmp_path
):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 3, "transfer.lr_lower": 0.0,
            "transfer.as_published": True, "optim.schedule": "step", "optim.lr": 0.1,
            "optim.warmup_epochs": 4 * 8 / 1442, "optim.warmup_from": 1e-2,
        },
    )  # fmt: skip
    run = experiment.build(config)
    before = jax.jit(run.create_state)(run.initial)
    loop.train(run, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    lower = [line["train/lr_lower"] for line in lines if "train/lr_lower" in line]
    np.testing.assert_allclose(lower, [0.0075, 0.005, 0.0025, 0, 0, 0], atol=1e-9)
    after = final_state(config, tmp_path)
    assert not same_bits(before.params["backbone"]["conv1"], after.params["backbone"]["conv1"])


def test_every_group_warms_up_from_its_share_of_the_rate(make_config, source):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 2, "transfer.lr_head": 0.4,
            "transfer.lr_lower": 0.02, "optim.lr": 0.2, "optim.warmup_from": 0.1,
            "optim.warmup_epochs": 4 * 8 / 1442, "optim.schedule": "constant",
        },
    )  # fmt: skip
    rates = training_of(config).rates
    for group, share in (("head", 2.0), ("upper", 1.0), ("lower", 0.1)):
        values = [float(rates[f"lr_{group}"](step)) for step in range(6)]
        expected = [0.125, 0.15, 0.175, 0.2, 0.2, 0.2]
        np.testing.assert_allclose(values, share * np.array(expected), rtol=1e-5)


def test_a_group_of_rate_0_by_the_optimizers_rate_stays_there(make_config, source):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 1, "transfer.lr_head": 0.4, "optim.lr": 0.0,
            "optim.warmup_from": 0.1, "optim.warmup_epochs": 4 * 8 / 1442,
        },
    )  # fmt: skip
    training = training_of(config)
    assert not any(jax.tree.leaves(training.is_trained["backbone"]))
    assert all(jax.tree.leaves(training.is_trained["head"]))
    assert float(training.rates["lr"](0)) == pytest.approx(0.1 + 0.3 / 4)


def training_of(config):
    """Returns how a config trains the small network."""
    model = get_model(10, "tiny")
    images = jnp.zeros((1, 8, 8, 1))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    dials = Dials(**config.transfer)
    starts = partial(epoch_start, num_examples=1442, batch_size=config.batch_size)
    return make_training(config, dials, params, model.backbone.layers, 100, starts)


@pytest.mark.parametrize(
    "keys",
    [
        {"transfer.new_layers": 5},
        {"transfer.new_layers": 1, "transfer.alpha_upper": 0.0},
        {"transfer.new_layers": 1, "model.frozen_backbone": True},
    ],
)
def test_l2_sp_that_pulls_nothing_is_refused(make_config, source, keys):
    config = make_config(init_from=source, **{"transfer.l2_sp": True, **keys})
    with pytest.raises(ValueError, match="transfer.l2_sp=True, but no layer is pulled"):
        experiment.build(config)


def test_resuming_does_not_move_the_anchor(make_config, source, tmp_path):
    config = make_config(
        init_from=source, **{
            "transfer.new_layers": 2, "transfer.num_low_lr_layers": 2, "transfer.lr_lower": 0.01,
            "transfer.l2_sp": True, "transfer.alpha_lower": 1.0, "transfer.alpha_upper": 0.5,
            "optim.weight_decay": 0.01,
        },
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.train(experiment.build(config), whole)
    for dispatches in (1, 3):
        with pytest.raises(loop.Stopped):
            run = experiment.build(config, read_weights=dispatches == 1)
            loop.train(run, parts, stop_after(dispatches))
    loop.train(experiment.build(config, read_weights=False), parts)
    ours, theirs = (final_state(config, folder) for folder in (parts, whole))
    assert same_bits(ours, theirs)
    start = experiment.build(config).initial["params"]["backbone"]

    def is_anchor(node):
        return isinstance(node, L2SPState)

    states = filter(is_anchor, jax.tree.leaves(ours.opt_state, is_leaf=is_anchor))
    kept = [np.asarray(leaf) for state in states for leaf in jax.tree.leaves(state.anchor)]
    expected = [start["conv1"]["kernel"]]
    expected += [start[layer][conv]["kernel"] for layer in ("layer1.0", "layer2.0")
                 for conv in ("conv1", "conv2")]  # fmt: skip
    assert len(kept) == len(expected)
    for kernel in expected:
        assert any(np.array_equal(kernel, anchor) for anchor in kept)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(6))
def test_new_layers_start_as_drawn_and_the_others_as_loaded(make_config, source, k):
    layers = ("conv1", "layer1.0", "layer2.0", "layer3.0")
    run = experiment.build(make_config(init_from=source, **{"transfer.new_layers": k}, seed=5))
    started = jax.jit(run.create_state)(run.initial)
    model = get_model(10, "tiny")
    loaded = pretrained.from_torch(pretrained.load(source, model), model, (8, 8, 1), skip_head=True)
    drawn = jax.jit(run.create_state)()
    for depth, layer in enumerate(layers):
        is_new = depth >= 5 - k
        expected = drawn.params if is_new else loaded["params"]
        assert same_bits(started.params["backbone"][layer], expected["backbone"][layer])
        statistics = started.model_state["batch_stats"]["backbone"]
        name = "bn1" if layer == "conv1" else layer
        means = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(statistics[name])
            if path[-1].key == "mean"
        ]
        assert all(not np.any(mean) for mean in means) == is_new
    assert same_bits(started.params["head"], drawn.params["head"])
    # Where the dials say so, all is said.
    assert run.left_out == ("" if k else "head left out: 5 classes in the weights, 10 here")


@pytest.mark.slow
def test_a_few_images_are_learned_by_heart(make_config, source, tmp_path):
    config = make_config(
        init_from=source, total_steps=60, batch_size=24, log_every_steps=60,
        **{
            "transfer.new_layers": 1, "transfer.num_low_lr_layers": 2, "transfer.lr_lower": 0.02,
            "transfer.l2_sp": True, "optim.lr": 0.05, "optim.nesterov": True,
            "data.train_split": "train[:24]", "data.eval_split": "train[:24]",
            "augment.pad_crop": 0,
        },
    )  # fmt: skip
    assert loop.train(experiment.build(config), tmp_path)["eval/accuracy"] == 100
