"""Every key of a config: default, values and meaning. Experiments change a few of them.

`fixed-head keys optim` lists the keys with "optim" in their names. An option of a model part or
task that is None stays at that part's own default; its docstring says more.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from fixed_head_jax import augment, data, optim
from fixed_head_jax.backbones import BACKBONES
from fixed_head_jax.evaluators import EVALUATORS
from fixed_head_jax.heads import EMBEDDING_HEADS
from fixed_head_jax.heads import HEADS as LABEL_HEADS
from fixed_head_jax.optim.strengths import Strengths
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.settings import schema
from fixed_head_jax.settings.kinds import (
    AT_LEAST_0,
    COUNT,
    DECAY,
    FLAG,
    PATH,
    PATTERNS,
    POSITIVE,
    SOME,
    TEXT,
    choice,
    each,
    either,
    number,
    whole,
)
from fixed_head_jax.settings.schema import Key, flatten, keys_of
from fixed_head_jax.tasks import TASKS
from fixed_head_jax.training.trackers import TRACKERS

NAMES = each(choice(*EVALUATORS), distinct=True)
KERNEL_INITS = ("uniform", "he_normal", "normal", "random_integers")

KEYS = {
    "seed": Key(0, whole("[0, 4294967295]"), "of initialisation, data order, augmentation"),
    "num_devices": Key(0, COUNT, "devices of the data axis; 0: all", fixes="run"),
    "dtype": Key(
        "auto", choice("auto", "float32", "bfloat16"), "of computing; auto: float32 on CPU"
    ),
    "batch_size": Key(128, SOME, "examples per update, over all devices"),
    "eval_batch_size": Key(
        500, SOME, "examples per call of the device, over all devices", fixes="evaluations"
    ),
    "total_epochs": Key(10.0, number("[0, 1e9]"), "length of the run", fixes="length"),
    "total_steps": Key(0, COUNT, "overrides total_epochs when positive", fixes="length"),
    "stop_after_bad_evals": Key(
        0,
        COUNT,
        "ends the run after so many evaluations without a better best_metric; 0: never",
        fixes="nothing",
    ),
    "trackers": Key(
        ("tensorboard",),
        each(choice(*TRACKERS), distinct=True),
        "that take the metrics, too",
        fixes="nothing",
    ),
    "report": Key(True, FLAG, "writes report.html at the end", fixes="nothing"),
    "log_every_steps": Key(
        50, SOME, "training steps that a logged value is the mean of", fixes="nothing"
    ),
    "eval_every_epochs": Key(
        1.0,
        either(0, number("[1e-6, 1e9]")),
        "evaluates and saves; 0: at the end",
        fixes="evaluations",
    ),
    "checkpoint_every_steps": Key(0, COUNT, "saves between evaluations; 0: never", fixes="nothing"),
    "evaluators": Key(
        (), NAMES, "beside the task's own, at every evaluation: see `evaluators`", fixes="nothing"
    ),
    "final_evaluators": Key(
        (), NAMES, "at the last evaluation only: what takes long", fixes="nothing"
    ),
    "superclass_dir": Key(
        "", PATH, "folder of the class hierarchy that `superclasses` reads", fixes="nothing"
    ),
    "class_grids": Key(
        0, COUNT, "pictures of so many discovered classes at the end; 0: none", fixes="nothing"
    ),
    "class_grid_images": Key(9, whole("[1, 10000]"), "in each; a square number", fixes="nothing"),
    "save_predictions": Key(
        False, FLAG, "predictions.npz at the end: what ensembles average", fixes="nothing"
    ),
    "best_metric": Key("accuracy", TEXT, "evaluation metric whose best checkpoint is kept"),
    "steps_per_dispatch": Key(0, COUNT, "steps per call of the device; 0: 1 on CPU, else 10"),
    "accumulation_steps": Key(1, SOME, "micro-batches per update"),
    "ema_decay": Key(0.0, DECAY, "averages of parameters and batch statistics; 0: none"),
    "data_dir": Key(
        "", PATH, "where prepared TFDS datasets lie; empty: TFDS's own default", fixes="nothing"
    ),
    "init_from": Key(
        "",
        PATH,
        "weights to start from: timm:NAME, torchvision:FILE, a .safetensors or .pth file, or a "
        'workdir (its last checkpoint; RUN:best: its best); empty: none; "none": '
        "from scratch, also where the dials of transfer or init_skip ask for weights",
        fixes="run",
    ),
    "init_skip": Key(
        (), PATTERNS, "of names in them to leave out, such as ('^head',)", fixes="run"
    ),
    **keys_of(Dials),  # of fine-tuning
    **keys_of(data.Options),
    **keys_of(augment.Options),
    **keys_of(augment.ViewSet),  # in place of augment where the task takes views
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
    "task.name": Key("supervised", choice(*TASKS), "what is learned"),
    "task.options.column_temperature": Key(None, POSITIVE, "self_classifier"),
    "task.options.eps": Key(None, AT_LEAST_0, "self_classifier; 0: the stable form"),
    "task.options.label_smoothing": Key(None, DECAY, "supervised: share spread over all classes"),
    "task.options.orthogonality": Key(None, choice("soft", "double_soft"), "of kernels: penalty"),
    "task.options.orthogonality_patterns": Key(None, PATTERNS, "of the paths of these kernels"),
    "task.options.orthogonality_weight": Key(None, AT_LEAST_0, "of the penalty"),
    "task.options.queue_size": Key(None, COUNT, "self_classifier: images remembered; 0: none"),
    "task.options.row_temperature": Key(None, POSITIVE, "self_classifier"),
    "task.options.uses_neighbors": Key(None, FLAG, "self_classifier: in the first view's place"),
    **keys_of(optim.Rule),
    **keys_of(Strengths),
    **keys_of(optim.Schedule),
    **keys_of(optim.Plateau),
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


def from_record(record: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of a run by its `config.json`; keys that it lacks have their defaults."""
    known = {key: _with_tuples(value) for key, value in record.items() if key in KEYS}
    return override(get_config(), known)


def _with_tuples(value):
    """Returns a value of a config as it was before it was JSON."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def keys_that_fix(*what: str) -> tuple[str, ...]:
    """Returns the keys whose values fix one of these; see `schema.Key`."""
    return tuple(name for name, key in KEYS.items() if key.fixes in what)


# Keys that a run may be resumed with other values of, whatever its config.
MAY_DIFFER = keys_that_fix("nothing")
# Keys, and a part of the record, that cannot change what a checkpoint gives on a named split.
EVALUATION_MAY_DIFFER = (*keys_that_fix("nothing", "length", "evaluations", "run"), "eval data")


def may_differ(config: ConfigDict) -> tuple[str, ...]:
    """Returns the keys that the run of a config may be resumed with other values of.

    Beside `MAY_DIFFER` these are its length, where the learning rates so far do not depend on it,
    and when and in what parts it evaluates, where no learning rate depends on that.
    """
    schedule = config.optim.schedule
    keys = () if schedule == "plateau" else keys_that_fix("evaluations")
    return (*MAY_DIFFER, *keys, *(() if schedule in _FIXES_LENGTH else keys_that_fix("length")))


def why_not(config: ConfigDict) -> dict[str, str]:
    """Returns why keys that others may differ in may not in the run of a config."""
    schedule = config.optim.schedule
    reason = _FIXES_LENGTH.get(schedule, "")
    return dict.fromkeys(keys_that_fix("length"), f"optim.schedule={schedule!r} {reason}")


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
    config.data.path, config.data.channels = "", 0
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
