"""Every experiment runs two steps in its smoke variant."""

import importlib
import math
from pathlib import Path

import pytest

from configs import common
from fixed_head_jax import experiment, sweep, train

CONFIGS = sorted(
    path.stem for path in Path(__file__).parents[1].glob("configs/*.py") if path.stem != "common"
)
SLOW = ("qian_cifar100", "shalev_stl10")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CONFIGS],
)
def test_config_trains(name, tmp_path):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config("smoke")
    config.data_dir = str(tmp_path)
    result = train.train(experiment.build(config), tmp_path / "run")
    assert result["step"] == 2
    assert all(math.isfinite(value) for value in result.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_sweep_is_well_formed_and_its_overrides_are_keys(name):
    module = importlib.import_module(f"configs.{name}")
    rows = module.get_sweep()
    sweep.check_sweep(rows)
    for row in rows["rows"]:
        module.get_config().update_from_flattened_dict(row["overrides"])


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="unknown config variant 'nope'; known: "):
        importlib.import_module(f"configs.{name}").get_config("nope")


def test_misspelt_key_is_refused_with_a_hint():
    with pytest.raises(AttributeError, match='Did you mean "lr"'):
        common.get_config().optim.lrr = 1.0
