"""Every experiment runs two steps in its smoke variant."""

import functools
import importlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from fixed_head_jax.augment import Options, ViewSet, make_augment, make_view_augment
from fixed_head_jax.configs import common
from fixed_head_jax.data.__main__ import main as prepare_data
from fixed_head_jax.model import get_model
from fixed_head_jax.optim import transfer
from fixed_head_jax.settings.config_flag import experiments
from fixed_head_jax.settings.schema import flatten
from fixed_head_jax.studies import stages, sweep
from fixed_head_jax.tasks import NEEDS
from fixed_head_jax.training import experiment, loop
from fixed_head_jax.training.experiment.updates import make_training

CONFIGS = experiments()
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
    module = importlib.import_module(f"fixed_head_jax.configs.{name}")
    config = module.get_config(variants)
    config.data_dir = str(tmp_path)
    get_stages = getattr(module, "get_stages", lambda arg: [{"name": "run", "overrides": {}}])
    for stage in stages.plan_stages(get_stages(variants), tmp_path):
        config_here = config.copy_and_resolve_references()
        config_here.update_from_flattened_dict(stage.overrides)
        result = loop.train(experiment.build(config_here), stage.folder)
        assert result["step"] == 2
        assert math.isfinite(result[f"eval/{config_here.best_metric}"])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_record_gives_the_config_back(name):
    config = importlib.import_module(f"fixed_head_jax.configs.{name}").get_config()
    record = json.loads(json.dumps({**flatten(config), "train data": "1,442 images"}))
    assert common.from_record(record).to_dict() == common.settle(config).to_dict()


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
    ("plested_cars", "as_published"),
    ("plested_small", "cifar10,tune"),
]


@pytest.mark.parametrize(("name", "variants"), SWEEPS)
def test_sweep_is_well_formed_and_its_overrides_are_keys(name, variants):
    module = importlib.import_module(f"fixed_head_jax.configs.{name}")
    rows = module.get_sweep(variants)
    sweep.check_sweep(rows)
    for row in rows["rows"]:
        module.get_config(variants).update_from_flattened_dict(row.get("overrides", {}))


def test_scripts_of_self_classifier():
    module = importlib.import_module("fixed_head_jax.configs.selfclassifier_imagenet")
    assert len(module.SCRIPTS) == 38  # 37 of the release, and their control
    configs = {name: common.flatten(module.get_config(name)) for name in module.SCRIPTS}
    base = configs["100ep"]
    assert base["optim.lr"] == 4.8 and base["optim.final_lr"] == pytest.approx(0.0048)

    def changed(name):
        return {key: v for key, v in configs[name].items() if v != base[key]}

    assert changed("800ep") == pytest.approx(
        {"total_epochs": 800, "optim.lr": 3.2, "optim.warmup_from": 0.2, "optim.final_lr": 0.0032}
    )
    assert changed("batch_256") == pytest.approx({
        "batch_size": 256, "optim.lr": 0.3, "optim.final_lr": 0.0003, "optim.warmup_epochs": 0,
        "task.options.queue_size": 16384,
    })  # fmt: skip
    ablated = {"model.head_options.use_batch_norm": False, "dtype": "bfloat16"}
    assert changed("control") == ablated
    assert changed("queue_128k") == pytest.approx({
        **ablated, "task.options.queue_size": 131072, "optim.lr": 3.2, "optim.warmup_from": 0.2,
        "optim.final_lr": 0.0032,
    })  # fmt: skip
    assert changed("no_nn_no_multicrop") == {
        **ablated, "task.options.uses_neighbors": False, "views.num_local": 0,
        "views.global_scale": (0.14, 1.0),
    }  # fmt: skip
    # The probe takes back what the first stage may have been given.
    config = module.get_config()
    config.model.head_options.evaluated, config.task.options.eps = 1, 0.0
    config.update_from_flattened_dict(module.get_stages()[1]["overrides"])
    assert {k: v for k, v in config.model.head_options.items() if v is not None} == {
        "kernel_init": "normal"
    }
    assert not [value for value in config.task.options.values() if value is not None]
    for row in module.get_sweep()["rows"]:  # from any variant, a row is the script of its name
        config = module.get_config("mlp_no_mlp")
        config.update_from_flattened_dict(row["overrides"])
        assert common.flatten(config) == configs[row["name"]]


PLESTED = [name for name in CONFIGS if name.startswith("plested_")]


@pytest.mark.parametrize("variants", ["", "as_published"])
@pytest.mark.parametrize("name", [name for name in PLESTED if name != "plested_small"])
def test_rows_of_transfer_are_dials_that_can_be_meant(name, variants):
    module = importlib.import_module(f"fixed_head_jax.configs.{name}")
    published = module.EXPERIMENT.published
    rows = module.get_sweep(variants)["rows"]
    assert {row["name"]: row["published"] for row in rows}.items() <= published.items()
    for row in rows[:-1]:
        config = module.get_config(f"{row['name']},{variants}")
        dials = dict(config.transfer)
        transfer.check(transfer.Dials(**dials), 22, "weights.safetensors", config.optim.lr)
        config.update_from_flattened_dict(row["overrides"])  # what the variant of its name has
        assert dict(config.transfer) == dials
    best = module.get_config(f"optimal,{variants}")
    names = [
        row["name"]
        for row in rows
        if row["published"] == max(published[r["name"]] for r in rows[:-1])
    ]
    assert any(
        dict(module.get_config(f"{name},{variants}").transfer) == dict(best.transfer)
        for name in names
    )


