"""Self-Classifier on scikit-learn's handwritten digits: ten classes learned without labels.

    python main.py --config=configs/selfclassifier_digits.py --workdir=runs/sc_digits
    python main.py --config=configs/selfclassifier_digits.py --workdir=runs/sc_sweep --sweep

Minutes on a laptop. Measures the classes found (NMI, AMI, ARI, ACC), kNN and a linear probe on the
features, and k-means on features and pixels; `classes/` in the workdir shows what is in each class.
Measured (results/selfclassifier.md): better than k-means on pixels.

Unlike the ImageNet recipe: AdamW; eight classifiers of ten classes, of which the one with the
smallest loss counts, without a look at labels; and no neighbours, which join different digits where
a queue can only hold some hundred images. All are rows of the sweep. Variant
`random` leaves the network as it is drawn (three epochs move its batch statistics), for comparison.

Source: Amrani, Karlinsky and Bronstein, ECCV 2022, https://arxiv.org/abs/2103.10994.
"""

from fixed_head_jax.configs import common, selfclassifier_common


def get_config(arg: str = ""):
    variants = common.variants(arg, ("random", "smoke"))
    config = selfclassifier_common.get_config()
    config.data.name = "digits"
    config.data.mean, config.data.std = (0.305,), (0.376,)
    config.model.backbone = "resnet20"
    options = config.model.head_options
    options.num_clusters, options.hidden_dim, options.dim = (10,) * 8, 256, 64
    options.evaluated = -1  # the classifier with the smallest loss
    config.task.options.queue_size, config.task.options.uses_neighbors = 512, False
    views = config.views
    views.num_local, views.global_size, views.global_scale = 0, 8, (0.6, 1.0)
    views.flip, views.saturation, views.hue, views.grey_probability = False, 0.0, 0.0, 0.0
    views.blur_probability = views.solarize_probability = (0.0, 0.0, 0.0)
    config.batch_size, config.eval_batch_size = 256, 355
    config.total_epochs, config.eval_every_epochs = 100.0, 10.0
    config.log_every_steps = 25
    selfclassifier_common.use_adamw(config)
    config.optim.warmup_epochs = 5.0
    config.evaluators = ("knn",)
    config.final_evaluators, config.class_grids = ("linear_probe", "kmeans", "kmeans_pixels"), 10
    if "random" in variants:
        selfclassifier_common.leave_random(config)
    return selfclassifier_common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """The recipe, and what it leaves out or takes in."""
    rows = selfclassifier_common.rows(get_config(arg), {
        "recipe": {},
        "neighbors": {"task.options.uses_neighbors": True},
        "first_classifier": {"model.head_options.evaluated": 0},
        "published_heads": {
            "model.head_options.num_clusters": (10, 20, 40, 80), "model.head_options.evaluated": 0
        },
        "larc": {
            "optim.name": "larc", "optim.lr": 1.0, "optim.weight_decay": 1e-6,
            "optim.warmup_from": 0.3, "optim.final_lr": 1e-3,
        },
        "fixed_classifiers": {"model.head_options.frame": "random_directions"},
        "orthogonal_classifiers": {"model.head_options.frame": "orthogonal"},
    })  # fmt: skip
    return {"baseline": "recipe", "seeds": (0, 1, 2), "rows": rows, "metric": "eval/acc"}
