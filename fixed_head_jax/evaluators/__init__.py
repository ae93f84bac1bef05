"""Evaluators: sums over one or more passes of a split on the device, metrics on the host.

To add one, write its sums and metrics in a file of its own as pure functions, say here which passes
it makes, and name it in `EVALUATORS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fixed_head_jax import lookup
from fixed_head_jax.evaluators import long_tail, neural_collapse
from fixed_head_jax.evaluators.classification import classification_metrics, classification_sums
from fixed_head_jax.evaluators.feature_norms import feature_norm_metrics, feature_norm_sums
from fixed_head_jax.evaluators.sums import class_sums

EVAL, TRAIN = "eval", "train"


def _no_context(totals):
    del totals
    return ()


class Pass(NamedTuple):
    """One look at every example of a split.

    Attributes:
        sums: `(outputs, labels, mask, context) -> {name: array}` on one device's shard, sums that
            add up over batches and devices. `outputs` has what the model returns and "kernel", its
            class vectors [D, K], where the evaluator reads them; `mask` is 0 for padding, which
            may hold anything.
        split: `EVAL`, or `TRAIN`, whose images are not augmented here.
        context: `(totals of the passes before) -> tree of arrays`, on the host.
    """

    sums: Callable
    split: str = EVAL
    context: Callable = _no_context


class Evaluator(NamedTuple):
    """What to sum, and what to make of it.

    Attributes:
        passes: one after another; those of several evaluators share the work of the model.
        metrics: `(totals of all passes, their contexts, kernel) -> {name: float}`, all numpy.
        reads_kernel: whether it needs the class vectors; None stands for them otherwise.
    """

    passes: tuple[Pass, ...]
    metrics: Callable
    reads_kernel: bool = False


def _classification(num_classes: int, class_counts: Callable) -> Evaluator:
    """Accuracy, top-5 accuracy and loss: part of every evaluation."""
    del num_classes, class_counts

    def sums(outputs, labels, mask, context):
        del context
        return classification_sums(outputs["logits"], labels, mask)

    return Evaluator((Pass(sums),), lambda totals, *_: classification_metrics(totals[0]))


def _feature_norms(num_classes: int, class_counts: Callable) -> Evaluator:
    """Norms and largest cosines of right and wrong predictions."""
    del num_classes, class_counts

    def sums(outputs, labels, mask, context):
        del context
        return feature_norm_sums(
            outputs["features"], outputs["kernel"], outputs["logits"], labels, mask
        )

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return feature_norm_metrics(totals[0])

    return Evaluator((Pass(sums),), metrics, reads_kernel=True)


def _neural_collapse(num_classes: int, class_counts: Callable, split: str) -> Evaluator:
    """NC1 to NC4 on one split."""
    del class_counts

    def by_class(outputs, labels, mask, context):
        del context
        return class_sums(outputs["features"], labels, mask, num_classes)

    def collapse_sums(outputs, labels, mask, geometry):
        return neural_collapse.collapse_sums(
            outputs["features"], outputs["logits"], labels, mask, geometry
        )

    def geometry(totals):
        return neural_collapse.class_geometry(totals[0])

    def metrics(totals, contexts, kernel):
        # Split by split under its own name: both may be asked for.
        values = neural_collapse.collapse_metrics(contexts[1], totals[1], kernel)
        return {f"{split}_{name}" if split == TRAIN else name: v for name, v in values.items()}

    passes = (Pass(by_class, split), Pass(collapse_sums, split, geometry))
    return Evaluator(passes, metrics, reads_kernel=True)


def _shots(num_classes: int, class_counts: Callable) -> Evaluator:
    """Accuracy over classes with many, some and few training images."""
    del num_classes

    def sums(outputs, labels, mask, context):
        del context
        return long_tail.class_hits(outputs["logits"], labels, mask)

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return long_tail.shot_metrics(totals[0], class_counts())

    return Evaluator((Pass(sums),), metrics)


def _decoupling(num_classes: int, class_counts: Callable) -> Evaluator:
    """The same for classifiers that need no training, on the features of this model."""
    del class_counts

    def feature_sums(outputs, labels, mask, context):
        del labels, context
        return long_tail.feature_sums(outputs["features"], mask)

    def embedding_sums(outputs, labels, mask, mean):
        return long_tail.embedding_sums(outputs["features"], labels, mask, mean, num_classes)

    def decoupling_hits(outputs, labels, mask, context):
        tensors = (outputs[key] for key in ("features", "kernel", "logits"))
        return long_tail.decoupling_hits(*tensors, labels, mask, context)

    def feature_mean(totals):
        return long_tail.feature_mean(totals[0])

    def class_context(totals):
        return long_tail.class_context(feature_mean(totals), totals[1])

    def metrics(totals, contexts, kernel):
        del kernel
        return long_tail.decoupling_metrics(totals[2], contexts[2].class_counts)

    passes = (
        Pass(feature_sums, TRAIN),
        Pass(embedding_sums, TRAIN, feature_mean),
        Pass(decoupling_hits, EVAL, class_context),
    )
    return Evaluator(passes, metrics, reads_kernel=True)


EVALUATORS = {
    "classification": _classification,
    "feature_norms": _feature_norms,
    "neural_collapse": partial(_neural_collapse, split=EVAL),
    "neural_collapse_train": partial(_neural_collapse, split=TRAIN),
    "shots": _shots,
    "decoupling": _decoupling,
}


def get_evaluator(name: str, num_classes: int, class_counts: Callable[[], np.ndarray]) -> Evaluator:
    """Builds the evaluator `name`.

    Args:
        name: of `EVALUATORS`.
        num_classes: K.
        class_counts: returns the training images per class [K]; called only where they matter.

    Raises:
        ValueError: on an unknown name.
    """
    options: dict[str, Any] = {"num_classes": num_classes, "class_counts": class_counts}
    return lookup.build("evaluator", EVALUATORS, name, options)
