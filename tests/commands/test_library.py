"""The library as the README shows it: a config, a run, and its metrics again."""

import pytest

import fixed_head_jax as fhj
from fixed_head_jax.commands import runs


@pytest.mark.usefixtures("tiny_backbone")
def test_the_example_of_the_readme(tmp_path, data_dir):
    small = {"total_steps": 2, "data_dir": str(data_dir), "model.backbone": "tiny"}
    config = fhj.load_config("digits:hadamard,smoke", small)
    result = fhj.train(config, tmp_path / "run")
    ((step, metrics),) = fhj.evaluate(tmp_path / "run").items()
    assert step == 2
    assert metrics["eval/accuracy"] == result["eval/accuracy"]
    more = fhj.evaluate(tmp_path / "run", {"evaluators": ("feature_norms",)})
    assert "eval/feature_norm_correct" in more[2]


def test_a_fault_in_the_report_ends_nothing(monkeypatch, tmp_path, capsys):
    def fail(workdir):
        raise RuntimeError("no room\nleft")

    monkeypatch.setattr(runs, "write_report", fail)
    runs.report(tmp_path)
    assert capsys.readouterr().out == "report      not finished: no room left\n"


def test_what_it_cannot_do_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="there is no key optim.lrr"):
        fhj.load_config("digits", {"optim.lrr": 1.0})
    with pytest.raises(ValueError, match="optim.lr=-1.0 must be"):
        fhj.load_config("digits", {"optim.lr": -1.0})
    with pytest.raises(ValueError, match="'digit' is no experiment"):
        fhj.load_config("digit")
    with pytest.raises(ValueError, match="holds no run"):
        fhj.evaluate(tmp_path)
