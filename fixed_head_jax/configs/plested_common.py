"""What the experiments of non-binary transfer share: recipe, rows of dials, and guided search.

The rows are those of the paper's results figure. Their best settings per data set are not
published, of the release only the recipe is known. The settings here are assumed: rates of head,
upper and lower layers as 30 : 10 : 1 with n = 8; L2-SP of 0.01 on everything transferred, or mixed:
0.02 on the lower layers, the release's live constant, and L2 above. `--mode=search` looks for
better ones.

Source: Plested, Shen & Gedeon 2021, arXiv 2107.08585, and its release.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from fixed_head_jax.configs import common

NUM_LAYERS, LOW_LAYERS = 22, 8  # of Inception v4, and n
TUNE = {"data.train_split": "train", "data.eval_split": "validation"}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The rows of the figure, in its order.
ROWS = ("default", "reinit", "split_lr", "reinit_split_lr", "l2sp", "mixed_reg_k1", "mixed_reg")
VARIANTS = (*ROWS, "optimal", "tune", "as_published", "smoke")


class Experiment(NamedTuple):
    """A data set and what the paper says of it.

    Attributes:
        data: its name.
        final_split: what to train on for the test images; to tune, it is "train".
        lr: base rate.
        new_layers: k of the rows that tune it.
        optimal: the best row of a single model.
        published: top-1 accuracy (%) of every row and of the ensemble, read off the figure within
            0.03 points.
        statistics: mean and standard deviation that the release normalises images with.
    """

    data: str
    final_split: str
    lr: float
    new_layers: Mapping[str, int]
    optimal: str
    published: Mapping[str, float]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


def get_config(experiment: Experiment, arg: str = "") -> ConfigDict:
    """Returns the config of a row (`default` without one), for the test images or, `tune`, not."""
    variants = common.variants(arg, VARIANTS)
    config = _recipe()
    config.data.name, config.optim.lr = experiment.data, experiment.lr
    config.data.train_split, config.data.eval_split = experiment.final_split, "test"
    if "tune" in variants:
        config.update_from_flattened_dict({**TUNE, "eval_every_epochs": 10.0})
    if "as_published" in variants:
        config.transfer.as_published, config.augment.policy_as_published = True, True
        config.data.mean, config.data.std = experiment.statistics
    chosen = [name for name in variants if name in (*ROWS, "optimal")] or [ROWS[0]]
    if len(chosen) > 1:
        raise ValueError(f"config variants {', '.join(chosen)} are rows; choose one of them")
    row = experiment.optimal if chosen == ["optimal"] else chosen[0]
    config.update_from_flattened_dict(_rows(experiment, variants)[row])
    if "smoke" in variants:
        config.init_from, config.model.backbone = "none", "resnet20"
        config = common.smoke(config, image_size=32)
    return config


def get_sweep(experiment: Experiment, arg: str = "") -> dict:
    """Returns the paper's comparison; rows whose settings are those of another are left out."""
    variants = arg.split(",")
    distinct: dict[str, dict] = {}
    for name, overrides in _rows(experiment, variants).items():
        if overrides not in distinct.values():
            distinct[name] = {"overrides": overrides}
    distinct["ensemble"] = {"members": tuple(distinct)}
    # The published figures are of the test images.
    published = {} if "tune" in variants else experiment.published
    rows = [
        {"name": name, **row, "published": published.get(name)} for name, row in distinct.items()
    ]
    return {"baseline": "default", "seeds": (0, 1, 2), "rows": rows}


def get_search(experiment: Experiment, arg: str = "") -> dict:
    """Returns the search over layers, rates, decay and L2-SP at once, on the validation images."""
    if "as_published" in arg.split(","):
        raise ValueError("as_published has constants in place of dials; search without it")
    alphas = {"choices": (0.0, 0.001, 0.004, 0.01, 0.02, 0.1)}
    space = {
        "new_layers": {"choices": (1, 2, 3, 4, 5, 6, 8, 10, 12)},
        "low_layers": {"choices": (4, 6, 8, 10, 11, 14, 18)},
        "lr": {"low": 0.0025, "high": 0.05, "log": True},
        "high_rate": {"choices": (0.1, 0.3, 0.6, 1.0)},
        "low_rate": {"choices": (0.0, 0.03, 0.1, 0.3, 0.6, 1.0)},
        "weight_decay": {"choices": (1e-4, 5e-4, 1e-3)},
        "alpha_upper": alphas,
        "alpha_lower": alphas,
    }
    return make_search(NUM_LAYERS, TUNE, space, {"low_layers": LOW_LAYERS, "lr": experiment.lr})


