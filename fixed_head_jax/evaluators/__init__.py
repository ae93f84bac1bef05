"""Evaluators: sums over passes of a split on the device, or features of whole splits, and metrics.

To add one, write its sums and metrics in a file of its own as pure functions, say here which passes
it makes or which splits it needs, and name it in `EVALUATORS`.
"""

from collections.abc import Callable
from functools import partial

from fixed_head_jax.evaluators import clustering, long_tail, neural_collapse, superclasses
from fixed_head_jax.evaluators.classification import classification_metrics, classification_sums
from fixed_head_jax.evaluators.evaluator import (
    EVAL,
    TRAIN,
    Evaluator,
    FeatureEvaluator,
    Needs,
    Pass,
    Setting,
)
from fixed_head_jax.evaluators.feature_norms import feature_norm_metrics, feature_norm_sums
from fixed_head_jax.evaluators.kmeans import kmeans_clusters
from fixed_head_jax.evaluators.knn import KS, knn_accuracy
from fixed_head_jax.evaluators.linear_probe import linear_probe_accuracy
from fixed_head_jax.evaluators.sums import class_sums
from fixed_head_jax.settings import lookup


def _classification(setting: Setting) -> Evaluator:
    """Accuracy, top-5 accuracy and loss: part of every evaluation."""
    del setting

    def sums(outputs, labels, mask, context):
        del context
        return classification_sums(outputs["logits"], labels, mask)

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return classification_metrics(totals[0])

    return Evaluator((Pass(sums),), metrics, Needs(predicts_labels=True))


def _feature_norms(setting: Setting) -> Evaluator:
    """Norms and largest cosines of right and wrong predictions."""
    del setting

    def sums(outputs, labels, mask, context):
        del context
        return feature_norm_sums(
            outputs["features"], outputs["kernel"], outputs["logits"], labels, mask
        )

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return feature_norm_metrics(totals[0])

    return Evaluator((Pass(sums),), metrics, Needs(class_vectors=True))


def _neural_collapse(setting: Setting, split: str) -> Evaluator:
    """NC1 to NC4 on one split."""
    num_classes = setting.num_classes

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
    return Evaluator(passes, metrics, Needs(class_vectors=True, fit_images=int(split == TRAIN)))


def _shots(setting: Setting) -> Evaluator:
    """Accuracy over classes with many, some and few training images."""
    class_counts = setting.class_counts

    def sums(outputs, labels, mask, context):
        del context
        return long_tail.class_hits(outputs["logits"], labels, mask)

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return long_tail.shot_metrics(totals[0], class_counts())

    return Evaluator((Pass(sums),), metrics, Needs(predicts_labels=True))


def _decoupling(setting: Setting) -> Evaluator:
    """The same for classifiers that need no training, on the features of this model."""
    num_classes = setting.num_classes

    def feature_sums(outputs, labels, mask, context):
        del labels, context
        return long_tail.feature_sums(outputs["features"], mask)

    def embedding_sums(outputs, labels, mask, mean):
        return long_tail.embedding_sums(outputs["features"], labels, mask, mean, num_classes)

    def decoupling_hits(outputs, labels, mask, context):
        features, kernel, logits = (outputs[key] for key in ("features", "kernel", "logits"))
        return long_tail.decoupling_hits(features, kernel, logits, labels, mask, context)

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
    return Evaluator(passes, metrics, Needs(class_vectors=True, fit_images=1))


def _contingency_pass(setting):
    """Counts how often each predicted class meets each label."""

    def sums(outputs, labels, mask, context):
        del context
        return clustering.contingency_sums(outputs["logits"], labels, mask, setting.num_classes)

    return Pass(sums)


def _clustering(setting: Setting) -> Evaluator:
    """How predicted classes are used; and their agreement with labels, which they never saw."""

    def sums(outputs, labels, mask, context):
        del labels, context
        return clustering.usage_sums(outputs["logits"], mask, setting.temperature)

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        usage, *contingencies = totals
        scores = (clustering.agreement_metrics(contingency) for contingency in contingencies)
        return {**next(scores, {}), **clustering.usage_metrics(usage)}

    labelled = (_contingency_pass(setting),) if setting.num_classes else ()
    return Evaluator((Pass(sums), *labelled), metrics)


