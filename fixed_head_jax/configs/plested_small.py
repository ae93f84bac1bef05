"""The dials of non-binary transfer (Plested, Shen & Gedeon 2021) at a size for a laptop's CPU.

A ResNet-20 learns some classes of a data set, then is fine-tuned to the others on few images:

    python main.py --config=configs/plested_small.py:digits,pretrain --workdir=runs/digits_start
    python main.py --config=configs/plested_small.py:digits --sweep --workdir=runs/digits_dials \\
        --config.init_from=runs/digits_start

`digits` (default): 0 to 4, then 5 to 9 on 10 images of each. `cifar10` (`--config.data_dir=DIR`):
the first 8 classes, then ships and trucks on 50 images of each. Every row of the sweep turns one
dial of `default`; `frozen` and `scratch` are the two measurements of the paper's rule of thumb. The
images are the same in every run, seeds draw the head, the new layers, the order and augmentation.
`tune` evaluates on training images that are held out instead of the test images: the rate was
chosen there, and `--mode=search --budget=40` turns all dials there. A dial of the upper layers
counts from the head, one of the lower layers from the image; the network has 10 layers and the
head. Not the paper's data or network: it has no published figures. Measured: `results/`.
"""

from typing import NamedTuple

from fixed_head_jax.configs import common
from fixed_head_jax.configs.plested_common import make_search, turn


class Data(NamedTuple):
    """A data set: classes and epochs of the start, then how to fine-tune to the other classes."""

    classes: int
    start_epochs: float
    fraction: float  # of the images of the first half of the training split
    epochs: float
    lr: float
    seeds: tuple[int, ...]


DATA = {
    "digits": Data(5, 30.0, 0.14, 60.0, 0.03, (0, 1, 2, 3, 4)),
    "cifar10": Data(8, 8.0, 0.02, 30.0, 0.03, (0, 1, 2)),
}
NUM_LAYERS = 10
TUNE = {"data.train_split": "train[:50%]", "data.eval_split": "train[50%:]"}


def get_config(arg: str = ""):
    variants = common.variants(arg, (*DATA, "pretrain", "tune", "smoke"))
    name = common.choose(variants, DATA, "digits")
    data, config = DATA[name], common.get_config()
    config.data.name, config.model.backbone = name, "resnet20"
    if name == "digits":
        config.data.mean, config.data.std, config.augment.pad_crop = (0.305,), (0.376,), 1
    else:
        config.data.mean = (0.4914, 0.4822, 0.4465)
        config.data.std = (0.247, 0.2435, 0.2616)
        config.augment.pad_crop, config.augment.flip = 4, True
    config.optim.schedule, config.optim.weight_decay = "cosine", 5e-4
    if "pretrain" in variants:
        config.data.first_classes = data.classes
        config.batch_size = 64 if name == "digits" else 128
        config.total_epochs = data.start_epochs
        config.optim.lr, config.optim.warmup_epochs = 0.1, 1.0
    else:
        config.data.skip_classes, config.data.train_fraction = data.classes, data.fraction
        config.data.train_split = TUNE["data.train_split"]
        config.update_from_flattened_dict({**turn(), **(TUNE if "tune" in variants else {})})
        config.batch_size, config.total_epochs, config.eval_every_epochs = 10, data.epochs, 0.0
        config.optim.lr, config.save_predictions = data.lr, True
    if "smoke" in variants:
        config.init_from = "none"
        config = common.smoke(config)
    return config


def get_sweep(arg: str = ""):
    """One dial at a time; `ensemble` averages the probabilities of the rows that transfer."""
    data = DATA[common.choose(arg.split(","), DATA, "digits")]
    lr = data.lr
    rows = {
        "default": turn(),
        **{f"new_layers_{k}": turn(k) for k in (2, 4, 7)},
        **{f"low_rate_{x:g}": turn(1, 4, (None, None, x * lr)) for x in (0.0, 0.1, 0.3)},
        "high_rate_0.1": turn(1, 4, (None, 0.1 * lr, 0.1 * lr)),
        **{f"l2_sp_{alpha:g}": turn(1, None, alphas=(alpha, alpha)) for alpha in (0.01, 0.1, 1.0)},
        "l2_sp_lower_0.1": turn(1, 4, alphas=(0.0, 0.1)),
        "new_layers_2_low_rate_0.1": turn(2, 4, (None, None, 0.1 * lr)),
        "new_layers_2_l2_sp_0.1": turn(2, None, alphas=(0.1, 0.1)),
    }
    kept = {"model.frozen_backbone": False}
    listed: list[dict] = [
        {"name": name, "overrides": {**dials, **kept}, "published": None}
        for name, dials in rows.items()
    ]
    probes: dict[str, dict] = {
        "frozen": {"model.frozen_backbone": True},
        "scratch": {**kept, "init_from": "none"},
    }
    listed += [
        {"name": name, "overrides": {**turn(), **changes}, "published": None}
        for name, changes in probes.items()
    ]
    listed.append({"name": "ensemble", "members": tuple(rows), "published": None})
    return {"baseline": "default", "seeds": data.seeds, "rows": listed}


def get_search(arg: str = ""):
    """Layers, rates, decay and L2-SP at once, on training images that are held out."""
    data = DATA[common.choose(arg.split(","), DATA, "digits")]
    space = {
        "new_layers": {"choices": (1, 2, 3, 4, 7, 10)},
        "low_layers": {"choices": (1, 4, 7, 10)},
        "lr": {"low": 0.003, "high": 0.3, "log": True},
        "high_rate": {"choices": (0.1, 0.3, 1.0)},
        "low_rate": {"choices": (0.0, 0.1, 0.3, 1.0)},
        "weight_decay": {"choices": (1e-4, 5e-4, 1e-3)},
        "alpha_upper": {"choices": (0.0, 0.01, 0.1, 1.0)},
        "alpha_lower": {"choices": (0.0, 0.01, 0.1, 1.0)},
    }
    return make_search(NUM_LAYERS, TUNE, space, {"low_layers": 4, "lr": data.lr})
