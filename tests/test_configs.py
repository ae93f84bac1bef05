"""Every experiment runs two steps in its smoke variant."""

import importlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import common
from fixed_head_jax import experiment, stages, sweep, train
from fixed_head_jax.augment import Options, make_augment

CONFIGS = sorted(
    path.stem for path in Path(__file__).parents[1].glob("configs/*.py") if path.stem != "common"
)
SMOKE = [
    *((name, "smoke") for name in CONFIGS),
    ("kobayashi_imagenet_lt", "decoupling,as_published,smoke"),
]
QUICK = ("digits",)


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        pytest.param(name, variants, marks=() if name in QUICK else pytest.mark.slow)
        for name, variants in SMOKE
    ],
)
def test_config_trains(name, variants, tmp_path):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variants)
    config.data_dir = str(tmp_path)
    get_stages = getattr(module, "get_stages", lambda arg: [{"name": "run", "overrides": {}}])
    for stage in stages.plan_stages(get_stages(variants), tmp_path):
        config_here = config.copy_and_resolve_references()
        config_here.update_from_flattened_dict(stage.overrides)
        result = train.train(experiment.build(config_here), stage.folder)
        assert result["step"] == 2
        assert math.isfinite(result["eval/loss"])


SWEEPS = [
    *((name, "") for name in CONFIGS),
    *(
        ("qian_imagenet", table)
        for table in ("table5_2", "table5_3", "table5_4", "table5_6", "poolings")
    ),
    ("qian_transfer", "flowers,shufflenet_v2_x0_5"),
    ("qian_transfer", "cars,resnet50,grid"),
    ("shalev_stl10", "cifar100"),
    ("kobayashi_inat2018", "decoupling"),
]


@pytest.mark.parametrize(("name", "variants"), SWEEPS)
def test_sweep_is_well_formed_and_its_overrides_are_keys(name, variants):
    module = importlib.import_module(f"configs.{name}")
    rows = module.get_sweep(variants)
    sweep.check_sweep(rows)
    for row in rows["rows"]:
        module.get_config(variants).update_from_flattened_dict(row["overrides"])


@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_the_experiment_pass_its_augmentation(name):
    """The smoke runs see the digits alone, which have one channel."""
    config = importlib.import_module(f"configs.{name}").get_config()
    shape = (32, 32, 1 if name == "digits" else 3)
    train_augment, eval_augment = make_augment(
        shape, 10, config.data.mean, config.data.std, Options(**config.augment)
    )
    images = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((2,), jnp.int32)}
    rngs = jax.random.split(jax.random.key(0), 2)
    trained = jax.eval_shape(train_augment, rngs, jax.random.key(1), batch)["image"]
    for out in (trained, jax.eval_shape(eval_augment, images)):
        assert (out.shape, out.dtype) == (images.shape, jnp.float32)


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="unknown config variant 'nope'; known: "):
        importlib.import_module(f"configs.{name}").get_config("nope")


def test_misspelt_key_is_refused_with_a_hint():
    with pytest.raises(AttributeError, match='Did you mean "lr"'):
        common.get_config().optim.lrr = 1.0
