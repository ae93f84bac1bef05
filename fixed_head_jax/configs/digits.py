"""A small residual network with a fixed identity head on scikit-learn's handwritten digits.

    python main.py --config=configs/digits.py --workdir=runs/digits
    python main.py --config=configs/digits.py --workdir=runs/digits_sweep --sweep

1,797 real images of 8x8 pixels, no download. Variants name another head: `digits.py:hadamard`.
The sweep is Table 5.1 of Qian's thesis (2020) in small; see `results/` for the measured table.
"""

from fixed_head_jax.configs import common


def get_config(arg: str = ""):
    variants = common.variants(arg, (*common.HEADS, "smoke"))
    config = common.get_config()
    config.data.name = "digits"
    config.data.mean, config.data.std = (0.305,), (0.376,)
    config.augment.pad_crop = 1
    config.model.backbone = "resnet20"
    head = common.choose(variants, common.HEADS, "identity")
    config.update_from_flattened_dict({"model.head": head, **common.HEADS[head]})
    config.batch_size, config.eval_batch_size = 64, 355
    config.total_epochs, config.eval_every_epochs = 30.0, 5.0
    config.optim.lr, config.optim.weight_decay = 0.1, 5e-4
    config.optim.schedule, config.optim.warmup_epochs = "cosine", 2.0
    return common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Every head under the same seeds and data order; `linear` is the learned baseline."""
    del arg  # one table
    return common.head_sweep(common.HEADS, seeds=(0, 1, 2, 3, 4))
