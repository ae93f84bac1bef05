"""t-vMF similarity on iNaturalist 2018, in two stages (Kobayashi, CVPR 2021).

    python main.py --config=configs/kobayashi_inat2018.py --workdir=runs/inat --config.data_dir=DIR

The two stages, variants and measures of `kobayashi_imagenet_lt.py` with ResNet-50 on 8,142 species:
437,513 training images, tested on the 24,426 of the validation split. Published top-1: 71.08 with
kappa 16, 70.31 with 64 (the network is inferred); a margin loss of Cao et al. (2019) 68.00. Not
measured here yet. `decoupling` has the settings of Kang et al. for this dataset.
"""

from configs import common
from configs.kobayashi_imagenet_lt import HEADS, KNOWN, kappa_sweep, smoke, two_stages


def get_config(arg: str = ""):
    variants = common.variants(arg, KNOWN)
    config = common.get_config()
    config.data.name, config.data.eval_split = "i_naturalist2018", "validation"
    common.imagenet_images(config)
    config.data.mean, config.data.std = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
    config.model.backbone = "resnet50"
    config.model.head = common.choose(variants, HEADS, "tvmf")
    config.batch_size, config.total_epochs = 256, 90.0
    config.evaluators = ("shots",)
    config.optim.lr, config.optim.weight_decay = 0.2, 1e-4
    config.optim.schedule, config.optim.per_epoch = "cosine", True
    if "decoupling" in variants:
        config.model.head, config.final_evaluators = "linear", ("decoupling",)
        config.batch_size = 512
    return smoke(config) if "smoke" in variants else config


def get_stages(arg: str = "") -> list:
    """Stage 1, and what learns on its frozen backbone."""
    return two_stages(common.variants(arg, KNOWN), crt_epochs=30.0)


def get_sweep(arg: str = "") -> dict:
    """Stage 1 by kappa; the accuracies are those after the last stage."""
    return kappa_sweep(common.variants(arg, KNOWN), published={16.0: 71.08, 64.0: 70.31})
