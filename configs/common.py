"""Every config key, its default and its meaning. Experiments import this and change a few lines.

Options of a model part or task that are None stay at that part's own default.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the complete, locked default config."""
    config = ConfigDict()
    config.seed = 0  # initialisation, data order, augmentation
    config.num_devices = 0  # devices of the data axis; 0: all
    config.dtype = "auto"  # compute dtype: float32, bfloat16; auto: float32 on CPU, else bfloat16
    config.batch_size = 128  # examples per update, over all devices
    config.eval_batch_size = 500
    config.total_epochs = 10.0
    config.total_steps = 0  # overrides total_epochs when positive
    config.log_every_steps = 50
    config.eval_every_epochs = 1.0  # evaluates and saves; 0: at the end only
    config.checkpoint_every_steps = 0  # saves between evaluations; 0: never
    config.evaluators = ()  # beside the task's own, at every evaluation: see `evaluators`
    config.final_evaluators = ()  # at the last evaluation only: what takes long
    config.superclass_dir = ""  # folder of the class hierarchy that evaluator superclasses reads
    config.class_grids = 0  # pictures of so many discovered classes at the end; 0: none
    config.class_grid_images = 9  # in each; a square number
    config.save_predictions = False  # predictions.npz at the end: what ensembles average
    config.best_metric = "accuracy"  # evaluation metric whose best checkpoint is kept
    config.steps_per_dispatch = 0  # training steps per call of the device; 0: 1 on CPU, else 10
    config.accumulation_steps = 1  # micro-batches per update
    config.ema_decay = 0.0  # averages of parameters and batch statistics; 0: none
    config.data_dir = ""  # where prepared TFDS datasets lie; empty: TFDS's own default

    config.init_from = ""  # weights to start from: .safetensors, .pth or a workdir; empty: none;
    # "none": from scratch, also where the dials of transfer or init_skip ask for weights
    config.init_skip = ()  # patterns of names in them to leave out, e.g. ("^head",)

    config.transfer = ConfigDict()  # dials of fine-tuning, see transfer/dials.py
    config.transfer.new_layers = 0  # layers drawn anew, from the top, the head first; 0: none
    config.transfer.num_low_lr_layers = config_dict.placeholder(int)  # lower group, from the image
    config.transfer.lr_head = config_dict.placeholder(float)  # None: optim.lr; 0: frozen
    config.transfer.lr_upper = config_dict.placeholder(float)  # same, of the layers above
    config.transfer.lr_lower = config_dict.placeholder(float)  # same, of the lower group
    config.transfer.l2_sp = False  # decays kernels that are not new towards where they started
    config.transfer.alpha_upper = config_dict.placeholder(float)  # strength; None: 0.01; 0: none
    config.transfer.alpha_lower = config_dict.placeholder(float)  # same, of the lower group
    config.transfer.beta_head = config_dict.placeholder(float)  # towards zero: of the head; None:
    config.transfer.beta_new = config_dict.placeholder(float)  # optim.weight_decay, and 0 where
    config.transfer.beta_upper = config_dict.placeholder(float)  # alpha is not
    config.transfer.beta_lower = config_dict.placeholder(float)
    config.transfer.as_published = False  # the release's L2-SP and warm-up

    config.data = ConfigDict()
    config.data.name = "cifar10"  # any TFDS image classification dataset in array_record, or ours
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.data.fit_split = (
        ""  # labelled images that kNN, probes and k-means fit to; "": train_split
    )
    config.data.unlabelled = False  # the labels of train_split are not known (stored as -1)
    config.data.train_fraction = 1.0  # share of every class to train on, always the same images
    config.data.train_list = ""  # text file with the file names to train on; empty: all
    config.data.first_classes = 0  # keeps the classes below this number; 0: all
    config.data.skip_classes = 0  # leaves out the classes below this number; others count from 0
    config.data.image_size = 0  # side in pixels after resize and crop; 0: as stored
    config.data.resize_size = 0  # shorter side before the centre crop; 0: image_size
    config.data.interpolation = "bilinear"  # of that resizing, or bicubic; both antialiased
    config.data.train_crop = "center"  # or random_resized, on the host, from the whole image
    config.data.crop_scale = (0.08, 1.0)  # random_resized: smallest and largest share of the area
    config.data.crop_interpolation = "fast"  # random_resized: fast, bilinear, bicubic, random
    config.data.mean = (0.5,)  # per channel, of pixels in [0, 1]; one value serves all channels
    config.data.std = (0.5,)
    config.data.placement = "auto"  # resident (on the device), disk, or auto by size
    config.data.num_threads = 0  # reading threads; 0: one per core

    config.data.sampler = "shuffled"  # class_aware: classes in turn; class_balanced: at random
    config.data.per_class = 4  # class_aware: consecutive examples of a class
    config.data.repeats = 1  # shuffled: how often a batch holds an image (repeated augmentation)

    config.augment = ConfigDict()  # on the device, in this order; see augment/options.py
    config.augment.crop_scale = ()  # share of the area of a random crop, e.g. (0.2, 1.0); (): none
    config.augment.pad_crop = 0  # pads by this many pixels, then crops at random
    config.augment.flip = False  # mirrors left to right, one image in two
    config.augment.policy = ""  # rand-m9-mstd0.5-inc1, autoaugment-imagenet, ...: not with jitter
    config.augment.policy_as_published = False  # RandAugment may posterize an image to black
    config.augment.brightness = 0.0  # jitter by a factor from 1 - this to 1 + this
    config.augment.contrast = 0.0  # same
    config.augment.saturation = 0.0  # same
    config.augment.hue = 0.0  # jitter by up to this share of a turn, at most 0.5
    config.augment.jitter_probability = 1.0
    config.augment.grey_probability = 0.0
    config.augment.blur_probability = 0.0
    config.augment.blur_sigma = (0.1, 2.0)  # standard deviation in pixels, from and to
    config.augment.solarize_probability = 0.0
    config.augment.solarize_threshold = 0.5  # inverts pixels from this on, of 0 to 1
    config.augment.lighting = 0.0  # standard deviation of the PCA lighting noise; 0.1 is usual
    config.augment.mixup = 0.0  # alpha of mixup; 0: none
    config.augment.cutmix = 0.0  # alpha of CutMix; 0: none
    config.augment.mix_probability = 1.0  # of mixing a batch
    config.augment.mix_off_epoch = 0.0  # does not mix from this epoch on; 0: mixes to the end
    config.augment.mix_switch_probability = 0.5  # of CutMix where both have an alpha
    config.augment.erase_probability = 0.0  # covers a rectangle of the normalised image
    config.augment.erase_fill = "pixel"  # const (the mean), rand (one colour), pixel (noise)

    config.views = ConfigDict()  # in place of augment where the task takes views; augment/views.py
    config.views.num_local = 6  # small crops, beside two large ones
    config.views.global_size = 224  # pixels
    config.views.local_size = 96
    config.views.global_scale = (0.4, 1.0)  # share of the image's area
    config.views.local_scale = (0.05, 0.4)
    config.views.flip = True
    config.views.brightness = 0.4
    config.views.contrast = 0.4
    config.views.saturation = 0.2
    config.views.hue = 0.1
    config.views.jitter_probability = 0.8
    config.views.grey_probability = 0.2
    config.views.blur_sigma = (0.1, 2.0)  # pixels
    config.views.blur_probability = (
        0.1,
        1.0,
        0.5,
    )  # of the first large view, the second, small ones
    config.views.solarize_probability = (0.0, 0.2, 0.0)  # same

    config.model = ConfigDict()
    config.model.backbone = "resnet18"
    config.model.head = "linear"
    config.model.pool = "mean"
    config.model.relu_before_pool = False
    config.model.dropout = 0.0  # share of the features dropped in training
    config.model.frozen_backbone = False  # trains pool and head only; batch statistics stay too
    config.model.orthogonal_init = ()  # patterns of kernel paths that start orthogonal
    config.model.backbone_options = ConfigDict()
    config.model.backbone_options.image_size = config_dict.placeholder(int)
    config.model.backbone_options.out_channels = config_dict.placeholder(int)
    config.model.backbone_options.out_shortcut = config_dict.placeholder(str)
    config.model.backbone_options.patch_size = config_dict.placeholder(int)
    config.model.backbone_options.remat = config_dict.placeholder(bool)
    config.model.backbone_options.shortcut = config_dict.placeholder(str)
    config.model.backbone_options.width = config_dict.placeholder(float)
    config.model.head_options = ConfigDict()
    config.model.head_options.allow_repeated = config_dict.placeholder(bool)
    config.model.head_options.bias = config_dict.placeholder(float)
    config.model.head_options.bias_init = config_dict.placeholder(str)
    config.model.head_options.bias_form = config_dict.placeholder(str)
    config.model.head_options.class_scales = config_dict.placeholder(bool)
    config.model.head_options.dim = config_dict.placeholder(int)
    config.model.head_options.distinct = config_dict.placeholder(bool)
    config.model.head_options.easy_margin = config_dict.placeholder(bool)
    config.model.head_options.evaluated = config_dict.placeholder(int)
    config.model.head_options.fixed = config_dict.placeholder(bool)
    config.model.head_options.frame = config_dict.placeholder(str)
    config.model.head_options.hidden_dim = config_dict.placeholder(int)
    config.model.head_options.init_scale = config_dict.placeholder(float)
    config.model.head_options.kernel_init = config_dict.placeholder(str)
    config.model.head_options.kappa = config_dict.placeholder(float)
    config.model.head_options.learn_scale = config_dict.placeholder(bool)
    config.model.head_options.learned = config_dict.placeholder(bool)
    config.model.head_options.margin = config_dict.placeholder(float)
    config.model.head_options.max_separation = config_dict.placeholder(bool)
    config.model.head_options.negate_scale = config_dict.placeholder(bool)
    config.model.head_options.negative_slope = config_dict.placeholder(float)
    config.model.head_options.normalize_features = config_dict.placeholder(bool)
    config.model.head_options.num_clusters = config_dict.placeholder(tuple)
    config.model.head_options.num_layers = config_dict.placeholder(int)
    config.model.head_options.project = config_dict.placeholder(bool)
    config.model.head_options.random_codes = config_dict.placeholder(bool)
    config.model.head_options.scale = config_dict.placeholder(float)
    config.model.head_options.scale_form = config_dict.placeholder(str)
    config.model.head_options.take = config_dict.placeholder(str)
    config.model.head_options.use_batch_norm = config_dict.placeholder(bool)
    config.model.head_options.use_bias = config_dict.placeholder(bool)
    config.model.pool_options = ConfigDict()
    config.model.pool_options.as_published = config_dict.placeholder(bool)
    config.model.pool_options.p = config_dict.placeholder(float)
    config.model.pool_options.units = config_dict.placeholder(int)
    config.model.pool_options.window = config_dict.placeholder(int)

    config.task = ConfigDict()
    config.task.name = "supervised"  # or self_classifier
    config.task.options = ConfigDict()
    config.task.options.column_temperature = config_dict.placeholder(float)
    config.task.options.eps = config_dict.placeholder(float)
    config.task.options.label_smoothing = config_dict.placeholder(float)
    config.task.options.orthogonality = config_dict.placeholder(str)
    config.task.options.orthogonality_patterns = config_dict.placeholder(tuple)
    config.task.options.orthogonality_weight = config_dict.placeholder(float)
    config.task.options.queue_size = config_dict.placeholder(int)
    config.task.options.row_temperature = config_dict.placeholder(float)
    config.task.options.uses_neighbors = config_dict.placeholder(bool)

    config.optim = ConfigDict()
    config.optim.name = "sgd"  # sgd, rmsprop, adamw, larc
    config.optim.lr = 0.1
    config.optim.momentum = 0.9  # sgd, rmsprop, larc
    config.optim.nesterov = False  # sgd
    config.optim.b1 = 0.9  # adamw
    config.optim.b2 = 0.999  # adamw
    config.optim.rms_decay = 0.99  # rmsprop
    config.optim.eps = 1e-8  # rmsprop (outside the root), adamw, larc
    config.optim.trust_coefficient = 0.001  # larc
    config.optim.weight_decay = 0.0  # L2 in the gradient; adamw: decoupled
    config.optim.no_decay = ()  # patterns of parameter paths without weight decay
    config.optim.decay_multipliers = ()  # (pattern, factor) pairs, first match wins
    config.optim.clip_norm = 0.0  # largest global norm of the gradient; 0: none
    config.optim.clip_tensor_norm = 0.0  # same, of each parameter's gradient by itself
    config.optim.frozen = ()  # patterns of parameter paths that do not train
    config.optim.lr_multipliers = ()  # (pattern, factor) pairs, first match wins
    config.optim.schedule = "constant"  # constant, step, cosine, linear, exponential, plateau
    config.optim.warmup_epochs = 0.0
    config.optim.warmup_from = 0.0  # rate that warm-up starts from
    config.optim.final_lr = 0.0  # cosine, linear: rate after the last step
    config.optim.decay_after_warmup = False  # cosine, linear: begin where warm-up ends
    config.optim.warmup_per_epoch = False  # warm-up is constant within an epoch
    config.optim.milestones = ()  # step: epochs at which the rate is multiplied by factor
    config.optim.step_every_epochs = 0  # step: instead of milestones, every so many epochs
    config.optim.factor = 0.1  # step: at each milestone; exponential: each epoch
    config.optim.per_epoch = False  # cosine, linear, exponential: constant within an epoch
    config.optim.plateau = ConfigDict()  # watches best_metric at every evaluation
    config.optim.plateau.factor = 0.2
    config.optim.plateau.patience = 3  # reduces at the evaluation after this many bad ones
    config.optim.plateau.threshold = 1e-4  # an improvement must exceed it; absolute
    config.optim.plateau.mode = "max"
    return config.lock()


# Keys that cannot change what is trained: a run may be resumed with other values.
MAY_DIFFER = (
    "data_dir", "data.num_threads", "data.fit_split", "evaluators", "final_evaluators",
    "superclass_dir", "class_grids", "class_grid_images", "save_predictions",
)  # fmt: skip
# Keys that cannot change what a checkpoint gives on the evaluation split that is named.
EVALUATION_MAY_DIFFER = (
    *MAY_DIFFER, "data.eval_split", "data.placement", "eval_batch_size", "num_devices",
    "init_from", "init_skip",
)  # fmt: skip


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


def flatten(config: ConfigDict, prefix: str = "") -> dict:
    """Returns one level of dotted keys, as overrides on the command line name them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
