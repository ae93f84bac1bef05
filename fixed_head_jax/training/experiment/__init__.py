"""From a config to everything the loop needs, checked before anything is compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fixed_head_jax import pretrained
from fixed_head_jax.data import Dataset
from fixed_head_jax.data.sampling import epoch_start
from fixed_head_jax.devices import compiler, parallel
from fixed_head_jax.display import class_grids
from fixed_head_jax.evaluators import (
    AGREEMENTS,
    EVAL,
    RISING_METRICS,
    TRAIN,
    Setting,
    get_evaluator,
)
from fixed_head_jax.evaluators.passes import make_collect, make_evaluate, select_probabilities
from fixed_head_jax.layers.initializers import redraw_orthogonal
from fixed_head_jax.model import Classifier, get_model
from fixed_head_jax.optim import transfer
from fixed_head_jax.settings.lookup import check_choice
from fixed_head_jax.settings.paths import match_kernels
from fixed_head_jax.settings.schema import flatten, read
from fixed_head_jax.tasks import NEEDS, Task, get_task
from fixed_head_jax.training import trackers
from fixed_head_jax.training.experiment.images import check_mixing, make_augments, open_splits
from fixed_head_jax.training.experiment.settling import settle_images
from fixed_head_jax.training.experiment.sizes import check_batch, check_memory
from fixed_head_jax.training.experiment.updates import make_training
from fixed_head_jax.training.step import TrainState, averaged, make_train_step


class Run(NamedTuple):
    """A checked config: everything `train` and `evaluate` need, nothing compiled."""

    config: ConfigDict
    record: dict  # what tells runs apart: the flat config, and what data it is for
    mesh: Mesh
    train_data: Dataset
    eval_data: Dataset
    fit_data: Dataset  # what evaluators fit to, without augmentation
    train_step: Callable
    evaluate: Callable  # of `make_evaluate`, with what the config asks for at every evaluation
    final_evaluate: Callable  # with what it asks for at the last one, too
    evaluates_train: bool  # whether an evaluator reads `fit_data`
    predict: Callable  # of `make_collect`: class probabilities on the evaluation split
    is_trained: PyTree  # per parameter: false where it is frozen
    create_state: Callable  # variables to start from -> TrainState; those missing are drawn
    initial: dict  # variables that `init_from` gives
    left_out: str  # in words, what of these weights is not taken
    total_steps: int
    eval_steps: frozenset
    groups: str  # table of the layers and how they train, where `config.transfer` groups them


def build(config: ConfigDict, read_weights: bool = True, needs_head: bool = False) -> Run:
    """Checks a config and builds what it names.

    Args:
        config: every key of `configs/common.py`, in its range: see `check` there.
        read_weights: whether to read what `init_from` names; a resumed run does without.
        needs_head: whether these weights are refused if their head is of another number of classes
            or of another kind, as it is where they are measured, or it is left out.

    Raises:
        ValueError: on anything the config gets wrong, in one line; if the compiler adds up wrongly.
    """
    compiler.check()
    trackers.check(config.trackers)
    config = settle_images(config)
    mesh = parallel.make_mesh(config.num_devices)
    if not config.total_steps and config.total_epochs <= 0:
        raise ValueError(f"total_epochs must be positive, got {config.total_epochs}")
    takes_views = NEEDS[config.task.name].views
    splits = open_splits(config, takes_views)
    source = splits.train.source
    check_batch(config, len(source), mesh.size)
    if source.unlabelled and NEEDS[config.task.name].labels:
        raise ValueError(
            f"task {config.task.name!r} learns labels, but those of {source.full_name} are not "
            "known (data.unlabelled=True, or it has no classes); choose another task"
        )
    dials = read(transfer.Dials, config)
    start = config.init_from if read_weights else None
    model = _get_model(config, source.num_classes, dials, start)
    starts = partial(epoch_start, num_examples=len(source), batch_size=config.batch_size)
    mix_steps = starts(config.augment.mix_off_epoch) if config.augment.mix_off_epoch else None
    augment, eval_augment = make_augments(config, source, takes_views, parallel.AXIS, mix_steps)
    check_mixing(config, model)
    task = make_task(config, model)
    _check_task(config, task, source, mesh.size)

    total_steps = config.total_steps or starts(config.total_epochs)
    images = jax.ShapeDtypeStruct((1, *source.image_shape), jnp.float32)
    params, model_state, task_state = jax.eval_shape(task.init, jax.random.key(0), images)
    match_kernels(params, "model.orthogonal_init", config.model.orthogonal_init)
    layers = model.backbone.layers
    training = make_training(config, dials, params, layers, total_steps, starts)
    state = _state_of(
        params, model_state, task_state, jax.eval_shape(training.tx.init, params), config
    )
    check_memory(config, model, state, splits.train, splits.eval, mesh.devices.ravel().tolist())
    train_step = make_train_step(
        task.loss, training.tx, augment, training.rates, config.seed, config.accumulation_steps,
        config.ema_decay, training.is_trained,
    )  # fmt: skip
    initial, left_out = {}, ""
    if read_weights:
        skip = (*config.init_skip, *transfer.skip_patterns(dials, params, layers))
        initial, left_out = _initial_variables(
            config, model, source.image_shape, skip, needs_head, dials
        )
    predict = make_collect(
        model, select_probabilities, eval_augment, splits.eval, config.eval_batch_size, mesh
    )
    record = {
        **flatten(config), "train data": source.describe(),
        "eval data": splits.eval.source.describe(),
    }  # fmt: skip
    return Run(
        config, record, mesh, *splits, train_step,
        *_make_evaluates(config, model, task, eval_augment, splits, mesh), predict,
        training.is_trained, partial(_create_state, config, task, training.tx, images), initial,
        left_out,
        total_steps, _event_steps(config.eval_every_epochs, starts, total_steps),
        transfer.table(training.plan, params, layers) if transfer.is_used(dials) else "",
    )  # fmt: skip


def _create_state(config, task, tx, images, initial=None):
    """Returns the state that a run starts from; `initial` as in `Run`."""
    zeros = jnp.zeros(images.shape, images.dtype)
    params, model_state, task_state = task.init(jax.random.key(config.seed), zeros)
    given = dict(initial or {})
    params, model_state = given.pop("params", params), {**model_state, **given}
    rng = jax.random.fold_in(jax.random.key(config.seed), _ORTHOGONAL)
    params = redraw_orthogonal(rng, params, config.model.orthogonal_init)
    state = _state_of(params, model_state, task_state, tx.init(params), config)
    return state.replace(ema=jax.tree.map(jnp.copy, state.ema))


def _state_of(params, model_state, task_state, opt_state, config):
    """Returns a state before its first step, of arrays or of shapes."""
    ema = averaged(params, model_state) if config.ema_decay else {}
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, task_state, opt_state, ema)


_ORTHOGONAL = 2**31 - 1  # folded into the seed: no step's number
_MODEL_KEYS = ("backbone", "head", "pool", "relu_before_pool", "dropout", "frozen_backbone")
_OPTION_KEYS = ("backbone_options", "head_options", "pool_options")


def make_model(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> Classifier:
    """Returns the model that a config names, as `get_model` builds it."""
    options: dict[str, Any] = {key: _options(config.model[key]) for key in _OPTION_KEYS}
    options["backbone_options"]["dtype"] = jnp.dtype(dtype_name(config.dtype)).type
    plain = {key: config.model[key] for key in _MODEL_KEYS}
    return get_model(num_classes, **plain, **options, axis_name=axis_name)


def make_task(config: ConfigDict, model: Classifier) -> Task:
    """Returns the task that a config names, as `get_task` builds it."""
    return get_task(config.task.name, model, **_options(config.task.options))


def _get_model(config, num_classes, dials, start):
    channels = config.model.backbone_options.out_channels
    if config.model.head == "identity" and channels and channels > num_classes:
        raise ValueError(
            f"model.backbone_options.out_channels={channels} makes a feature for every class, but "
            f"{config.data.name!r} has {num_classes} classes; set it to {num_classes}"
        )
    model = make_model(config, num_classes, parallel.AXIS)
    layers, lr = model.backbone.layers, config.optim.lr
    transfer.check(dials, len(layers), start, lr, config.model.frozen_backbone)
    return model.clone(frozen_parts=transfer.frozen_parts(dials, layers, lr))


def _make_evaluates(config, model, task, augment, splits, mesh) -> tuple[Callable, Callable, bool]:
    """Returns `evaluate`, `final_evaluate` and `evaluates_train` of a `Run`."""
    source = splits.fit.source
    datasets = {TRAIN: splits.fit, EVAL: splits.eval}

    train = splits.fit if splits.train.source.unlabelled else splits.train

    def class_counts():
        return np.bincount(train.source.labels, minlength=source.num_classes)

    setting = Setting(
        source.num_classes, class_counts, source.class_names, config.superclass_dir, config.seed,
        task.temperature,
    )  # fmt: skip

    predicts_labels = NEEDS[config.task.name].labels

    def make(names) -> tuple[Callable, bool]:
        evaluators = {name: get_evaluator(name, setting) for name in names}
        for name, evaluator in evaluators.items():
            _check_evaluator(name, evaluator.needs, predicts_labels, model, splits.fit)
        evaluate = make_evaluate(model, evaluators, augment, datasets, config.eval_batch_size, mesh)
        return evaluate, any(evaluator.needs.fit_images for evaluator in evaluators.values())

    names = (*task.evaluators, *config.evaluators)
    evaluate, evaluates_train = make(names)
    if not config.final_evaluators:  # nothing to compile a second time
        return evaluate, evaluate, evaluates_train
    return evaluate, *make((*names, *config.final_evaluators))


def _check_task(config, task, source, num_devices):
    """Raises ValueError where a task does not go with the rest of its config."""
    task.check(config.batch_size, len(source), num_devices, config.accumulation_steps)
    needs = NEEDS[config.task.name]
    rising = [metric for name in task.evaluators for metric in RISING_METRICS.get(name, ())]
    if not source.num_classes:
        rising = [metric for metric in rising if metric not in AGREEMENTS]
    check_choice("best_metric", config.best_metric, rising)
    if config.save_predictions and not needs.labels:
        raise ValueError(
            "save_predictions keeps probabilities of the labels, which a task without labels does "
            "not predict; set save_predictions=False"
        )
    if config.class_grids:
        class_grids.check(config.class_grids, config.class_grid_images)


def _check_evaluator(name, needs, predicts_labels, model, fit_data):
    """Raises ValueError where an evaluator does not go with the rest of the config."""
    if needs.class_vectors and model.head.embeds:
        raise ValueError(
            f"evaluator {name!r} compares features with class vectors, but the head compares "
            "embeddings; leave it out"
        )
    if needs.predicts_labels and not predicts_labels:
        raise ValueError(
            f"evaluator {name!r} takes predictions for labels, but they are classes found without "
            "them; leave it out"
        )
    if needs.fit_images and fit_data.source.unlabelled:
        raise ValueError(
            f"evaluator {name!r} needs labelled images to fit to; set data.fit_split to a split "
            "that has labels"
        )
    if len(fit_data.source) < needs.fit_images:
        raise ValueError(
            f"evaluator {name!r} needs at least {needs.fit_images} images to fit to, got "
            f"{len(fit_data.source)}; set data.fit_split or leave it out"
        )


def _initial_variables(config, model, image_shape, skip, needs_head, dials):
    """Returns the variables that `init_from` gives, or none, and what of it is left out."""
    if not config.init_from and config.init_skip:
        raise ValueError(
            f"init_skip={config.init_skip!r} needs init_from: nothing is loaded; "
            f"init_from={transfer.FROM_SCRATCH} trains from scratch"
        )
    if config.init_from in ("", transfer.FROM_SCRATCH):
        return {}, ""
    weights, rng = pretrained.load(config.init_from, model), jax.random.key(config.seed)
    left_out = []

    def leave_out(line):
        if dials.l2_sp or dials.lr_head == 0:
            dial = "l2_sp=True pulls it to" if dials.l2_sp else "lr_head=0 keeps"
            raise ValueError(
                f"{line}, but transfer.{dial} the one it starts with; set transfer.new_layers=1"
            )
        left_out.append(line)

    variables = pretrained.from_torch(
        weights, model, image_shape, skip=skip, rng=rng,
        on_other_head=None if needs_head else leave_out,
    )  # fmt: skip
    return variables, "; ".join(left_out)


def _options(config: ConfigDict) -> dict:
    """Returns the options that are set; None leaves an option at its owner's default."""
    return {key: value for key, value in config.items() if value is not None}


def dtype_name(name: str) -> str:
    """Returns what "auto" is on this machine's devices, and any other name itself."""
    check_choice("dtype", name, ("auto", "bfloat16", "float32"))
    if name != "auto":
        return name
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def _event_steps(every_epochs, starts, total_steps):
    """Returns the steps after which to evaluate: the end, and every `every_epochs` if positive."""
    events, count = {total_steps}, 1
    while every_epochs > 0 and (step := starts(every_epochs * count)) < total_steps:
        if count > total_steps:
            raise ValueError(f"eval_every_epochs={every_epochs} is less than a step; use more")
        events.add(max(step, 1))
        count += 1
    return frozenset(events)
