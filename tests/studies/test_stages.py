"""Experiments in stages: where each starts from, what it leaves, what a second stage may move."""

import json

import jax
import numpy as np
import pytest

from fixed_head_jax.configs import digits
from fixed_head_jax.storage.checkpoint import read_variables
from fixed_head_jax.studies.report import stage_table
from fixed_head_jax.studies.stages import plan_stages, run_stages
from fixed_head_jax.training import experiment, loop

pytestmark = pytest.mark.usefixtures("tiny_backbone")

TWO = [
    {"name": "first", "overrides": {}},
    {"name": "second", "init_from": "first", "overrides": {"optim.lr": 0.2}},
]


def test_a_plan_names_folders_and_what_they_start_from(tmp_path):
    first, second = plan_stages(TWO, tmp_path)
    assert first == ("first", tmp_path / "first", {})
    overrides = {"optim.lr": 0.2, "init_from": str(tmp_path / "first")}
    assert second == ("second", tmp_path / "second", overrides)
    assert "init_from" not in TWO[1]["overrides"]


@pytest.mark.parametrize(
    "listed, message",
    [
        ([], "at least one stage"),
        ([{"name": "a"}], "needs a name and overrides"),
        ([TWO[0], TWO[0]], "'first' must be usable as a folder's name, and once"),
        ([{"name": "a/b", "overrides": {}}], "'a/b' must be usable"),
        (TWO[::-1], "'second' starts from 'first', which is no earlier stage; earlier: none"),
    ],
)
def test_a_bad_plan_is_refused(tmp_path, listed, message):
    with pytest.raises(ValueError, match=message):
        plan_stages(listed, tmp_path)


def test_stages_leave_one_table_and_one_result(tmp_path, capsys):
    results = {
        "first": {"eval/accuracy": 40.0, "eval/ncm/accuracy": 45.5, "eval/loss": 2.0},
        "second": {"eval/accuracy": 50.0, "eval/accuracy_few": float("nan"), "params": 7},
    }
    merged = run_stages(plan_stages(TWO, tmp_path), lambda stage: results[stage.name], tmp_path)
    assert merged["eval/accuracy"] == 50 and merged["params"] == 7
    assert merged["first/eval/accuracy"] == 40 and merged["second/eval/accuracy"] == 50
    assert json.loads((tmp_path / "result.json").read_text())["first/eval/loss"] == 2
    table = (tmp_path / "stages.md").read_text()
    assert table == stage_table(results)
    assert [line.replace(" ", "") for line in table.splitlines()] == [
        "|stage|accuracy(%)|few-shot|",
        "|:-----------|---------------:|-----------:|",
        "|first|40.00|-|",
        "|first,ncm|45.50|-|",
        "|second|50.00|-|",
    ]
    assert f"stage 2/2: {tmp_path / 'second'}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory):
    """A config on few digits, and the workdir of a run of it."""
    config = digits.get_config("tvmf,smoke")
    config.data_dir = str(tmp_path_factory.mktemp("tfds"))
    config.data.train_split, config.data.eval_split = "train[:64]", "test[:30]"
    config.model.backbone, config.optim.lr = "tiny", 0.1
    config.batch_size, config.eval_batch_size = 16, 32
    folder = tmp_path_factory.mktemp("first")
    loop.train(experiment.build(config), folder)
    return config, folder


SECOND = {
    "init_skip": ("^head",), "data.sampler": "class_aware", "data.per_class": 2,
    "optim.weight_decay": 0.1, "optim.lr": 0.5,
}  # fmt: skip
COSINE = {"model.head": "cosine"}


@pytest.mark.slow
def test_only_what_a_stage_learns_moves(first_stage, tmp_path):
    """Learnable weight scaling: neither the backbone nor kernel and bias, though decay would."""
    config, _ = first_stage
    linear = config.copy_and_resolve_references()
    linear.model.head = "linear"
    loop.train(experiment.build(linear), tmp_path / "one")
    scales = {
        "init_skip": ("^head.class_scales",), "model.head_options.class_scales": True,
        "model.frozen_backbone": True, "optim.frozen": ("^head/(kernel|bias)$",),
    }  # fmt: skip
    first, second = second_stage((linear, tmp_path / "one"), tmp_path / "two", **scales)
    assert not np.array_equal(second["params"]["head"].pop("class_scales"), np.ones(10))
    assert all(same(first, second))
    assert json.loads((tmp_path / "two" / "result.json").read_text())["params"] == 10


def second_stage(first_stage, folder, **overrides):
    config, first = first_stage
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({**SECOND, "init_from": str(first), **overrides})
    loop.train(experiment.build(config), folder)
    return read_variables(first), read_variables(folder)


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [np.array_equal(x, y) for x, y in pairs]


def test_a_frozen_backbone_moves_neither_parameters_nor_statistics(first_stage, tmp_path):
    first, second = second_stage(first_stage, tmp_path, **COSINE, **{"model.frozen_backbone": True})
    assert all(same(first["params"]["backbone"], second["params"]["backbone"]))
    assert all(same(first["batch_stats"], second["batch_stats"]))
    assert not any(same(first["params"]["head"], second["params"]["head"]))


def test_as_published_the_statistics_of_the_frozen_backbone_move(first_stage, tmp_path):
    first, second = second_stage(
        first_stage, tmp_path, **COSINE, **{"optim.frozen": ("^backbone/",)}
    )
    assert all(same(first["params"]["backbone"], second["params"]["backbone"]))
    assert not any(same(first["batch_stats"], second["batch_stats"]))
