"""What an evaluator is made of, and from."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EVAL, TRAIN = "eval", "train"


def _no_context(totals):
    del totals
    return ()


class Needs(NamedTuple):
    """What an evaluator needs of the rest of a run.

    Attributes:
        class_vectors: the head's; None stands for them in the outputs otherwise.
        predicts_labels: a model whose predictions are labels, not classes of its own.
        fit_images: number of labelled `TRAIN` images, at least; 0 where it reads none.
    """

    class_vectors: bool = False
    predicts_labels: bool = False
    fit_images: int = 0


class Pass(NamedTuple):
    """One look at every example of a split.

    Attributes:
        sums: `(outputs, labels, mask, context) -> {name: array}` on one device's shard, sums that
            add up over batches and devices. `outputs` has what the model returns and "kernel", its
            class vectors [D, K], where the evaluator reads them; `mask` is 0 for padding, which
            may hold anything.
        split: `EVAL`, or `TRAIN`, the images to fit to, which are not augmented here.
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
        needs: of the rest of the run.
    """

    passes: tuple[Pass, ...]
    metrics: Callable
    needs: Needs = Needs()


class FeatureEvaluator(NamedTuple):
    """What to make of what the model gives for every example; computed once for all of this kind.

    It reads both splits: it fits to `TRAIN` and measures on `EVAL`.

    Attributes:
        metrics: `{split: {"features" [N, D], "pixels" [N, H W C], "label" [N]}} -> {name: float}`,
            of the examples in order, numpy; of the first two what `reads` names.
        reads: "features" (float32) or "pixels" (levels).
        needs: of the rest of the run.
    """

    metrics: Callable
    reads: str = "features"
    needs: Needs = Needs(fit_images=1)


class Setting(NamedTuple):
    """What evaluators are built from, beside their name.

    Attributes:
        num_classes: K of the labels; 0 where there are none.
        class_counts: returns the training images per class [K]; called only where they matter.
        class_names: of the labels.
        superclass_dir: folder of the files that `superclasses` reads.
        seed: of what an evaluator draws.
        temperature: divides the logits in the probabilities of clusters.
    """

    num_classes: int
    class_counts: Callable[[], np.ndarray]
    class_names: tuple[str, ...] = ()
    superclass_dir: str = ""
    seed: int = 0
    temperature: float = 1.0
