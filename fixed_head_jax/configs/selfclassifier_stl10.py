"""Self-Classifier on STL-10: learned from the 100,000 images without labels.

    python main.py --config=configs/selfclassifier_stl10.py --workdir=runs/s --config.data_dir=DIR

Ten classes, two views of 96 pixels and four of 48, ResNet-18; kNN, the linear probe and k-means are
fitted to the 5,000 labelled images, and everything is measured on the 8,000 test images. For one
GPU. There is no published recipe for these data: rates by the rule of the ImageNet scripts, views
by those of the earlier version for small images. Not measured here.

Source: Amrani, Karlinsky and Bronstein, ECCV 2022, https://arxiv.org/abs/2103.10994.
"""

from fixed_head_jax.configs import common, selfclassifier_common


def get_config(arg: str = ""):
    variants = common.variants(arg, ("smoke",))
    config = selfclassifier_common.get_config()
    config.data.name = "stl10"
    config.data.train_split, config.data.unlabelled = "unlabelled", True
    config.data.fit_split = "train"
    config.data.mean, config.data.std = (0.447, 0.440, 0.407), (0.260, 0.257, 0.271)
    config.model.backbone = "resnet18"
    options = config.model.head_options
    options.num_clusters, options.hidden_dim, options.dim = (10, 20, 40, 80), 2048, 128
    config.task.options.queue_size = 16384
    views = config.views
    views.num_local, views.global_size, views.local_size = 4, 96, 48
    views.global_scale, views.local_scale = (0.4, 1.0), (0.1, 0.4)
    config.update_from_flattened_dict(selfclassifier_common.rates(0.3, batch_size=512))
    config.total_epochs, config.optim.warmup_epochs = 200.0, 10.0
    config.eval_every_epochs, config.evaluators = 10.0, ("knn",)
    config.final_evaluators, config.class_grids = ("linear_probe", "kmeans"), 10
    return selfclassifier_common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """The method, and each of its parts left out."""
    del arg  # one table
    parts: dict[str, dict] = {
        "full": {},
        "no_nn": {"task.options.uses_neighbors": False},
        "no_multicrop": {"views.num_local": 0},
        "fixed_classifiers": {"model.head_options.frame": "random_directions"},
    }
    rows = selfclassifier_common.rows(get_config(), parts)
    return {"baseline": "full", "seeds": (0, 1, 2), "rows": rows, "metric": "eval/acc"}
