"""The loop: same bits twice, after an interruption, and on any number of devices."""

import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from fixed_head_jax import pretrained
from fixed_head_jax.configs import common, digits
from fixed_head_jax.devices import parallel
from fixed_head_jax.model import get_model
from fixed_head_jax.pretrained.conversion import convert
from fixed_head_jax.pretrained.files import read_weights
from fixed_head_jax.storage.checkpoint import Checkpoints, DamagedCheckpointError, last_step
from fixed_head_jax.storage.workdir import claim
from fixed_head_jax.training import experiment, loop, screen
from fixed_head_jax.training.interval_log import NonFiniteLossError
from tests.loops import final_state, logged, same_bits, stop_after

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture
def make_config(data_dir):
    def make(**overrides):
        config = digits.get_config("orthogonal,smoke")
        config.data_dir, config.model.backbone = data_dir, "tiny"
        config.data.eval_split, config.eval_batch_size = "test[:30]", 32
        config.total_steps, config.log_every_steps = 7, 3
        config.eval_every_epochs = 4 * 8 / 1442  # every 4 steps
        config.augment.flip = True
        config.update_from_flattened_dict(overrides)
        return config

    return make


EVERYTHING = {
    "ema_decay": 0.9,
    "optim.schedule": "plateau",
    "optim.plateau.patience": 0,
    "optim.plateau.threshold": 100.0,
    "optim.weight_decay": 1e-2,
    "optim.clip_norm": 1.0,
    "accumulation_steps": 2,
}


@pytest.mark.parametrize("placement", ["resident", pytest.param("disk", marks=pytest.mark.slow)])
def test_interrupted_run_ends_with_the_same_bits(make_config, tmp_path, placement):
    config = make_config(**EVERYTHING, **{"data.placement": placement})
    config.eval_every_epochs = 2 * 8 / 1442  # every 2 steps
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = loop.train(experiment.build(config), whole)
    for dispatches in (
        1,
        3,
        1,
    ):  # after steps 1, 4 and 5: inside log intervals, and at an evaluation
        with pytest.raises(loop.Stopped, match="stopped at step"):
            loop.train(experiment.build(config), parts, stop_after(dispatches))
    resumed = loop.train(experiment.build(config), parts)
    assert resumed == result
    assert logged(parts) == logged(whole)
    assert same_bits(final_state(config, parts), final_state(config, whole))
    rates = [line["train/lr"] for line in logged(whole) if "train/lr" in line]
    assert rates[-1] < rates[0]  # the plateau did act
    assert {"eval/accuracy", "eval_ema/accuracy"} <= set(result)


