"""Self-Classifier on ImageNet: ResNet-50, two large and six small views, a queue of neighbours.

    python main.py --config=configs/selfclassifier_imagenet.py:100ep --workdir=runs/sc \\
        --config.data_dir=DIR

Trains without labels, measures the classes found (NMI, AMI, ARI, ACC) and kNN on the features, then
trains the published linear probe on the frozen backbone: two stages, one command. With
`--config.superclass_dir=FOLDER --config.final_evaluators="('knn','superclasses')"` also the levels
of the class hierarchy and BREEDS. Variants are the scripts of the release by name, `SCRIPTS`;
`--sweep` runs all of them. Published, in percent, final epoch, classifier 0 on the 50,000 images:

    variant   NMI    AMI    ARI    ACC    linear probe
    100ep     71.2   49.2   26.1   37.3   72.4
    200ep     72.5   51.6   28.1   39.4   73.5
    400ep     72.9   52.3   28.8   40.2   74.2
    800ep     73.3   53.1   29.5   41.1   74.1

The figures of the other scripts are in the paper's tables, which were not at hand. All but those of
the batch size also leave batch norm out of the MLP and compute in half precision: compare them
with `control`, which is 100ep with these two changes, and no script of the release.

Where this differs: batches of 4,096 instead of 11 x 6 x 62 = 4,092, which eight devices cannot
share; batch norm over the whole batch instead of a third of it; bfloat16 instead of float16; the
global batch size needs many devices (`batch_256` fits one). Not measured here.

Source: Amrani, Karlinsky and Bronstein, ECCV 2022, https://arxiv.org/abs/2103.10994, and its code.
"""

from fixed_head_jax.configs import common, selfclassifier_common
from fixed_head_jax.configs.selfclassifier_common import rates

ABLATED = {"model.head_options.use_batch_norm": False, "dtype": "bfloat16"}
ONE_SIZE = {"views.num_local": 0, "views.global_scale": (0.14, 1.0)}
NO_NEIGHBORS = {"task.options.uses_neighbors": False}


def _heads(*clusters):
    return {"model.head_options.num_clusters": clusters}


NO_WARMUP = {"optim.warmup_epochs": 0.0}
_MAIN = {
    "100ep": {},
    "200ep": {"total_epochs": 200.0},
    "400ep": {"total_epochs": 400.0},
    "800ep": {"total_epochs": 800.0, **rates(0.2, 4096)},
    "batch_256": {**rates(0.3, 256), **NO_WARMUP, "task.options.queue_size": 16384},
    "batch_512": {**rates(0.3, 512), **NO_WARMUP},
    "batch_1024": rates(0.3, 1024),
    "batch_2048": rates(0.3, 2048),
}
_ABLATIONS = {
    "control": {},
    "no_multicrop": ONE_SIZE,
    "no_nn": NO_NEIGHBORS,
    "no_nn_no_multicrop": {**NO_NEIGHBORS, **ONE_SIZE},
    **{f"heads_1x{size}k": _heads(1000 * size) for size in (1, 2, 4, 8)},
    **{f"heads_{count}x1k": _heads(*[1000] * count) for count in (5, 10, 15)},
    "heads_fixed_cls": {"model.head_options.frame": "random_directions"},
    **{f"lr_base_{base}": rates(base, 4096) for base in (0.1, 0.2, 0.4)},
    "mlp_dim_256": {"model.head_options.dim": 256},
    "mlp_hidden_dim_8192": {"model.head_options.hidden_dim": 8192},
    "mlp_hidden_dim_8192_dim_256": {
        "model.head_options.hidden_dim": 8192, "model.head_options.dim": 256
    },
    "mlp_num_hidden_3": {"model.head_options.num_layers": 3},
    "mlp_num_hidden_3_dim_256": {"model.head_options.num_layers": 3, "model.head_options.dim": 256},
    "mlp_no_mlp": {
        "model.head_options.num_layers": 0, "model.head_options.dim": 2048,
        "task.options.queue_size": 131072,
    },
    "queue_128k": {"task.options.queue_size": 131072, **rates(0.2, 4096)},
    "queue_512k": {"task.options.queue_size": 524288},
    "queue_1m": {"task.options.queue_size": 1048576},
    "temp_col_0.03_row_0.1": {"task.options.column_temperature": 0.03},
    "temp_col_0.03_row_0.07": {
        "task.options.column_temperature": 0.03, "task.options.row_temperature": 0.07
    },
    "temp_col_0.05_row_0.07": {"task.options.row_temperature": 0.07},
    **{f"wd_{decay:g}": {"optim.weight_decay": decay} for decay in (5e-6, 1e-5, 5e-5)},
}  # fmt: skip
SCRIPTS = {**_MAIN, **{name: {**ABLATED, **own} for name, own in _ABLATIONS.items()}}
PUBLISHED_ACC = {"100ep": 37.3, "200ep": 39.4, "400ep": 40.2, "800ep": 41.1}


