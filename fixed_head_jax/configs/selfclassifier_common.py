"""What the experiments with Self-Classifier have in common."""

from ml_collections import ConfigDict

from fixed_head_jax.configs import common


def get_config() -> ConfigDict:
    """Returns the published method: its optimizer, and rates by its rule, whatever the data."""
    config = common.get_config()
    config.task.name, config.best_metric = "self_classifier", "nmi"
    config.model.head = "projection"
    config.optim.name, config.optim.weight_decay = "larc", 1e-6
    config.optim.schedule, config.optim.decay_after_warmup = "cosine", True
    return config


def rates(base: float, batch_size: int) -> dict:
    """Returns the batch size and the published scripts' rates for it: up from `base`, then down."""
    lr = base * batch_size / 256
    return {
        "batch_size": batch_size, "optim.lr": lr, "optim.warmup_from": base,
        "optim.final_lr": 1e-3 * lr,
    }  # fmt: skip


def use_adamw(config: ConfigDict) -> None:
    """Trains small networks for few epochs, where LARC is slow to start."""
    config.optim.name, config.optim.lr, config.optim.weight_decay = "adamw", 2e-3, 0.01
    config.optim.warmup_from, config.optim.final_lr = 0.0, 2e-6


def leave_random(config: ConfigDict) -> None:
    """Leaves every parameter as it is drawn; three epochs bring the batch statistics near."""
    config.optim.lr = config.optim.warmup_from = config.optim.final_lr = 0.0
    config.total_epochs, config.optim.warmup_epochs = 3.0, 0.0


def rows(config: ConfigDict, overrides: dict[str, dict]) -> list[dict]:
    """Returns rows of a sweep by name; each takes back what the others change."""
    base = common.flatten(config)
    touched = sorted({key for own in overrides.values() for key in own})
    return [
        {
            "name": name,
            "overrides": {**{key: base[key] for key in touched}, **own},
            "published": None,
        }
        for name, own in overrides.items()
    ]


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks an experiment as `common.smoke` does, with views and classifiers for the digits."""
    config = common.smoke(config)
    config.task.options.queue_size = 8
    config.data.unlabelled, config.data.fit_split = False, ""
    config.model.backbone = "resnet20"
    options = config.model.head_options
    options.num_clusters, options.hidden_dim, options.dim = (10, 10), 16, 8
    views = config.views
    views.num_local = min(views.num_local, 1)
    views.global_size, views.local_size = 8, 4
    views.saturation = views.hue = views.grey_probability = 0.0  # those are for three channels
    config.evaluators = config.final_evaluators = ()
    config.class_grids = 0
    if config.data.train_crop == "random_resized":
        config.data.image_size = 8
    return config
