"""Every key of a config: default, values and meaning. Experiments change a few of them.

`python -m configs.common optim` lists the keys with "optim" in their names. An option of a model
part or task that is None stays at that part's own default; its docstring says more.
"""

import sys
from collections.abc import Iterable

from ml_collections import ConfigDict, config_dict

from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.evaluators import EVALUATORS
from fixed_head_jax.heads import EMBEDDING_HEADS
from fixed_head_jax.heads import HEADS as LABEL_HEADS
from fixed_head_jax.settings import schema
from fixed_head_jax.settings.schema import (
    FACTORS,
    FLAG,
    PATH,
    PATTERNS,
    TEXT,
    Key,
    ascending,
    choice,
    each,
    either,
    flatten,
    number,
    whole,
)

COUNT, SOME, PIXELS = whole("[0, 1e9]"), whole("[1, 1e9]"), whole("[0, 65536]")
AT_LEAST_0, POSITIVE = number("[0, inf)"), number("(0, inf)")
SHARE, DECAY = number("[0, 1]"), number("[0, 1)")
AREAS = ascending(number("(0, 1]"), 2)
DEVIATIONS = ascending(POSITIVE, 2)
EPOCHS = ascending(number("[1, 1e9]"), strictly=True)
NAMES = each(choice(*EVALUATORS), distinct=True)
SCHEDULES = ("constant", "step", "cosine", "linear", "exponential", "plateau")
KERNEL_INITS = ("uniform", "he_normal", "normal", "random_integers")

