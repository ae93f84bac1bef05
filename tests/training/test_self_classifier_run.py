"""Runs of Self-Classifier: interrupted, on several devices, from disk, with all its evaluators."""

import math

import jax
import numpy as np
import pytest
from PIL import Image

from fixed_head_jax.backbones import get_backbone
from fixed_head_jax.configs import selfclassifier_digits
from fixed_head_jax.optim import transfer
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.experiment.updates import make_training
from tests.loops import final_state, logged, same_bits, stop_after

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture
def make_config(data_dir):
    def make(**overrides):
        config = selfclassifier_digits.get_config("smoke")
        config.data_dir, config.model.backbone = data_dir, "tiny"
        config.data.train_split, config.data.eval_split = "train[:100]", "test[:60]"
        config.task.options.queue_size = 20  # full after three steps of eight; wraps in the third
        config.total_steps, config.log_every_steps, config.eval_every_epochs = 6, 2, 0.0
        config.eval_batch_size = 64
        config.update_from_flattened_dict(overrides)
        return config

    return make


LOCAL = {"views.num_local": 1, "views.local_size": 4, "views.local_scale": (0.2, 0.4)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [{}, {"data.train_crop": "random_resized", **LOCAL}],
    ids=["resident", "several crops of one decoded image"],
)
def test_interrupted_run_ends_with_the_same_bits(make_config, tmp_path, overrides):
    config = make_config(**overrides)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = loop.train(experiment.build(config), whole)
    for dispatches in (2, 2):  # before the queue is full, and after
        with pytest.raises(loop.Stopped, match="stopped at step"):
            loop.train(experiment.build(config), parts, stop_after(dispatches))
    assert loop.train(experiment.build(config), parts) == result
    assert logged(parts) == logged(whole)
    ours, theirs = (final_state(config, folder) for folder in (parts, whole))
    assert same_bits(ours, theirs)
    queue = ours.task_state
    assert queue.is_full and queue.pointer == 6 * 8 % 20
    assert len(np.unique(queue.rows.value["index"])) > 10
    assert math.isfinite(result["eval/nmi"]) and result["eval/examples"] == 60
    last = logged(whole)[-2]
    assert {"train/neighbor_accuracy", "train/used_classes", "train/class_entropy"} <= set(last)


