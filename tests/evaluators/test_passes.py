"""Evaluators over real splits, against the same measures taken from one batch of everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.augment.color import normalize, to_float
from fixed_head_jax.configs import digits
from fixed_head_jax.devices import parallel
from fixed_head_jax.evaluators import (
    Setting,
    feature_norms,
    get_evaluator,
    long_tail,
    neural_collapse,
)
from fixed_head_jax.evaluators.sums import class_sums, true_rank
from fixed_head_jax.model import get_model
from fixed_head_jax.training import experiment

pytestmark = pytest.mark.usefixtures("tiny_backbone")

ALL = ("feature_norms", "neural_collapse", "neural_collapse_train", "shots", "decoupling")


def make_config(data_dir, **overrides):
    config = digits.get_config("linear,smoke")
    config.data_dir, config.model.backbone = data_dir, "tiny"
    config.data.train_split, config.data.eval_split = "train[:70]", "test[:45]"
    # The last batches are padded; 18 of the training split: more than the device adds up at once.
    config.eval_batch_size, config.num_devices = 4, 2
    config.update_from_flattened_dict(overrides)
    return config


def evaluate(run, state, final=False):
    models = {"eval": {"params": state.params, **state.model_state}}
    arrays = {"train": run.train_data.arrays(), "eval": run.eval_data.arrays()}
    return (run.final_evaluate if final else run.evaluate)(
        models, parallel.replicate(arrays, run.mesh)
    )


@pytest.fixture(scope="module")
def measured(data_dir):
    """Metrics of every evaluator, and features, logits and labels of both splits at once."""
    run = experiment.build(make_config(data_dir, final_evaluators=ALL))
    state = jax.jit(run.create_state)({})
    model = get_model(10, "tiny", "linear")
    whole = {}
    for split, dataset in (("train", run.train_data), ("eval", run.eval_data)):
        arrays = dataset.arrays()
        images = normalize(to_float(jnp.asarray(arrays["image"])), (0.5,), (0.5,))
        out = model.apply({"params": state.params, **state.model_state}, images, train=False)
        whole[split] = out["features"], out["logits"], jnp.asarray(arrays["label"])
    kernel = state.params["head"]["kernel"]
    return evaluate(run, state, final=True), whole, kernel


def on_host(sums):
    return jax.tree.map(lambda x: np.asarray(x, np.float64)[()], sums)


def assert_holds(metrics, expected, prefix=""):
    assert expected
    for name, value in expected.items():
        np.testing.assert_allclose(
            metrics[f"eval/{prefix}{name}"], value, rtol=2e-4, atol=1e-6, err_msg=name
        )


def test_classification(measured):
    metrics, whole, _ = measured
    _, logits, labels = whole["eval"]
    assert metrics["eval/examples"] == 45
    expected = {"accuracy": 100 * (logits.argmax(1) == labels).mean()}
    assert_holds(metrics, expected)


def test_feature_norms(measured):
    metrics, whole, kernel = measured
    features, logits, labels = whole["eval"]
    sums = feature_norms.feature_norm_sums(features, kernel, logits, labels, jnp.ones(45))
    assert_holds(metrics, feature_norms.feature_norm_metrics(on_host(sums)))


@pytest.mark.parametrize("split, prefix", [("eval", ""), ("train", "train_")])
def test_neural_collapse(measured, split, prefix):
    metrics, whole, kernel = measured
    features, logits, labels = whole[split]
    mask = jnp.ones(len(labels))
    first = class_sums(features, labels, mask, 10)
    geometry = neural_collapse.class_geometry(on_host(first))
    second = neural_collapse.collapse_sums(features, logits, labels, mask, geometry)
    expected = neural_collapse.collapse_metrics(geometry, on_host(second), np.asarray(kernel))
    assert_holds(metrics, expected, prefix)


def test_shots(measured):
    metrics, whole, _ = measured
    _, logits, labels = whole["eval"]
    counts = np.bincount(whole["train"][2], minlength=10)
    totals = on_host(long_tail.class_hits(logits, labels, jnp.ones(45)))
    assert_holds(metrics, long_tail.shot_metrics(totals, counts))
    assert np.isnan(metrics["eval/accuracy_many"])  # no class has so many here


def test_decoupling(measured):
    metrics, whole, kernel = measured
    features, _, labels = whole["train"]
    mean = long_tail.feature_mean(on_host(long_tail.feature_sums(features, jnp.ones(70))))
    sums = long_tail.embedding_sums(features, labels, jnp.ones(70), jnp.asarray(mean), 10)
    context = long_tail.class_context(mean, on_host(sums))
    features, logits, labels = whole["eval"]
    hits = long_tail.decoupling_hits(features, kernel, logits, labels, jnp.ones(45), context)
    expected = long_tail.decoupling_metrics(on_host(hits), context.class_counts)
    assert_holds(metrics, expected)
    assert metrics["eval/ncm/accuracy"] != metrics["eval/accuracy"]


@pytest.mark.slow
def test_disk_and_other_devices_measure_the_same(measured, data_dir):
    metrics, _, _ = measured
    overrides = {"data.placement": "disk", "num_devices": 4, "eval_batch_size": 32}
    config = make_config(data_dir, final_evaluators=ALL, **overrides)
    run = experiment.build(config)
    again = evaluate(run, jax.jit(run.create_state)({}), final=True)
    assert again.keys() == metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(again[name], value, rtol=2e-4, atol=1e-6, err_msg=name)


def test_final_evaluators_wait_for_the_end(data_dir):
    config = make_config(data_dir, evaluators=("shots",), final_evaluators=("feature_norms",))
    run = experiment.build(config)
    state = jax.jit(run.create_state)({})
    assert not run.evaluates_train
    names = evaluate(run, state).keys()
    assert "eval/balanced_accuracy" in names and "eval/feature_norm_correct" not in names
    assert "eval/feature_norm_correct" in evaluate(run, state, final=True)


def test_a_second_evaluation_compiles_nothing(data_dir, caplog):
    run = experiment.build(make_config(data_dir, evaluators=("neural_collapse",), ema_decay=0.5))
    assert run.final_evaluate is run.evaluate
    state = jax.jit(run.create_state)({})
    first = evaluate(run, state)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert evaluate(run, state) == first
    compiled = [record.message for record in caplog.records if "Compiling" in record.message]
    assert not compiled


def test_rank_of_the_true_class():
    scores = jnp.array([[1.0, 3, 2], [2, 2, 2], [2, 2, 2], [1, jnp.nan, 0], [1, 0, jnp.nan]])
    ranks = true_rank(scores, jnp.array([2, 0, 2, 1, 0]))
    np.testing.assert_array_equal(ranks, [1, 0, 2, 2, 1])


def test_unknown_evaluator():
    with pytest.raises(ValueError, match="unknown evaluator 'shot' .did you mean 'shots'"):
        get_evaluator("shot", Setting(10, lambda: np.ones(10)))