def _superclasses(setting: Setting) -> Evaluator:
    """The same against levels of a class hierarchy, and sets of BREEDS."""
    if not setting.superclass_dir:
        raise ValueError("evaluator 'superclasses' reads a class hierarchy; set superclass_dir")
    hierarchy = superclasses.read_hierarchy(setting.superclass_dir)
    if not set(hierarchy.classes) & set(setting.class_names):
        raise ValueError(
            f"superclass_dir={setting.superclass_dir!r} has none of the classes of the data set, "
            f"such as {next(iter(setting.class_names), 'none: it has no labels')!r}"
        )

    def metrics(totals, contexts, kernel):
        del contexts, kernel
        return superclasses.superclass_metrics(
            totals[0]["contingency"], hierarchy, setting.class_names
        )

    return Evaluator((_contingency_pass(setting),), metrics)


def _knn(setting: Setting) -> FeatureEvaluator:
    """Accuracy of a vote of the nearest training images."""

    def metrics(outputs):
        bank, queries = outputs[TRAIN], outputs[EVAL]
        return knn_accuracy(
            bank["features"], bank["label"], queries["features"], queries["label"],
            setting.num_classes,
        )  # fmt: skip

    return FeatureEvaluator(metrics, needs=Needs(fit_images=min(KS)))


def _linear_probe(setting: Setting) -> FeatureEvaluator:
    """Accuracy of a linear classifier that is fitted to the features."""

    def metrics(outputs):
        train, evaluated = outputs[TRAIN], outputs[EVAL]
        return linear_probe_accuracy(
            train["features"], train["label"], evaluated["features"], evaluated["label"],
            setting.num_classes, seed=setting.seed,
        )  # fmt: skip

    return FeatureEvaluator(metrics, needs=Needs(fit_images=2))


def _kmeans(setting: Setting, reads: str) -> FeatureEvaluator:
    """K-means with as many clusters as there are labels: a baseline for `clustering`."""

    def metrics(outputs):
        train, evaluated = outputs[TRAIN][reads], outputs[EVAL][reads]
        clusters = kmeans_clusters(train, evaluated, setting.num_classes, setting.seed)
        scores = clustering.clustering_scores(clusters, outputs[EVAL]["label"])
        name = "kmeans" if reads == "features" else "kmeans_pixels"
        return {f"{name}/{key}": 100 * value for key, value in scores.items()}

    return FeatureEvaluator(metrics, reads, Needs(fit_images=setting.num_classes))


EVALUATORS: dict[str, Callable[..., Evaluator | FeatureEvaluator]] = {
    "classification": _classification,
    "feature_norms": _feature_norms,
    "neural_collapse": partial(_neural_collapse, split=EVAL),
    "neural_collapse_train": partial(_neural_collapse, split=TRAIN),
    "shots": _shots,
    "decoupling": _decoupling,
    "clustering": _clustering,
    "superclasses": _superclasses,
    "knn": _knn,
    "linear_probe": _linear_probe,
    "kmeans": partial(_kmeans, reads="features"),
    "kmeans_pixels": partial(_kmeans, reads="pixels"),
}
AGREEMENTS = ("nmi", "ami", "ari", "acc")  # of clusters and labels
# Metrics of which larger is better, that the best checkpoint may be chosen by.
RISING_METRICS = {
    "classification": ("accuracy", "top5_accuracy"),
    "clustering": (*AGREEMENTS, "information"),
}


def get_evaluator(name: str, setting: Setting) -> Evaluator | FeatureEvaluator:
    """Builds the evaluator `name` of `EVALUATORS`.

    Raises:
        ValueError: on an unknown name, or where the setting lacks what it needs.
    """
    return lookup.build("evaluator", EVALUATORS, name, {"setting": setting})