def get_config(arg: str = ""):
    variants = common.variants(arg, (*SCRIPTS, "smoke"))
    config = selfclassifier_common.get_config()
    common.imagenet_images(config)
    config.augment.flip = False  # views have their own
    config.data.name, config.data.eval_split = "imagenet2012", "validation"
    config.data.crop_interpolation = "bicubic"
    config.model.backbone = "resnet50"
    options = config.model.head_options
    options.num_clusters, options.hidden_dim = (1000, 2000, 4000, 8000), 4096
    options.num_layers, options.dim, options.use_batch_norm = 2, 128, True
    config.task.options.queue_size = 262144
    config.task.options.row_temperature, config.task.options.column_temperature = 0.1, 0.05
    config.task.options.uses_neighbors = True
    config.dtype = "float32"
    config.update_from_flattened_dict(rates(0.3, 4096))
    config.optim.warmup_epochs = 10.0
    config.total_epochs, config.eval_every_epochs = 100.0, 25.0
    config.final_evaluators, config.class_grids, config.class_grid_images = ("knn",), 15, 16
    config.update_from_flattened_dict(SCRIPTS[common.choose(variants, SCRIPTS, "100ep")])
    return selfclassifier_common.smoke(config) if "smoke" in variants else config


def get_stages(arg: str = ""):
    """Training without labels, then the published linear probe: 100 epochs of its own."""
    base = common.get_config()
    unset = [
        f"{name}.{key}"
        for name, options in (
            ("model.head_options", base.model.head_options), ("task.options", base.task.options)
        )
        for key in options
    ]  # fmt: skip
    probe = {
        **dict.fromkeys(unset),  # whatever the first stage was given
        "task.name": "supervised", "best_metric": "accuracy", "model.head": "linear",
        "model.head_options.kernel_init": "normal", "model.frozen_backbone": True,
        "init_skip": ("^head",), "augment.flip": True, "data.crop_interpolation": "bilinear",
        "dtype": "float32", "batch_size": 4096, "total_epochs": 100.0, "eval_every_epochs": 1.0,
        # Norms do not see the batch, so that parts of it give the same step in less memory.
        "accumulation_steps": 16, "ema_decay": 0.0,
        "optim.name": "larc", "optim.lr": 0.8, "optim.momentum": 0.9, "optim.weight_decay": 0.0,
        "optim.schedule": "cosine", "optim.per_epoch": True, "optim.decay_after_warmup": False,
        "optim.warmup_epochs": 0.0, "optim.warmup_from": 0.0, "optim.final_lr": 0.0,
        "optim.no_decay": (), "optim.frozen": (), "optim.lr_multipliers": (),
        "optim.decay_multipliers": (), "optim.clip_norm": 0.0, "optim.clip_tensor_norm": 0.0,
        "evaluators": (), "final_evaluators": (), "class_grids": 0,
    }  # fmt: skip
    if "smoke" in arg:
        probe["batch_size"], probe["accumulation_steps"] = 8, 1
    stages = [{"name": "pretrain", "overrides": {}}]
    return [*stages, {"name": "probe", "init_from": "pretrain", "overrides": probe}]


def get_sweep(arg: str = ""):
    """Every script of the release: ACC of classifier 0, and what else stands beside it."""
    if "smoke" in arg:
        raise ValueError("the scripts have no sweep in their smoke variant; leave smoke out")
    rows = selfclassifier_common.rows(get_config(), SCRIPTS)
    for row in rows:
        row["published"] = PUBLISHED_ACC.get(row["name"])
        row["baseline"] = "100ep" if row["name"] in _MAIN else "control"
    return {"baseline": "100ep", "seeds": (0,), "rows": rows, "metric": "pretrain/eval/acc"}
