"""Self-Classifier on photographs of one's own: classes found without labels.

    fixed-head train selfclassifier_own_images --config.data.path=FOLDER --workdir=runs/mine
    fixed-head predict runs/mine NEW_PHOTOGRAPHS --out=clusters.csv

FOLDER holds images, in any folders or none; it is prepared the first time. `classes/` in the
workdir shows what is in each class, and names the files. Ten classes, unless
`--config.model.head_options.num_clusters="(30,)*8"` says otherwise: eight classifiers of as many
classes, of which the one with the smallest loss counts, as for the digits. There is no published
recipe for such data, and no label to measure with: the checkpoint that is kept as the best is the
one whose classes tell most of an image (`information`). A batch should hold many images of each
class. ResNet-18, views of 96 and 48 pixels; variants:

    finetune    from public weights, `--config.init_from=torchvision:resnet18-f37072fd`: lower
                rate; mean and deviation are theirs
    small       views of 32 pixels, none smaller, for a laptop's CPU
    labelled    FOLDER holds a folder for each class, or `train/` and `val/` with those: they are
                not learned from, but what is found is compared with them

Source: Amrani, Karlinsky and Bronstein, ECCV 2022, https://arxiv.org/abs/2103.10994.
"""

from fixed_head_jax.configs import common, selfclassifier_common


def get_config(arg: str = ""):
    variants = common.variants(arg, ("finetune", "small", "labelled", "smoke"))
    config = selfclassifier_common.get_config()
    config.data.name, config.data.eval_split, config.data.channels = "", "", 3
    config.data.unlabelled, config.best_metric = True, "information"
    config.data.image_size, config.data.resize_size = 96, 110
    config.data.train_crop, config.data.mean, config.data.std = "random_resized", (), ()
    config.model.backbone = "resnet18"
    options = config.model.head_options
    options.num_clusters, options.hidden_dim, options.dim = (10,) * 8, 512, 128
    options.evaluated = -1  # the classifier with the smallest loss
    config.task.options.queue_size, config.task.options.uses_neighbors = 0, False
    views = config.views
    views.num_local, views.global_size, views.local_size = 4, 96, 48
    views.global_scale, views.local_scale = (0.4, 1.0), (0.1, 0.4)
    config.batch_size, config.eval_batch_size = 128, 128
    config.total_epochs, config.eval_every_epochs, config.log_every_steps = 100.0, 5.0, 10
    selfclassifier_common.use_adamw(config)
    config.optim.warmup_epochs, config.class_grids = 5.0, 10
    if "finetune" in variants:
        config.optim.lr = 2e-4
    if "labelled" in variants:
        config.data.unlabelled, config.best_metric = False, "nmi"
    if "small" in variants:
        config.data.image_size, config.data.resize_size = 32, 36
        config.model.backbone = "resnet20"
        views.num_local, views.global_size = 0, 32
    return selfclassifier_common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """The recipe with learned and with fixed classifiers."""
    rows = selfclassifier_common.rows(get_config(arg), {
        "recipe": {},
        "fixed_classifiers": {"model.head_options.frame": "random_directions"},
        "orthogonal_classifiers": {"model.head_options.frame": "orthogonal"},
    })  # fmt: skip
    return {"baseline": "recipe", "seeds": (0, 1, 2), "rows": rows, "metric": "eval/information"}