def _recipe():
    """The release's training command, with its defects mended: Inception v4 at 299 pixels.

    Images have the statistics that the public weights were trained with.
    """
    config = common.get_config()
    config.model.backbone = "inception_v4"
    config.data.image_size, config.data.resize_size = 299, 341
    config.data.interpolation, config.data.crop_interpolation = "bicubic", "random"
    config.data.train_crop, config.augment.flip = "random_resized", True
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.augment.policy, config.augment.mixup = "rand-m9-mstd0.5-inc1", 0.2
    config.augment.erase_probability, config.augment.erase_fill = 0.5, "pixel"
    config.task.options.label_smoothing = 0.1
    config.batch_size, config.eval_batch_size, config.total_epochs = 32, 128, 800.0
    # The test images are looked at once: nothing can be chosen on them, not even when to stop.
    config.eval_every_epochs, config.checkpoint_every_steps = 0.0, 1000
    config.save_predictions = True
    config.optim.nesterov, config.optim.weight_decay = True, 5e-4
    config.optim.schedule, config.optim.step_every_epochs, config.optim.factor = "step", 10, 0.9
    config.optim.warmup_epochs, config.optim.warmup_per_epoch = 3.0, True
    config.optim.warmup_from = 1e-4
    return config


def _rows(experiment, variants):
    """Returns the config values of every row."""
    new, lr = experiment.new_layers, experiment.lr
    split = (lr, lr / 3, lr / 30)
    rows = {
        "default": turn(),
        "reinit": turn(new["reinit"]),
        "split_lr": turn(1, LOW_LAYERS, split),
        "reinit_split_lr": turn(new["reinit_split_lr"], LOW_LAYERS, split),
        "l2sp": turn(1, None, alphas=(0.01, 0.01)),
        "mixed_reg_k1": turn(1, LOW_LAYERS, split, alphas=(0.0, 0.02)),
        "mixed_reg": turn(new["mixed_reg"], LOW_LAYERS, split, alphas=(0.0, 0.02)),
    }
    if "as_published" in variants:  # constants of its own, on the lower group: here all layers
        rows["l2sp"]["transfer.num_low_lr_layers"] = NUM_LAYERS
        alphas = {"transfer.alpha_upper": None, "transfer.alpha_lower": None}
        rows = {name: {**overrides, **alphas} for name, overrides in rows.items()}
    return rows


def turn(
    new_layers: int = 1,
    low_layers: int | None = None,
    rates: tuple[float | None, float | None, float | None] = (None, None, None),
    alphas: tuple[float, float] = (0.0, 0.0),
) -> dict:
    """Returns the config values of one setting of the dials, those that it leaves alone included.

    Args:
        new_layers: drawn anew, from the head.
        low_layers: of the lower group, from the image; None for one group.
        rates: of head, upper and lower layers; None is the optimizer's.
        alphas: strength of L2-SP on the upper and the lower layers; 0 decays them to zero instead.
    """
    l2_sp, (lr_head, lr_upper, lr_lower) = any(alphas), rates
    return {
        "transfer.new_layers": new_layers,
        "transfer.num_low_lr_layers": low_layers,
        "transfer.lr_head": lr_head,
        "transfer.lr_upper": lr_upper,
        "transfer.lr_lower": lr_lower,
        "transfer.l2_sp": l2_sp,
        "transfer.alpha_upper": alphas[0] if l2_sp else None,
        "transfer.alpha_lower": alphas[1] if l2_sp and low_layers is not None else None,
    }


def make_search(num_layers: int, splits: dict, space: dict, start: dict) -> dict:
    """Returns a guided search over the dials, for `--mode=search`.

    Args:
        num_layers: of the backbone.
        splits: config values that hold out images to tune on.
        space: dial -> its range: new_layers, low_layers, lr (of the head), high_rate and low_rate
            (the share that the upper and the lower layers have of it), weight_decay, alpha_upper,
            alpha_lower.
        start: where the first trial differs from the paper's default: new_layers 1, one rate,
            decay of 0.0005, no L2-SP.
    """
    default = {
        "new_layers": 1, "high_rate": 1.0, "low_rate": 1.0, "weight_decay": 5e-4,
        "alpha_upper": 0.0, "alpha_lower": 0.0, **start,
    }  # fmt: skip

    def overrides(dials):
        new, lr = dials["new_layers"], dials["lr"]
        # Layers drawn anew are never in the lower group, whose rate may be 0, and nothing is pulled
        # where no layer is left or none moves.
        old = num_layers + 1 - new
        low = min(dials["low_layers"], old)
        alpha_upper = dials["alpha_upper"] if low < old else 0.0
        alpha_lower = dials["alpha_lower"] if dials["low_rate"] else 0.0
        rates = (None, dials["high_rate"] * lr, dials["low_rate"] * lr)
        return {
            "model.frozen_backbone": False, "optim.lr": lr,
            "optim.weight_decay": dials["weight_decay"],
            **turn(new, low, rates, (alpha_upper, alpha_lower)),
        }  # fmt: skip

    def starts(difference):
        """The rule of thumb: where frozen features do better, stay near them; else train freely."""
        near = {"alpha_upper": 0.01, "alpha_lower": 0.01}
        ideas = [near, {**near, "new_layers": 2}] if difference < 0 else [{"low_rate": 0.1}]
        return [default, *({**default, **idea} for idea in ideas)]

    scratch, frozen = {"init_from": "none"}, {"model.frozen_backbone": True}
    return {
        "space": space,
        "overrides": overrides,
        "splits": splits,
        "probes": {
            "scratch": {**overrides(default), **scratch},
            "frozen": {**overrides(default), **frozen},
        },
        "starts": starts,
    }