@pytest.mark.slow
def test_placements_and_dispatch_sizes_give_the_same_run(make_config, tmp_path):
    names = {
        "resident": {}, "disk": {"data.placement": "disk"}, "two": {"steps_per_dispatch": 2},
        "seed": {"seed": 1},
    }  # fmt: skip
    for name, overrides in names.items():
        loop.train(experiment.build(make_config(**overrides)), tmp_path / name)
    assert logged(tmp_path / "disk") == logged(tmp_path / "resident")
    for a, b in zip(logged(tmp_path / "two"), logged(tmp_path / "resident"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    assert logged(tmp_path / "seed")[0] != logged(tmp_path / "resident")[0]


@pytest.mark.parametrize("accumulation_steps", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_devices_agree_up_to_rounding(make_config, tmp_path, accumulation_steps):
    runs, states = {}, {}
    for count in (1, 4):
        config = make_config(
            num_devices=count, accumulation_steps=accumulation_steps, total_steps=3,
            log_every_steps=1, batch_size=16, eval_every_epochs=0.0,
        )  # fmt: skip
        workdir = tmp_path / str(count)
        loop.train(experiment.build(config), workdir)
        runs[count], states[count] = logged(workdir), final_state(config, workdir)
    for ours, one in zip(runs[4], runs[1], strict=True):
        assert ours == pytest.approx(one, rel=1e-5)
    for ours, one in zip(*map(jax.tree.leaves, (states[4], states[1])), strict=True):
        np.testing.assert_allclose(ours, one, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_every_example_counts_once_at_any_batch_size_and_device_count(make_config, tmp_path):
    loop.train(experiment.build(make_config(total_steps=2)), tmp_path)
    results = []
    for batch_size in (7, 30, 64):
        for num_devices in (1, 4):
            config = make_config(eval_batch_size=batch_size, num_devices=num_devices)
            (metrics,) = loop.evaluate(experiment.build(config), tmp_path).values()
            results.append(metrics)
            assert metrics["eval/examples"] == 30
            assert metrics == pytest.approx(results[0], rel=1e-5)


def test_fixed_vectors_stay_and_are_restored_bit_exactly(make_config, tmp_path):
    config = make_config(**{"optim.name": "adamw", "optim.lr": 0.1, "optim.weight_decay": 0.5})
    run = experiment.build(config)
    before = jax.jit(run.create_state)()
    result = loop.train(run, tmp_path)
    after = final_state(config, tmp_path)
    assert same_bits(before.model_state["fixed"], after.model_state["fixed"])
    assert result["fixed"] == 64 * 10
    slots = {leaf.shape for leaf in jax.tree.leaves(after.opt_state)}
    assert (64, 10) not in slots
    assert not np.array_equal(before.params["head"]["bias"], after.params["head"]["bias"])


@pytest.mark.slow
def test_init_from_a_workdir_starts_where_that_run_ended(make_config, tmp_path):
    source = make_config(total_steps=2, ema_decay=0.5)
    claim(tmp_path / "source", common.flatten(source), common.MAY_DIFFER)
    loop.train(experiment.build(source), tmp_path / "source")
    ended = final_state(source, tmp_path / "source")
    config = make_config(init_from=str(tmp_path / "source"), ema_decay=0.9, seed=7)
    run = experiment.build(config)
    state = jax.jit(run.create_state)(run.initial)
    assert state.step == 0
    assert same_bits(state.params, ended.ema["params"])
    assert same_bits(state.model_state["batch_stats"], ended.ema["batch_stats"])
    assert same_bits(state.model_state["fixed"], ended.model_state["fixed"])
    assert same_bits(state.ema["params"], state.params)
    loop.train(run, tmp_path / "run")

    skipping = make_config(init_from=str(tmp_path / "source"), init_skip=("^head",), seed=7)
    run = experiment.build(skipping)
    partly, fresh = (jax.jit(run.create_state)(initial) for initial in (run.initial, {}))
    assert same_bits(partly.params["backbone"], ended.ema["params"]["backbone"])
    assert same_bits(partly.model_state["fixed"], fresh.model_state["fixed"])

    exported = str(tmp_path / "exported.safetensors")
    convert(str(tmp_path / "source"), exported, "tiny", 8, channels=1)
    with pytest.raises(ValueError, match="is a run of tiny, not of resnet20"):
        convert(str(tmp_path / "source"), exported, "resnet20")
    weight = read_weights(exported)["linear.fixed_weight"]
    np.testing.assert_array_equal(weight.T, ended.model_state["fixed"]["head"]["kernel"])
    run = experiment.build(make_config(init_from=exported, seed=7))
    state = jax.jit(run.create_state)(run.initial)
    assert same_bits(state.params, ended.ema["params"])
    assert same_bits(state.model_state["fixed"], ended.model_state["fixed"])


@pytest.mark.slow
def test_orthogonal_init_redraws_the_kernels_that_match(make_config):
    states = [
        jax.jit(experiment.build(make_config(**{"model.orthogonal_init": patterns})).create_state)()
        for patterns in ((), ("^backbone/layer3.*conv2/kernel$",))
    ]
    plain, redrawn = (state.params["backbone"] for state in states)
    kernel = redrawn["layer3.0"]["conv2"]["kernel"].reshape(-1, 64)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(64), atol=1e-5)
    assert not np.array_equal(kernel, plain["layer3.0"]["conv2"]["kernel"].reshape(-1, 64))
    assert same_bits(plain["layer2.0"], redrawn["layer2.0"])


@pytest.mark.slow
def test_weights_are_evaluated_without_training(make_config, tmp_path):
    result = loop.train(experiment.build(make_config(total_steps=2)), tmp_path / "source")
    run = experiment.build(make_config(init_from=str(tmp_path / "source"), seed=7))
    (measured,) = loop.evaluate(run, tmp_path / "new").items()
    assert measured[0] == 0
    assert measured[1]["eval/loss"] == pytest.approx(result["eval/loss"], rel=1e-5)
    nothing = experiment.build(make_config())
    assert loop.evaluate(nothing, tmp_path / "nothing") == {}


@pytest.fixture(scope="module")
def source(data_dir, tmp_path_factory, tiny_backbone):
    """The workdir of a short run."""
    config = digits.get_config("orthogonal,smoke")
    config.data_dir, config.model.backbone = data_dir, "tiny"
    folder = tmp_path_factory.mktemp("source")
    claim(folder, common.flatten(config), common.MAY_DIFFER)
    loop.train(experiment.build(config), folder)
    return str(folder)


def test_init_from_what_does_not_fit_is_refused(make_config, source, tmp_path):
    for overrides, message in (
        ({"init_from": str(tmp_path / "nothing.pth")}, "does not exist"),
        ({"init_from": str(tmp_path)}, "holds no checkpoint"),
        ({"init_from": "", "init_skip": ("^head",)}, "needs init_from"),
        ({"init_skip": ("layer7",)}, "skip pattern 'layer7' matches no name"),
    ):
        config = make_config(**({"init_from": source} | overrides))
        with pytest.raises(ValueError, match=message):
            experiment.build(config)
        experiment.build(config, read_weights=False)


def test_a_head_of_another_kind_is_left_out_of_a_start_and_refused_where_it_is_measured(
    make_config, source
):
    config = make_config(init_from=source, **{"model.head": "hadamard"})
    with pytest.raises(ValueError, match="missing: head.scale; unexpected: head.fixed_weight"):
        experiment.build(config, needs_head=True)
    run = experiment.build(config)
    assert run.left_out == (
        "head left out: bias, fixed_weight of 10 classes in the weights, bias, scale here"
    )
    assert run.left_out in screen.describe(run, Path("folder"), 0, False)
    assert "from scratch" in screen.describe(run._replace(initial={}), Path("folder"), 0, False)
    started, drawn = (jax.jit(run.create_state)(initial) for initial in (run.initial, {}))
    assert same_bits(started.params["head"], drawn.params["head"])
    weights = pretrained.load(f"{source}:best", get_model(10, "tiny"))
    kernel = np.asarray(started.params["backbone"]["conv1"]["kernel"])
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), weights["conv1.weight"])
    for dial in ({"transfer.l2_sp": True}, {"transfer.lr_head": 0.0}):
        with pytest.raises(ValueError, match="head left out: .*; set transfer.new_layers=1"):
            experiment.build(make_config(init_from=source, **{"model.head": "hadamard", **dial}))
    wider = make_config(init_from=source, **{"model.backbone_options.shortcut": "projection"})
    with pytest.raises(ValueError, match="do not fit the model; missing: layer2.0.downsample"):
        experiment.build(wider)


@pytest.mark.slow
def test_accumulated_gradients_are_the_mean(make_config):
    """Without batch norm in the way (all examples alike), two halves give the whole's update."""
    grads = {}
    for count in (1, 2):
        config = make_config(accumulation_steps=count, batch_size=8, **{"augment.flip": False})
        config.augment.pad_crop = 0
        run = experiment.build(config)
        image = np.random.default_rng(0).integers(0, 255, (1, 8, 8, 1), np.uint8)
        batch = {
            "image": np.repeat(image, 8, 0), "label": np.full(8, 3, np.int32),
            "index": np.arange(8, dtype=np.int32), "mask": np.ones(8, np.float32),
        }  # fmt: skip
        step = parallel.pmap_step(
            lambda state, _, batch, run=run: run.train_step(state, batch),
            run.mesh, parallel.SPLIT, donate=False,
        )  # fmt: skip
        state = jax.jit(run.create_state)()
        new_state, metrics = step(state, {}, batch)
        grads[count] = (new_state.params, metrics["loss"])
    for a, b in zip(jax.tree.leaves(grads[1]), jax.tree.leaves(grads[2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_a_run_that_is_made_longer_ends_as_one_of_that_length(make_config, tmp_path):
    config, longer = (
        make_config(total_steps=steps, eval_every_epochs=0.0, **{"optim.schedule": "constant"})
        for steps in (2, 4)
    )
    run = experiment.build(config)
    loop.train(run, tmp_path / "grown")
    assert json.loads((tmp_path / "grown" / "config.json").read_text()) == json.loads(
        json.dumps(run.record)  # without claim: what a run from Python leaves
    )
    run = experiment.build(longer)
    assert loop.train(run, tmp_path / "grown") == loop.train(run, tmp_path / "whole")
    grown, whole = (final_state(longer, tmp_path / name) for name in ("grown", "whole"))
    assert same_bits(grown, whole)

    # A loss that is not finite at the last evaluation is no result, and loses none.
    diverged = run._replace(
        total_steps=5, eval_steps={5},
        final_evaluate=lambda *_: {"eval/accuracy": 10.0, "eval/loss": np.nan},
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="eval/loss is nan at step 5"):
        loop.train(diverged, tmp_path / "whole")
    assert last_step(tmp_path / "whole") == 4
    assert not (tmp_path / "whole" / "result.json").exists()

    # What cannot be read says so in a line.
    for path in (tmp_path / "whole" / "checkpoints" / "4").rglob("*"):
        if path.is_file() and "state" in str(path):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedCheckpointError, match="checkpoint 4 in .* is damaged") as error:
        loop.train(run, tmp_path / "whole")
    assert "\n" not in str(error.value)


def test_a_run_that_no_longer_improves_ends_and_goes_on_with_more_patience(make_config, tmp_path):
    options = {"eval_every_epochs": 8 / 1442, "optim.lr": 0.0, "optim.schedule": "cosine"}
    config = make_config(stop_after_bad_evals=2, final_evaluators=("feature_norms",), **options)
    config.optim.weight_decay = 0.0  # nothing moves but the statistics of batch norm
    config.model.frozen_backbone = True
    stopped = loop.train(experiment.build(config), tmp_path / "parts")
    assert stopped["step"] == stopped["best_step"] == 3  # of equals, the last is kept
    assert "eval/feature_norm_correct" in stopped  # measured as at the end
    assert stopped["best"] == stopped["eval/accuracy"]
    assert loop.train(experiment.build(config), tmp_path / "parts") == stopped
    config.stop_after_bad_evals = 0
    resumed = loop.train(experiment.build(config), tmp_path / "parts")
    assert resumed["step"] == 7
    assert resumed == loop.train(experiment.build(config), tmp_path / "whole")


@pytest.mark.slow
def test_nonfinite_loss_stops_with_its_step_and_keeps_what_was_saved(make_config, tmp_path):
    config = make_config(**{"optim.schedule": "step", "optim.milestones": (1,)})
    config.optim.factor, config.eval_every_epochs = 1e38, 0.0
    config.batch_size, config.total_steps, config.checkpoint_every_steps = 721, 6, 2
    with pytest.raises(NonFiniteLossError, match=r"(loss|grad_norm) is (nan|inf) at step [345]"):
        loop.train(experiment.build(config), tmp_path)
    checkpoints = Checkpoints(tmp_path, "eval/accuracy")
    assert checkpoints.last_step == 2
    assert np.isfinite(optax.tree.norm(final_state(config, tmp_path).params))


BAD = [
    ({"data.crop_scale": (9.0, 1.0)}, "data.crop_scale=.* must be"),
    ({"data.crop_interpolation": "area"}, "data.crop_interpolation='area' must be one of"),
    ({"model.head": "identiti"}, "unknown head 'identiti'.*did you mean 'identity'"),
    ({"model.backbone": "resnet19"}, "unknown backbone 'resnet19'"),
    ({"model.head_options.allow_repeated": True}, "has no option 'allow_repeated'"),
    ({"data.name": "digitz"}, "digitz"),
    ({"data.eval_split": "validation"}, "validation"),
    ({"data_dir": "/nonexistent/dir"}, "data_dir"),
    ({"num_devices": 3}, "batch_size=8 is not divisible by 3"),
    ({"num_devices": 5}, "num_devices=5, but this run sees 4"),
    ({"model.head": "identity", "model.backbone_options.out_channels": 5}, "num_classes <= dim"),
    ({"data.mean": (0.5,) * 3, "data.std": (0.5,) * 3}, "data.mean has 3 values.*data.channels=3"),
    ({"augment.lighting": 0.1}, "lighting needs images with 3 channels, got 1.*data.channels=3"),
    ({"best_metric": "acuracy"}, "unknown best_metric 'acuracy'; known: accuracy"),
    ({"dtype": "float61"}, "unknown dtype"),
    ({"optim.name": "sdg"}, "sdg"),
    (
        {"optim.frozen": ("nothing_here",)},
        "frozen pattern 'nothing_here' matches no parameter; paths look like: .*[.]{3}",
    ),
    ({"optim.frozen": (".",)}, "all parameters are frozen"),
    ({"optim.no_decay": ("norm",)}, "optim.no_decay pattern 'norm' matches no parameter"),
    ({"task.options.label_smoothing": 1.5}, "label_smoothing"),
    ({"model.orthogonal_init": ("bn1",)}, "model.orthogonal_init patterns match .* no kernel"),
    (
        {"task.options.orthogonality": "soft", "task.options.orthogonality_patterns": ("convv",)},
        "orthogonality_patterns pattern 'convv' matches no parameter",
    ),
    ({"total_steps": 0, "total_epochs": 0.0}, "total_epochs must be positive"),
    ({"eval_every_epochs": 1e-6}, "eval_every_epochs=1e-06 is less than a step"),
    (
        {"model.head": "identity", "model.backbone_options.out_channels": 196},
        "out_channels=196 makes a feature for every class, but 'digits' has 10 classes; set it",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[next(iter(o)) for o, _ in BAD])
def test_bad_input_is_refused_before_anything_compiles(make_config, overrides, message):
    with pytest.raises(ValueError, match=message) as error:
        experiment.build(make_config(**overrides))
    assert "\n" not in str(error.value)