KEYS = {
    "seed": Key(0, whole("[0, 4294967295]"), "of initialisation, data order, augmentation"),
    "num_devices": Key(0, COUNT, "devices of the data axis; 0: all"),
    "dtype": Key(
        "auto", choice("auto", "float32", "bfloat16"), "of computing; auto: float32 on CPU"
    ),
    "batch_size": Key(128, SOME, "examples per update, over all devices"),
    "eval_batch_size": Key(500, SOME, "examples per call of the device, over all devices"),
    "total_epochs": Key(10.0, number("[0, 1e9]"), "length of the run"),
    "total_steps": Key(0, COUNT, "overrides total_epochs when positive"),
    "log_every_steps": Key(50, SOME, "training steps that a logged value is the mean of"),
    "eval_every_epochs": Key(
        1.0, either(0, number("[1e-6, 1e9]")), "evaluates and saves; 0: at the end"
    ),
    "checkpoint_every_steps": Key(0, COUNT, "saves between evaluations; 0: never"),
    "evaluators": Key((), NAMES, "beside the task's own, at every evaluation: see `evaluators`"),
    "final_evaluators": Key((), NAMES, "at the last evaluation only: what takes long"),
    "superclass_dir": Key("", PATH, "folder of the class hierarchy that `superclasses` reads"),
    "class_grids": Key(0, COUNT, "pictures of so many discovered classes at the end; 0: none"),
    "class_grid_images": Key(9, whole("[1, 10000]"), "in each; a square number"),
    "save_predictions": Key(False, FLAG, "predictions.npz at the end: what ensembles average"),
    "best_metric": Key("accuracy", TEXT, "evaluation metric whose best checkpoint is kept"),
    "steps_per_dispatch": Key(0, COUNT, "steps per call of the device; 0: 1 on CPU, else 10"),
    "accumulation_steps": Key(1, SOME, "micro-batches per update"),
    "ema_decay": Key(0.0, DECAY, "averages of parameters and batch statistics; 0: none"),
    "data_dir": Key("", PATH, "where prepared TFDS datasets lie; empty: TFDS's own default"),
    "init_from": Key(
        "",
        PATH,
        'weights to start from: .safetensors, .pth or a workdir; empty: none; "none": '
        "from scratch, also where the dials of transfer or init_skip ask for weights",
    ),
    "init_skip": Key((), PATTERNS, "of names in them to leave out, such as ('^head',)"),
    # Dials of fine-tuning, see optim/transfer/dials.py.
    "transfer.new_layers": Key(0, COUNT, "layers drawn anew, from the top, head first; 0: none"),
    "transfer.num_low_lr_layers": Key(None, COUNT, "layers of the lower group, from the image up"),
    "transfer.lr_head": Key(None, AT_LEAST_0, "rate of the head; None: optim.lr; 0: frozen"),
    "transfer.lr_upper": Key(None, AT_LEAST_0, "same, of the layers above the lower group"),
    "transfer.lr_lower": Key(None, AT_LEAST_0, "same, of the lower group"),
    "transfer.l2_sp": Key(False, FLAG, "decays kernels that are not new to where they started"),
    "transfer.alpha_upper": Key(None, AT_LEAST_0, "strength of that; None: 0.01; 0: none"),
    "transfer.alpha_lower": Key(None, AT_LEAST_0, "same, of the lower group"),
    "transfer.beta_head": Key(
        None, AT_LEAST_0, "decay to zero; None: weight_decay, or 0 beside alpha"
    ),
    "transfer.beta_new": Key(None, AT_LEAST_0, "same, of new layers below the head"),
    "transfer.beta_upper": Key(None, AT_LEAST_0, "same, of the layers above the lower group"),
    "transfer.beta_lower": Key(None, AT_LEAST_0, "same, of the lower group"),
    "transfer.as_published": Key(False, FLAG, "the release's L2-SP and warm-up"),
    "data.name": Key("cifar10", TEXT, "a TFDS image classification dataset, or ours"),
    "data.train_split": Key("train", TEXT, "split to train on"),
    "data.eval_split": Key("test", TEXT, "split to evaluate on"),
    "data.fit_split": Key(
        "", TEXT, "labelled images that kNN, probes, k-means fit to; empty: train_split"
    ),
    "data.unlabelled": Key(False, FLAG, "the labels of train_split are not known (stored as -1)"),
    "data.train_fraction": Key(
        1.0, number("(0, 1]"), "share of every class to train on, ever the same"
    ),
    "data.train_list": Key("", PATH, "text file with the file names to train on; empty: all"),
    "data.first_classes": Key(0, COUNT, "keeps the classes below this number; 0: all"),
    "data.skip_classes": Key(0, COUNT, "leaves out the classes below this; others count from 0"),
    "data.image_size": Key(0, PIXELS, "side in pixels after resize and crop; 0: as stored"),
    "data.resize_size": Key(0, PIXELS, "shorter side before the centre crop; 0: image_size"),
    "data.interpolation": Key(
        "bilinear", choice("bilinear", "bicubic"), "of that; both antialiased"
    ),
    "data.channels": Key(0, whole("[0, 3]"), "0: as stored; 3: grey images as RGB"),
    "data.train_crop": Key(
        "center", choice("center", "random_resized"), "random: by the host, of the whole image"
    ),
    "data.crop_scale": Key((0.08, 1.0), AREAS, "random_resized: share of the area, from and to"),
    "data.crop_interpolation": Key(
        "fast", choice("fast", "bilinear", "bicubic", "random"), "of that"
    ),
    "data.mean": Key((0.5,), each(number()), "of pixels in [0, 1], per channel or one for all"),
    "data.std": Key((0.5,), each(POSITIVE), "same"),
    "data.placement": Key("auto", choice("auto", "resident", "disk"), "resident: on the device"),
    "data.num_threads": Key(0, whole("[0, 1024]"), "reading threads; 0: one per core"),
    "data.sampler": Key(
        "shuffled",
        choice("shuffled", "class_aware", "class_balanced"),
        "aware: in turn; balanced: at random",
    ),
    "data.per_class": Key(4, SOME, "class_aware: consecutive examples of a class"),
    "data.repeats": Key(1, SOME, "shuffled: how often a batch holds an image"),
    # On the device, in this order; see augment/options.py.
    "augment.crop_scale": Key(
        (), either((), AREAS), "share of the area of a random crop; (): none"
    ),
    "augment.pad_crop": Key(0, PIXELS, "pads by this many pixels, then crops at random"),
    "augment.flip": Key(False, FLAG, "mirrors left to right, one image in two"),
    "augment.policy": Key(
        "", TEXT, "rand-m9-mstd0.5-inc1, autoaugment-imagenet, ...; not with jitter"
    ),
    "augment.policy_as_published": Key(False, FLAG, "RandAugment may posterize an image to black"),
    "augment.brightness": Key(0.0, AT_LEAST_0, "jitter by a factor from 1 - this to 1 + this"),
    "augment.contrast": Key(0.0, AT_LEAST_0, "same"),
    "augment.saturation": Key(0.0, AT_LEAST_0, "same"),
    "augment.hue": Key(0.0, number("[0, 0.5]"), "jitter by up to this share of a turn"),
    "augment.jitter_probability": Key(1.0, SHARE, "of jittering an image at all"),
    "augment.grey_probability": Key(0.0, SHARE, "of taking an image's luma"),
    "augment.blur_probability": Key(0.0, SHARE, "of blurring an image"),
    "augment.blur_sigma": Key((0.1, 2.0), DEVIATIONS, "standard deviation in pixels, from and to"),
    "augment.solarize_probability": Key(0.0, SHARE, "of solarizing an image"),
    "augment.solarize_threshold": Key(0.5, SHARE, "inverts pixels from this on, of 0 to 1"),
    "augment.lighting": Key(0.0, AT_LEAST_0, "deviation of the PCA lighting noise; 0.1 is usual"),
    "augment.mixup": Key(0.0, AT_LEAST_0, "alpha of mixup; 0: none"),
    "augment.cutmix": Key(0.0, AT_LEAST_0, "alpha of CutMix; 0: none"),
    "augment.mix_probability": Key(1.0, SHARE, "of mixing a batch"),
    "augment.mix_off_epoch": Key(
        0.0, number("[0, 1e9]"), "does not mix from this epoch on; 0: to the end"
    ),
    "augment.mix_switch_probability": Key(0.5, SHARE, "of CutMix where both have an alpha"),
    "augment.erase_probability": Key(0.0, SHARE, "covers a rectangle of the normalised image"),
    "augment.erase_fill": Key("pixel", choice("const", "rand", "pixel"), "mean, one colour, noise"),
    # In place of augment where the task takes views; see augment/views.py.
    "views.num_local": Key(6, whole("[0, 1000]"), "small crops, beside two large ones"),
    "views.global_size": Key(224, whole("[1, 65536]"), "side of a large crop in pixels"),
    "views.local_size": Key(96, whole("[1, 65536]"), "same, of a small one"),
    "views.global_scale": Key((0.4, 1.0), AREAS, "share of the image's area, from and to"),
    "views.local_scale": Key((0.05, 0.4), AREAS, "same, of a small one"),
    "views.flip": Key(True, FLAG, "as in augment, and so are the following"),
    "views.brightness": Key(0.4, AT_LEAST_0, "strength of the jitter"),
    "views.contrast": Key(0.4, AT_LEAST_0, "same"),
    "views.saturation": Key(0.2, AT_LEAST_0, "same"),
    "views.hue": Key(0.1, number("[0, 0.5]"), "same"),
    "views.jitter_probability": Key(0.8, SHARE, "of jittering a view at all"),
    "views.grey_probability": Key(0.2, SHARE, "of taking a view's luma"),
    "views.blur_sigma": Key((0.1, 2.0), DEVIATIONS, "standard deviation in pixels, from and to"),
    "views.blur_probability": Key(
        (0.1, 1.0, 0.5), each(SHARE, 3), "of the first large view, the second, small ones"
    ),
    "views.solarize_probability": Key((0.0, 0.2, 0.0), each(SHARE, 3), "same"),
    "model.backbone": Key("resnet18", choice(*BACKBONES), "images to feature maps"),
    "model.head": Key("linear", choice(*LABEL_HEADS, *EMBEDDING_HEADS), "features to logits"),
    "model.pool": Key(
        "mean", choice("mean", "max", "power", "attention", "flatten"), "maps to features"
    ),
    "model.relu_before_pool": Key(False, FLAG, "clamps the feature map at 0 before it is pooled"),
    "model.dropout": Key(0.0, DECAY, "share of the features dropped in training"),
    "model.frozen_backbone": Key(False, FLAG, "trains pool and head only; statistics stay too"),
    "model.orthogonal_init": Key((), PATTERNS, "of kernel paths that start orthogonal"),
    "model.backbone_options.image_size": Key(None, whole("[1, 65536]"), "vit, deit: of its grid"),
    "model.backbone_options.out_channels": Key(
        None, whole("[1, 1e6]"), "channels of the map, in place of the network's own"
    ),
    "model.backbone_options.out_shortcut": Key(None, TEXT, "shortcut of the block that makes them"),
    "model.backbone_options.patch_size": Key(None, whole("[1, 65536]"), "vit, deit: in pixels"),
    "model.backbone_options.remat": Key(None, FLAG, "computes blocks again, to save memory"),
    "model.backbone_options.shortcut": Key(None, choice("pad", "projection"), "resnet20 to 56"),
    "model.backbone_options.width": Key(None, number("(0, 1000]"), "mobilenet_v2: multiplier"),
    "model.head_options.allow_repeated": Key(None, FLAG, "hadamard: classes may share a vector"),
    "model.head_options.bias": Key(None, number(), "random: constant, or its start where learned"),
    "model.head_options.bias_init": Key(None, choice("uniform", "zeros"), "orthogonal"),
    "model.head_options.bias_form": Key(None, choice("none", "inside", "outside"), "cosine, tvmf"),
    "model.head_options.class_scales": Key(None, FLAG, "linear: a learned factor per class"),
    "model.head_options.dim": Key(None, whole("[1, 1e6]"), "projection: of the embeddings"),
    "model.head_options.distinct": Key(None, FLAG, "hadamard: up to 2^D classes"),
    "model.head_options.easy_margin": Key(None, FLAG, "arcface: none where the cosine is negative"),
    "model.head_options.evaluated": Key(
        None,
        whole("[-1, 1000]"),
        "projection: the classifier that is evaluated; -1: the one of the smallest loss",
    ),
    "model.head_options.fixed": Key(None, FLAG, "cosine heads: draws the vectors, once"),
    "model.head_options.frame": Key(None, TEXT, "projection: fixed class vectors of that kind"),
    "model.head_options.hidden_dim": Key(None, whole("[1, 1e6]"), "projection: of its MLP"),
    "model.head_options.init_scale": Key(None, POSITIVE, "of the scale, where it starts or stays"),
    "model.head_options.kernel_init": Key(None, choice(*KERNEL_INITS), "linear, cosine heads"),
    "model.head_options.kappa": Key(None, number("(-0.5, inf)"), "cosine, tvmf: concentration"),
    "model.head_options.learn_scale": Key(None, FLAG, "makes the scale a parameter"),
    "model.head_options.learned": Key(None, FLAG, "random, hadamard: vectors are parameters"),
    "model.head_options.margin": Key(None, number("[0, 2]"), "cosface; arcface: radians"),
    "model.head_options.max_separation": Key(None, FLAG, "simplex: as Kasarla et al. turn it"),
    "model.head_options.negate_scale": Key(None, FLAG, "hadamard: minus, as published"),
    "model.head_options.negative_slope": Key(None, number("[0, 1]"), "projection: of LeakyReLU"),
    "model.head_options.normalize_features": Key(None, FLAG, "orthogonal, hadamard"),
    "model.head_options.num_clusters": Key(
        None, each(whole("[2, 1e7]")), "projection: classes of every classifier"
    ),
    "model.head_options.num_layers": Key(None, whole("[0, 100]"), "projection: of its MLP"),
    "model.head_options.project": Key(None, FLAG, "polytopes: a learned map in front"),
    "model.head_options.random_codes": Key(None, FLAG, "cube: draws its vertices"),
    "model.head_options.scale": Key(None, POSITIVE, "cosface, arcface: constant"),
    "model.head_options.scale_form": Key(None, choice("softplus", "learned", "constant"), "cosine"),
    "model.head_options.take": Key(None, choice("first", "last"), "identity: which features"),
    "model.head_options.use_batch_norm": Key(None, FLAG, "projection: in its MLP"),
    "model.head_options.use_bias": Key(None, FLAG, "linear, orthogonal, hadamard, identity"),
    "model.pool_options.as_published": Key(None, FLAG, "power: sums instead of averaging"),
    "model.pool_options.p": Key(None, POSITIVE, "power: exponent"),
    "model.pool_options.units": Key(None, whole("[1, 1e6]"), "attention: of its hidden layer"),
    "model.pool_options.window": Key(None, whole("[1, 65536]"), "flatten: side averaged before"),
    "task.name": Key("supervised", choice("supervised", "self_classifier"), "what is learned"),
    "task.options.column_temperature": Key(None, POSITIVE, "self_classifier"),
    "task.options.eps": Key(None, AT_LEAST_0, "self_classifier; 0: the stable form"),
    "task.options.label_smoothing": Key(None, DECAY, "supervised: share spread over all classes"),
    "task.options.orthogonality": Key(None, choice("soft", "double_soft"), "of kernels: penalty"),
    "task.options.orthogonality_patterns": Key(None, PATTERNS, "of the paths of these kernels"),
    "task.options.orthogonality_weight": Key(None, AT_LEAST_0, "of the penalty"),
    "task.options.queue_size": Key(None, COUNT, "self_classifier: images remembered; 0: none"),
    "task.options.row_temperature": Key(None, POSITIVE, "self_classifier"),
    "task.options.uses_neighbors": Key(None, FLAG, "self_classifier: in the first view's place"),
    "optim.name": Key("sgd", choice("sgd", "rmsprop", "adamw", "larc"), "rule of the update"),
    "optim.lr": Key(0.1, AT_LEAST_0, "learning rate, the schedule's base"),
    "optim.momentum": Key(0.9, DECAY, "sgd, rmsprop, larc"),
    "optim.nesterov": Key(False, FLAG, "sgd"),
    "optim.b1": Key(0.9, DECAY, "adamw: decay of the mean gradient"),
    "optim.b2": Key(0.999, DECAY, "adamw: decay of the mean square"),
    "optim.rms_decay": Key(0.99, DECAY, "rmsprop: same"),
    "optim.eps": Key(1e-8, AT_LEAST_0, "rmsprop (outside the root), adamw, larc"),
    "optim.trust_coefficient": Key(0.001, POSITIVE, "larc"),
    "optim.weight_decay": Key(0.0, AT_LEAST_0, "L2 in the gradient; adamw: decoupled"),
    "optim.no_decay": Key((), PATTERNS, "of parameter paths without weight decay"),
    "optim.decay_multipliers": Key((), FACTORS, "of the decay, by path, first match wins"),
    "optim.clip_norm": Key(0.0, AT_LEAST_0, "largest global norm of the gradient; 0: none"),
    "optim.clip_tensor_norm": Key(0.0, AT_LEAST_0, "same, of each parameter's gradient by itself"),
    "optim.frozen": Key((), PATTERNS, "of parameter paths that do not train"),
    "optim.lr_multipliers": Key((), FACTORS, "of the rate, by path, first match wins"),
    "optim.schedule": Key("constant", choice(*SCHEDULES), "of the learning rate"),
    "optim.warmup_epochs": Key(0.0, number("[0, 1e9]"), "over which the rate rises"),
    "optim.warmup_from": Key(0.0, AT_LEAST_0, "rate that warm-up starts from"),
    "optim.final_lr": Key(0.0, AT_LEAST_0, "cosine, linear: rate after the last step"),
    "optim.decay_after_warmup": Key(False, FLAG, "cosine, linear: begin where warm-up ends"),
    "optim.warmup_per_epoch": Key(False, FLAG, "warm-up is constant within an epoch"),
    "optim.milestones": Key((), EPOCHS, "step: each multiplies the rate by factor"),
    "optim.step_every_epochs": Key(0, COUNT, "step: instead of milestones, every so many epochs"),
    "optim.factor": Key(0.1, POSITIVE, "step: at each milestone; exponential: each epoch"),
    "optim.per_epoch": Key(False, FLAG, "cosine, linear, exponential: constant within an epoch"),
    # Watches best_metric at every evaluation.
    "optim.plateau.factor": Key(0.2, number("(0, 1)"), "of a reduction"),
    "optim.plateau.patience": Key(3, COUNT, "reduces at the evaluation after this many bad ones"),
    "optim.plateau.threshold": Key(1e-4, AT_LEAST_0, "an improvement must exceed it; absolute"),
    "optim.plateau.mode": Key("max", choice("max", "min"), "which way best_metric improves"),
}


