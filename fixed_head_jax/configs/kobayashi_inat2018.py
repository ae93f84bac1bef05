"""t-vMF similarity on iNaturalist 2018, in two stages (Kobayashi, CVPR 2021).

    python main.py --config=configs/kobayashi_inat2018.py --workdir=runs/inat --config.data_dir=DIR

The two stages, variants and measures of `kobayashi_imagenet_lt.py` with ResNet-50 on 8,142 species:
437,513 training images, tested on the 24,426 of the validation split. Published top-1: 71.08 with
kappa 16, 70.31 with 64 (the network is inferred); a margin loss of Cao et al. (2019) 68.00. Not
measured here yet. `decoupling` has the settings of Kang et al. for this dataset.
"""

from fixed_head_jax.configs import common, kobayashi_imagenet_lt
from fixed_head_jax.configs.kobayashi_imagenet_lt import KNOWN, kappa_sweep, smoke, two_stages


def get_config(arg: str = ""):
    variants = common.variants(arg, KNOWN)
    same = ",".join(name for name in variants if name != "smoke")
    config = kobayashi_imagenet_lt.get_config(same)
    config.data.name, config.data.eval_split = "i_naturalist2018", "validation"
    config.data.mean, config.data.std = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
    config.augment.brightness = config.augment.contrast = config.augment.saturation = 0.0
    config.augment.lighting = 0.0
    config.model.backbone, config.optim.weight_decay = "resnet50", 1e-4
    return smoke(config) if "smoke" in variants else config


def get_stages(arg: str = "") -> list:
    """Stage 1, and what learns on its frozen backbone."""
    return two_stages(common.variants(arg, KNOWN), crt_epochs=30.0)


def get_sweep(arg: str = "") -> dict:
    """Stage 1 by kappa; the accuracies are those after the last stage."""
    return kappa_sweep(common.variants(arg, KNOWN), published={16.0: 71.08, 64.0: 70.31})
