"""A classifier of photographs of one's own, from the folder or the files that hold them.

    fixed-head train own_images --config.data.path=FOLDER --workdir=runs/mine
    fixed-head predict runs/mine NEW_PHOTOGRAPHS

FOLDER holds a folder of images for each class, or `train/` and `val/` (or `valid/`, `validation/`,
`test/`) with those; without them a fifth of each class is held out. It is prepared the first time.
A table of labels, parquet files and tar shards do, too: `LABELS.csv`, `hf:FOLDER`, `wds:PATTERN`.
Classes, mean and standard deviation are taken from the images. ResNet-18 at 224 pixels, from
scratch; variants:

    finetune    from public weights, `--config.init_from=torchvision:resnet18-f37072fd`: lower
                rate; size, mean and deviation are theirs
    small       at 64 pixels, for a laptop's CPU
    HEAD        another head than the learned `linear`: orthogonal, hadamard, cosine ...
"""

from fixed_head_jax.configs import common


def get_config(arg: str = ""):
    variants = common.variants(arg, (*common.HEADS, "finetune", "small", "smoke"))
    config = common.get_config()
    head = common.choose(variants, common.HEADS, "linear")
    config.update_from_flattened_dict({"model.head": head, **common.HEADS[head]})
    common.imagenet_images(config)
    config.data.name, config.data.eval_split, config.data.channels = "", "", 3
    config.model.backbone = "resnet18"
    config.batch_size, config.eval_batch_size = 16, 64
    config.total_epochs, config.eval_every_epochs, config.log_every_steps = 30.0, 1.0, 20
    config.augment.brightness, config.augment.contrast, config.augment.saturation = 0.3, 0.3, 0.3
    config.optim.name, config.optim.lr, config.optim.weight_decay = "adamw", 1e-3, 0.05
    config.optim.schedule, config.optim.warmup_epochs = "cosine", 2.0
    config.optim.clip_norm = 1.0
    if "finetune" in variants:
        config.optim.lr = 1e-4
        config.data.crop_scale = (0.35, 1.0)
        config.data.image_size = config.data.resize_size = 0
    config.data.mean = config.data.std = ()
    if "small" in variants:
        config.data.image_size, config.data.resize_size = 64, 72
    return common.smoke(config, image_size=32) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Every head under the same seeds and data order; `linear` is the learned baseline."""
    del arg  # one table
    return common.head_sweep(common.HEADS, seeds=(0, 1, 2))