def get_config() -> ConfigDict:
    """Returns the complete, locked default config."""
    config = ConfigDict()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        group = config
        for part in groups:
            if part not in group:
                group[part] = ConfigDict()
            group = group[part]
        optional = key.default is None
        group[last] = config_dict.placeholder(key.kind.type) if optional else key.default
    return config.lock()


def check(config: ConfigDict) -> None:
    """Raises ValueError, naming every key that is wrong, unless the config holds what it may."""
    schema.check(KEYS, flatten(config))


def settle(config: ConfigDict) -> ConfigDict:
    """Returns a config as a command line left it; raises ValueError if any value is wrong."""
    # None for a tuple is parsed as a tuple of it.
    values = {key: None if v == (None,) else v for key, v in flatten(config).items()}
    return override(config, values)


def override(config: ConfigDict, overrides: dict) -> ConfigDict:
    """Returns a locked copy of a config with other values; raises ValueError on wrong ones."""
    values = schema.check(KEYS, overrides)
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config.lock()


# Keys that cannot change what is trained: a run may be resumed with other values.
MAY_DIFFER = (
    "data_dir", "data.num_threads", "data.placement", "data.fit_split", "evaluators",
    "final_evaluators", "superclass_dir", "class_grids", "class_grid_images", "save_predictions",
    "log_every_steps", "checkpoint_every_steps",
)  # fmt: skip
_LENGTH = ("total_epochs", "total_steps")
_EVALUATIONS = ("eval_every_epochs", "eval_batch_size")
# Keys that cannot change what a checkpoint gives on the evaluation split that is named.
EVALUATION_MAY_DIFFER = (
    *MAY_DIFFER, *_LENGTH, *_EVALUATIONS, "data.eval_split", "eval data", "num_devices",
    "init_from", "init_skip",
)  # fmt: skip


