"""Self-Classifier on CIFAR-10.

    python main.py --config=configs/selfclassifier_cifar10.py --workdir=runs/s --config.data_dir=DIR

For one GPU: ResNet-18 for small images, 800 epochs. There is no published recipe of this version
of the method for CIFAR: the objective, the queue, LARC and the rule of the rates are those of the
ImageNet scripts; crops, colours and length those of the earlier version; no blur. Variant `cpu` is
what a laptop can do: 16 pixels, ResNet-20, 30 epochs, and the choices of `selfclassifier_digits`.
`v1` is the earlier version's optimizer (SGD, 3.2 to 0.032 by epochs, 30 classifiers of 30 classes,
batches of 256) under this version's loss. `random` as for the digits. Measured: `cpu` for some
epochs (results/selfclassifier.md); the full recipe was not run here.

Source: Amrani, Karlinsky and Bronstein, ECCV 2022, https://arxiv.org/abs/2103.10994; its first
version of 2021 and code.
"""

from fixed_head_jax.configs import common, selfclassifier_common


def get_config(arg: str = ""):
    variants = common.variants(arg, ("cpu", "v1", "random", "smoke"))
    config = selfclassifier_common.get_config()
    config.data.name = "cifar10"
    config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    config.model.backbone = "stl_resnet18"  # a 3x3 convolution and no pooling before the stages
    options = config.model.head_options
    options.num_clusters, options.hidden_dim, options.dim = (10, 20, 40, 80), 2048, 128
    config.task.options.queue_size, config.task.options.uses_neighbors = 16384, True
    views = config.views
    views.num_local, views.global_size, views.global_scale = 0, 32, (0.2, 1.0)
    views.saturation = 0.4
    views.blur_probability = views.solarize_probability = (0.0, 0.0, 0.0)
    config.update_from_flattened_dict(selfclassifier_common.rates(0.3, batch_size=512))
    config.total_epochs, config.optim.warmup_epochs = 800.0, 10.0
    config.eval_every_epochs, config.evaluators = 20.0, ("knn",)
    config.final_evaluators, config.class_grids = ("linear_probe", "kmeans", "kmeans_pixels"), 10
    if "v1" in variants:
        options.num_clusters, options.hidden_dim, options.dim = (30,) * 30, 256, 64
        options.num_layers = 3
        config.batch_size = 256
        config.optim.name, config.optim.lr, config.optim.final_lr = "sgd", 3.2, 0.032
        config.optim.per_epoch, config.optim.decay_after_warmup = True, False
        config.optim.warmup_epochs = config.optim.warmup_from = 0.0
        views.blur_probability = (0.5, 0.5, 0.5)
    if "cpu" in variants:
        config.data.image_size, views.global_size = 16, 16
        config.model.backbone = "resnet20"
        options.num_clusters, options.hidden_dim = (10,) * 8, 512
        options.evaluated = -1
        config.task.options.uses_neighbors = False
        selfclassifier_common.use_adamw(config)
        config.total_epochs, config.optim.warmup_epochs = 30.0, 1.0
        config.eval_every_epochs = 1.0
    if "random" in variants:
        selfclassifier_common.leave_random(config)
    return selfclassifier_common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """The recipe with learned and with fixed classifiers, with and without neighbours."""
    base = get_config(arg)
    uses_neighbors = base.task.options.uses_neighbors
    rows = selfclassifier_common.rows(base, {
        "recipe": {},
        "no_neighbors" if uses_neighbors else "neighbors": {
            "task.options.uses_neighbors": not uses_neighbors
        },
        "fixed_classifiers": {"model.head_options.frame": "random_directions"},
        "orthogonal_classifiers": {"model.head_options.frame": "orthogonal"},
    })  # fmt: skip
    return {"baseline": "recipe", "seeds": (0, 1, 2), "rows": rows, "metric": "eval/acc"}
