"""Oracles of the command line: what its short and its long form mean."""

import pytest

from fixed_head_jax.commands.arguments import MODES, TOOLS, parse, usage
from fixed_head_jax.commands.listings import list_experiments, list_keys
from fixed_head_jax.configs import common
from fixed_head_jax.settings.config_flag import experiments


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digits:hadamard", "--workdir=x", "--config.optim.lr=0.5"],
        ["--config=digits:hadamard", "--config.optim.lr=0.5", "--workdir=x"],
        ["--workdir", "x", "--config", "configs/digits.py:hadamard", "--config.optim.lr", "0.5"],
    ],
)
def test_forms_of_one_command(arguments):
    line = parse(arguments)
    assert (line.mode, line.flags.workdir, line.config.model.head) == ("train", "x", "hadamard")
    assert line.overrides == {"optim.lr": 0.5} and line.config.optim.lr == 0.5
    assert line.config_file.endswith("digits.py:hadamard")


def test_a_workdir_alone_and_values_of_its_own_config():
    values = ["--config.evaluators=('knn',)", "--noconfig.save_predictions"]
    line = parse(["evaluate", "runs/x", *values])
    assert (line.mode, line.flags.workdir, line.config_file) == ("evaluate", "runs/x", "")
    assert line.overrides == {"evaluators": ("knn",), "save_predictions": False}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian", "digits"], "unknown mode 'trian' .did you mean 'train'"),
        (["train", "digits", "stray", "--workdir=x"], "stray"),
        (["train", "digits", "--workdir=x", "stray"], "unknown argument 'stray'"),
        (["train", "digits"], "--workdir=... is required"),
        (["train", "--workdir=x"], "--config=... is required; .*configs"),
        (["train", "digits", "--workdir=x", "--seeds=-1"], "--seeds=-1 must be at least 1"),
        (["train", "digits", "--workdir=x", "--seeds=2", "--sweep"], "leave out --seeds"),
        (["evaluate", "x", "--seeds=2"], "goes without --sweep and --seeds"),
        (["--mode=tain"], "tain"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(arguments)


def test_usage_fits_a_screen_and_names_all():
    lines = usage("fixed-head").splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    for name in (*MODES, *TOOLS):
        assert any(line.split()[:1] == [name] for line in lines)


def test_listings():
    assert list_keys("optim.lr").splitlines()[0] == "optim.lr = 0.1"
    assert all(f"{key} = " in list_keys() for key in common.KEYS)
    assert "no key has 'nope'" in list_keys("nope")
    assert "head_options.scale = None (64.0)" in list_keys("head_options.scale")
    assert "head_options.margin = None (0.35 of cosface; 0.5 of arcface)" in list_keys("margin")
    listed = list_experiments()
    assert [line for line in listed.splitlines() if line[0] != " "] == experiments()
    assert "hadamard" in list_experiments("digits")


def test_experiments_are_listed_without_docstrings(monkeypatch):
    monkeypatch.setattr("fixed_head_jax.configs.digits.__doc__", None)  # as under python -OO
    assert list_experiments("digits").startswith("digits\n")