def may_differ(config: ConfigDict) -> tuple[str, ...]:
    """Returns the keys that the run of a config may be resumed with other values of.

    Beside `MAY_DIFFER` these are its length, where the learning rates so far do not depend on it,
    and when and in what parts it evaluates, where no learning rate depends on that.
    """
    schedule = config.optim.schedule
    keys = () if schedule == "plateau" else _EVALUATIONS
    return (*MAY_DIFFER, *keys, *(() if schedule in _FIXES_LENGTH else _LENGTH))


def why_not(config: ConfigDict) -> dict[str, str]:
    """Returns why keys that others may differ in may not in the run of a config."""
    schedule = config.optim.schedule
    reason = _FIXES_LENGTH.get(schedule, "")
    return dict.fromkeys(_LENGTH, f"optim.schedule={schedule!r} {reason}")


_FIXES_LENGTH = {
    "cosine": "spreads over the whole run",
    "linear": "spreads over the whole run",
    "plateau": "has counted the evaluation at the end",
}


# Every head, and options unlike its own: small problems want a smaller scale under a margin.
HEADS = {
    **dict.fromkeys(("linear", "random", "orthogonal", "hadamard", "identity"), {}),
    **dict.fromkeys(("simplex", "simplex_etf", "orthoplex", "cube", "cosine", "tvmf"), {}),
    **dict.fromkeys(("cosface", "arcface"), {"model.head_options.scale": 16.0}),
}