def test_what_does_not_go_together_in_experiments_of_transfer():
    cars = importlib.import_module("fixed_head_jax.configs.plested_cars")
    with pytest.raises(ValueError, match="reinit, l2sp are rows; choose one"):
        cars.get_config("reinit,tune,l2sp")
    with pytest.raises(ValueError, match="search without it"):
        cars.get_search("as_published")
    assert all(row["published"] is None for row in cars.get_sweep("tune")["rows"])
    assert cars.get_config().eval_every_epochs == 0  # nothing is chosen on the test images


@functools.cache
def parameters_of(backbone):
    model = get_model(10, backbone)
    images = jnp.zeros((1, 299, 299, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return variables["params"], model.backbone.layers


@pytest.mark.parametrize("name", PLESTED)
def test_a_search_tries_dials_that_can_be_meant(name):
    module = importlib.import_module(f"fixed_head_jax.configs.{name}")
    search, config = module.get_search(), module.get_config()
    rng = np.random.default_rng(0)

    def drawn(dial):
        return rng.choice(dial["choices"]).item() if "choices" in dial else dial["high"]

    settings = [{key: drawn(dial) for key, dial in search["space"].items()} for _ in range(30)]
    starts = [*search["starts"](-3.0), *search["starts"](3.0)]
    for dials in starts:
        assert dials.keys() == search["space"].keys()
        assert all(
            value in dial["choices"] if "choices" in dial else dial["low"] <= value <= dial["high"]
            for value, dial in zip(dials.values(), map(search["space"].get, dials), strict=True)
        )
    params, layers = parameters_of(config.model.backbone)
    overrides = [search["overrides"](dials) for dials in (*settings, *starts)]
    for values in (*overrides, *search["probes"].values()):
        config.update_from_flattened_dict({**search["splits"], **values})
        assert config.data.eval_split != "test"
        start = "none" if values.get("init_from") else "weights.safetensors"
        dials, lr = transfer.Dials(**config.transfer), config.optim.lr
        transfer.check(dials, len(layers), start, lr, config.model.frozen_backbone)
        make_training(config, dials, params, layers, 10_000, lambda epoch: math.ceil(10 * epoch))


@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_the_experiment_pass_its_augmentation(name):
    """The smoke runs see the digits alone, which have one channel."""
    config = importlib.import_module(f"fixed_head_jax.configs.{name}").get_config()
    shape = (32, 32, 1 if name.endswith("digits") else 3)
    pixels = config.data.mean or (0.5,), config.data.std or (0.5,)  # (): of the images
    train_augment, eval_augment = make_augment(shape, 10, *pixels, Options(**config.augment))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((2,), jnp.int32)}
    rngs = jax.random.split(jax.random.key(0), 2)
    if NEEDS[config.task.name].views:
        views = ViewSet(**config.views)
        out = jax.eval_shape(
            make_view_augment(shape[-1], *pixels, views), rngs, jax.random.key(1), batch
        )
        sizes = [x.shape[1] for x in (*out["global"], *out["local"])]
        assert sizes == [views.global_size] * 2 + [views.local_size] * views.num_local
        return
    trained = jax.eval_shape(train_augment, rngs, jax.random.key(1), batch)["image"]
    for out in (trained, jax.eval_shape(eval_augment, images)):
        assert (out.shape, out.dtype) == (images.shape, jnp.float32)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A prepared folder of images of many sizes and two classes, as a user would make it."""
    folder, data_dir = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        (folder / name).mkdir()
        for number in range(20):
            left, top, width, height = rng.integers((0, 0, 60, 60), (300, 100, 340, 320))
            part = photo.crop((left, top, left + width, top + height))
            part.save(folder / name / f"{number}.{'jpg' if number % 4 else 'png'}")
    arguments = ["prepare", "image_folder", f"--path={folder}", "--name=photographs"]
    assert prepare_data([*arguments, f"--data_dir={data_dir}"]) == 0
    return str(data_dir)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_backbone")
@pytest.mark.parametrize(
    "augment",
    [
        {"policy": "rand-m9-mstd0.5-inc1", "mixup": 0.2, "cutmix": 1.0, "erase_probability": 0.5},
        {"hue": 0.1, "grey_probability": 0.2, "blur_probability": 0.5, "lighting": 0.1},
    ],
    ids=["policy", "colours"],
)
def test_a_folder_of_photographs_trains(augment, photographs, tmp_path):
    config = common.smoke(common.get_config(), image_size=32)
    common.imagenet_images(config)
    keys = {
        "data_dir": photographs, "data.name": "photographs", "data.eval_split": "test",
        "data.image_size": 32, "data.resize_size": 36, "model.backbone": "tiny",
        **{f"augment.{key}": value for key, value in augment.items()},
    }  # fmt: skip
    config.update_from_flattened_dict(keys)
    result = loop.train(experiment.build(config), tmp_path)
    assert result["eval/examples"] == 8
    assert math.isfinite(result["eval/loss"])


@pytest.mark.parametrize("name", CONFIGS)
def test_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="unknown config variant 'nope'; known: "):
        importlib.import_module(f"fixed_head_jax.configs.{name}").get_config("nope")


def test_misspelt_key_is_refused_with_a_hint():
    with pytest.raises(AttributeError, match='Did you mean "lr"'):
        common.get_config().optim.lrr = 1.0
