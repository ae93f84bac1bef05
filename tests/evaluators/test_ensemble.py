"""Predictions on disk and ensembles of runs, against numpy and the evaluation of the runs."""

import numpy as np
import pytest

from fixed_head_jax import ensemble
from fixed_head_jax.configs import digits
from fixed_head_jax.evaluators.predictions import (
    average,
    measure,
    read_predictions,
    write_predictions,
)
from fixed_head_jax.training import experiment, loop

FILE = "predictions.npz"
LABELS = np.array([0, 2, 1, 6, 3], np.int32)


def write_run(folder, seed, split="'test' of 'numbers'", labels=LABELS, classes=7, **more):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(classes), len(labels))
    predictions = {"label": labels, "eval": probabilities.astype(np.float32), **more}
    write_predictions(folder / FILE, {"split": split, **predictions})
    return probabilities


def ensemble_metrics(runs):
    return measure(average(runs))


def test_the_mean_of_the_probabilities(tmp_path, monkeypatch):
    monkeypatch.setattr("fixed_head_jax.evaluators.predictions._CHUNK", 3)  # 5 examples: two parts
    folders = [tmp_path / str(seed) for seed in (14, 15, 16)]
    mean = np.mean([write_run(folder, int(folder.name)) for folder in folders], axis=0)
    metrics = ensemble_metrics(folders)
    ranks = (mean > mean[np.arange(5), LABELS][:, None]).sum(1)
    assert 0 < metrics["eval/accuracy"] < metrics["eval/top5_accuracy"]
    assert metrics == pytest.approx(
        {
            "eval/accuracy": 100 * np.mean(ranks == 0),
            "eval/top5_accuracy": 100 * np.mean(ranks < 5),
            "eval/loss": -np.log(mean[np.arange(5), LABELS]).mean(),
            "eval/examples": 5,
        },
        rel=1e-6,
    )


def test_averages_of_parameters_count_where_all_runs_have_them(tmp_path):
    averages = {"eval_ema": np.full((5, 7), 1 / 7, np.float32)}
    write_run(tmp_path / "a", 0, **averages)
    write_run(tmp_path / "b", 1, **averages)
    write_run(tmp_path / "c", 2)
    both = ensemble_metrics([tmp_path / "a", tmp_path / "b"])
    assert both["eval_ema/loss"] == pytest.approx(np.log(7))
    assert "eval_ema/loss" not in ensemble_metrics([tmp_path / "a", tmp_path / "c"])


def test_a_certain_mistake_has_a_finite_loss(tmp_path):
    predictions = {"label": LABELS[:1], "eval": np.eye(7, dtype=np.float32)[1:2]}
    write_predictions(tmp_path / "run" / FILE, {"split": "x", **predictions})
    assert 80 < ensemble_metrics([tmp_path / "run"])["eval/loss"] < 100


def test_a_file_can_be_named_in_place_of_a_folder(tmp_path):
    write_run(tmp_path / "run", 0)
    other = tmp_path / "run" / "evaluation_7.npz"
    write_predictions(other, {"split": "x", "label": LABELS + 1})
    np.testing.assert_array_equal(read_predictions(other)["label"], LABELS + 1)
    np.testing.assert_array_equal(read_predictions(tmp_path / "run")["label"], LABELS)
    assert not list(tmp_path.rglob("*.partial"))


def test_runs_that_do_not_go_together_are_refused(tmp_path):
    write_run(tmp_path / "a", 0)
    write_run(tmp_path / "split", 1, split="'validation' of 'numbers'")
    write_run(tmp_path / "labels", 1, labels=LABELS[::-1].copy())
    write_run(tmp_path / "classes", 1, classes=8)
    (tmp_path / "none").mkdir()
    (tmp_path / "a.txt").touch()
    write_run(tmp_path / "seeds" / "seed0", 1)
    write_predictions(tmp_path / "evaluated" / "evaluation_7.npz", {"split": "x"})
    for name, message in (
        ("split", "predicts 'validation' of 'numbers', but .* predicts 'test' of 'numbers'"),
        ("labels", "the same examples in the same order"),
        ("classes", "another number of classes"),
        ("none", "holds no predictions; .*--config.save_predictions=True, also .* finished"),
        ("no_such_folder", "no_such_folder' is neither the workdir of a run nor an .npz file"),
        ("a.txt", "a.txt' is neither the workdir of a run nor an .npz file"),
        (
            "seeds",
            "seeds' holds no predictions; those in it are named as .*seeds/seed0/predictions",
        ),
        ("evaluated", "evaluated' holds no predictions; .* named as .*/evaluation_7.npz$"),
    ):
        with pytest.raises(ValueError, match=message):
            ensemble_metrics([tmp_path / "a", tmp_path / name])
    (file,) = (tmp_path / "a").iterdir()
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match="predictions.npz is damaged"):
        ensemble_metrics([tmp_path / "a"])
    with pytest.raises(ValueError, match="at least one run"):
        ensemble_metrics([])


def test_the_command_line(tmp_path, capsys):
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for seed, folder in enumerate(folders):
        write_run(tmp_path / folder, seed)
    ensemble.main(folders)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [*folders, "ensemble of 2"]
    with pytest.raises(SystemExit) as stopped:
        ensemble.main([str(tmp_path / "c")])
    assert stopped.value.code == 2


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_backbone")
def test_a_run_predicts_what_it_was_evaluated_on(tmp_path):
    config = digits.get_config("linear,smoke")
    config.data_dir, config.model.backbone = str(tmp_path), "tiny"
    config.eval_batch_size, config.num_devices = 16, 4  # the last batch is padded
    config.save_predictions, config.ema_decay = True, 0.5
    run = experiment.build(config)
    result = loop.train(run, tmp_path / "run")
    predictions = read_predictions(tmp_path / "run")
    np.testing.assert_array_equal(predictions["label"], run.eval_data.source.labels)
    np.testing.assert_allclose(predictions["eval"].sum(1), 1, rtol=1e-5)
    metrics = ensemble_metrics([tmp_path / "run"])
    assert metrics == pytest.approx({key: result[key] for key in metrics}, rel=1e-5)
    assert "eval_ema/accuracy" in metrics
    config.data.eval_split = "test[:20]"
    loop.evaluate(experiment.build(config), tmp_path / "run")
    part = read_predictions(tmp_path / "run" / "evaluation_2.npz")
    np.testing.assert_allclose(part["eval"], predictions["eval"][:20], rtol=1e-5)
    assert ensemble_metrics([tmp_path / "run"]) == metrics