def head_sweep(heads: dict[str, dict], seeds: tuple[int, ...]) -> dict:
    """Returns a sweep over heads under the same seeds and data order; `linear` is the baseline."""
    # A row starts from what the command line names: it also takes back the options of others.
    defaults = {key: None for options in heads.values() for key in options}
    rows = [
        {"name": head, "overrides": {"model.head": head, **defaults, **options}, "published": None}
        for head, options in heads.items()
    ]
    return {"baseline": "linear", "seeds": seeds, "rows": rows}


def imagenet_images(config: ConfigDict) -> None:
    """Reads and augments images as is usual for ImageNet, with its statistics, at 224 pixels."""
    config.data.image_size, config.data.resize_size = 224, 256
    config.data.train_crop, config.augment.flip = "random_resized", True
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smoke(config: ConfigDict, image_size: int = 0) -> ConfigDict:
    """Shrinks an experiment to two steps on the digits, so that a test can run it on a CPU.

    `image_size` is for networks that need more than the 8 pixels of the digits.
    """
    config.data.image_size = image_size
    config.data.name, config.data.first_classes, config.data.skip_classes = "digits", 0, 0
    config.data.train_split, config.data.eval_split = "train", "test[:50]"
    config.data.mean, config.data.std = (0.5,), (0.5,)
    config.data.resize_size, config.augment.lighting = 0, 0.0  # that is for three channels
    if config.model.head == "identity" and config.model.backbone_options.out_channels:
        config.model.backbone_options.out_channels = 10
    config.total_steps, config.batch_size, config.log_every_steps = 2, 8, 1
    config.optim.warmup_epochs, config.optim.milestones = 0.0, ()
    config.num_devices = 1
    return config


def variants(arg: str, known: tuple[str, ...]) -> list[str]:
    """Splits the part of `--config=file.py:a,b` behind the colon; raises on an unknown variant."""
    names = [name for name in arg.split(",") if name]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown config variant {name!r}; known: {', '.join(known)}")
    return names


def choose(variants: list[str], known: Iterable[str], default: str) -> str:
    """Returns the first of the variants that is among the known ones, or the default."""
    return next((name for name in variants if name in known), default)


if __name__ == "__main__":
    print(schema.listing(KEYS, *sys.argv[1:2]))