@pytest.mark.slow
def test_devices_agree_up_to_rounding_and_share_the_queue(make_config, tmp_path):
    states, runs = {}, {}
    for count in (1, 4):
        # Not AdamW: the bias before batch norm has no gradient, and it would scale up rounding.
        # Small steps: at a rate of 0.1 rounding had grown beyond these bounds by the fourth one.
        config = make_config(
            num_devices=count, log_every_steps=1, total_steps=4,
            **{"optim.name": "sgd", "optim.lr": 0.001},
        )  # fmt: skip
        loop.train(experiment.build(config), tmp_path / str(count))
        states[count] = final_state(config, tmp_path / str(count))
        runs[count] = logged(tmp_path / str(count))
    embedding = states[4].task_state.rows.value["embedding"]
    assert embedding.addressable_shards[0].data.shape[0] == 5
    for ours, one in zip(runs[4], runs[1], strict=True):
        assert ours == pytest.approx(one, rel=1e-3, abs=1e-4)
    for ours, one in zip(*map(jax.tree.leaves, (states[4], states[1])), strict=True):
        np.testing.assert_allclose(ours, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_devices(make_config, tmp_path):
    with pytest.raises(loop.Stopped):
        loop.train(experiment.build(make_config()), tmp_path, stop_after(3))
    before = final_state(make_config(), tmp_path).task_state.rows.value
    config = make_config(num_devices=2)
    after = final_state(config, tmp_path).task_state.rows.value
    assert same_bits(before, after)
    assert after["embedding"].addressable_shards[0].data.shape[0] == 10
    assert loop.train(experiment.build(config), tmp_path)["step"] == 6


@pytest.mark.slow
def test_everything_is_measured_in_one_command(make_config, tmp_path):
    names = ("knn", "linear_probe", "kmeans", "kmeans_pixels")
    config = make_config(
        final_evaluators=names, class_grids=3, class_grid_images=4, total_steps=2, ema_decay=0.5
    )
    result = loop.train(experiment.build(config), tmp_path)
    for metric in ("nmi", "knn_10", "probe_accuracy", "kmeans/acc", "kmeans_pixels/acc"):
        for model in ("eval", "eval_ema"):
            assert 0 <= result[f"{model}/{metric}"] <= 100
    assert "eval/knn_200" not in result  # there are 100 training images
    assert result["eval/kmeans_pixels/acc"] == result["eval_ema/kmeans_pixels/acc"] > 30
    assert (tmp_path / "classes" / "classes.md").exists()
    with Image.open(tmp_path / "classes" / "classes.png") as sheet:
        assert sheet.width > 4 * 50
    (again,) = loop.evaluate(experiment.build(config), tmp_path).values()
    assert again.items() <= result.items()


@pytest.mark.slow
def test_unlabelled_images_are_trained_on_and_others_fitted_to(make_config, tmp_path, monkeypatch):
    """The digits have labels; taken for unknown, they are not checked."""
    config = make_config(
        final_evaluators=("knn",), total_steps=2,
        **{"data.unlabelled": True, "data.fit_split": "train[100:150]"},
    )  # fmt: skip
    assert loop.train(experiment.build(config), tmp_path)["eval/knn_10"] >= 0


@pytest.mark.slow
def test_half_precision_trains(make_config, tmp_path):
    config = make_config(dtype="bfloat16", total_steps=2)
    result = loop.train(experiment.build(config), tmp_path)
    assert math.isfinite(result["eval/nmi"])
    params = jax.tree.leaves(final_state(config, tmp_path).params)
    assert {x.dtype for x in params} == {np.dtype("float32")}


def test_decay_of_groups(make_config):
    """Those of the release: none for biases and norms, another one for the backbone."""
    config = make_config(**{
        "optim.weight_decay": 0.1, "optim.no_decay": ("(bias|scale)$",),
        "optim.decay_multipliers": (("^backbone/", 3.0),),
    })  # fmt: skip
    run = experiment.build(config)
    params = jax.eval_shape(run.create_state).params
    dials = transfer.Dials(**config.transfer)
    layers = get_backbone(config.model.backbone).layers
    plan = make_training(config, dials, params, layers, 10, lambda epoch: int(5 * epoch)).plan
    backbone, head = plan.beta["backbone"], plan.beta["head"]
    assert backbone["conv1"]["kernel"] == pytest.approx(0.3)
    assert backbone["bn1"] == {"scale": 0, "bias": 0}
    assert head["mlp_head"]["mlp.0"] == {"kernel": 0.1, "bias": 0}
    assert head["cls_0"] == {"weight_v": 0.1, "weight_g": 0.1}  # gains keep theirs


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"views.num_local": -1}, "views.num_local=-1 must be a whole number"),
        ({"task.options.queue_size": 101}, "the number of training images, 100"),
        ({"task.options.queue_size": 4}, "must be between batch_size=8"),
        ({"task.options.queue_size": 21, "num_devices": 2}, "not divisible by 2 devices"),
        ({"task.options.row_temperature": 0.0}, "row_temperature must be positive, got 0.0"),
        ({"task.options.column_temperature": -1.0}, "column_temperature must be positive"),
        ({"save_predictions": True}, "set save_predictions=False"),
        ({"evaluators": ("shots",)}, "'shots' takes predictions for labels"),
        ({"class_grids": 2, "class_grid_images": 10}, "class_grid_images must be a square"),
        ({"class_grids": -1}, "count must be >= 1, got -1"),
        ({"evaluators": ("kmeans",), "data.fit_split": "train[:9]"}, "needs at least 10 images"),
        ({"evaluators": ("knn",), "data.fit_split": "train[:9]"}, "needs at least 10 images"),
        ({"model.head_options.num_clusters": (10, 1)}, "num_clusters must be at least 2"),
        ({"accumulation_steps": 2}, "set accumulation_steps=1"),
        ({"augment.flip": True}, "takes views; set views"),
        ({"best_metric": "accuracy"}, "unknown best_metric 'accuracy'; known: nmi, ami, ari, acc"),
        ({"evaluators": ("feature_norms",)}, "'feature_norms' compares features with class vec"),
        ({"data.unlabelled": True, "evaluators": ("knn",)}, "'knn' needs labelled images"),
        ({"evaluators": ("superclasses",)}, "superclass_dir"),
        ({"optim.trust_coefficient": 0.0}, "optim.trust_coefficient=0.0 must be a number"),
        ({"optim.final_lr": -1.0}, "optim.final_lr=-1.0 must be a number"),
        ({"optim.schedule": "constant"}, "are of schedules 'cosine' and 'linear'"),
        ({"optim.decay_multipliers": (("nope", 2.0),)}, "'nope' matches no parameter"),
    ],
)
def test_wrong_options_are_refused_at_the_start(make_config, overrides, message):
    with pytest.raises(ValueError, match=message):
        experiment.build(make_config(**overrides))
