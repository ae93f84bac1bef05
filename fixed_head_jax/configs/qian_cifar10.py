"""ResNet-32 with fixed heads on CIFAR-10, by the recipe of Qian's thesis (2020), Table 4.1.

    python main.py --config=configs/qian_cifar10.py --workdir=runs/qian --config.data_dir=DIR

The thesis reports CIFAR-100 (Table 5.1); this is its recipe on CIFAR-10: SGD 0.1, momentum 0.9,
divided by 10 at epochs 81 and 122 of 164, weight decay 1e-4, batch 128; pad 4, crop, mirror.
Hoffer et al. (2018) report 93.03 learned and 93.14 fixed with the deeper ResNet-56.
Variants name the head: `qian_cifar10.py:hadamard`.
"""

from fixed_head_jax.configs import common

HEADS: dict[str, dict] = {**common.HEADS, "linear": {"model.head_options.kernel_init": "he_normal"}}


def get_config(arg: str = ""):
    variants = common.variants(arg, (*HEADS, "smoke"))
    config = common.get_config()
    config.data.name = "cifar10"
    config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    config.augment.pad_crop, config.augment.flip = 4, True
    config.model.backbone = "resnet32"
    head = common.choose(variants, HEADS, "identity")
    config.update_from_flattened_dict({"model.head": head, **HEADS[head]})
    config.batch_size, config.total_epochs = 128, 164.0
    config.optim.lr, config.optim.weight_decay = 0.1, 1e-4
    config.optim.schedule, config.optim.milestones = "step", (81, 122)
    return common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Every head under the same seeds and data order; `linear` is the learned baseline."""
    del arg  # one table
    return common.head_sweep(HEADS, seeds=(0, 1, 2))
