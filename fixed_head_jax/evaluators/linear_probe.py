"""Linear probe on stored features: multinomial logistic regression, to its minimum.

    x_i = (h_i - mean) / std            over the training features, by dimension
    min over W, b of   1/n sum_i cross-entropy(x_i W + b, y_i) + l2/2 |W|^2

The strength l2 of the penalty is chosen on a tenth of the training features that is held out, going
from strong to weak, each fit starting where the last one ended; then W and b are fitted to all of
them. The split to evaluate has no part in any choice. The objective is convex: no learning rate, no
schedule, and the result does not depend on where the search for the minimum starts.

The features stay on the device in the type they are given in, and one block of them after another
makes logits: ImageNet (1,281,167 x 2048) takes 5.2 GB in float16, 10.5 GB in float32, and 0.7 more.

This follows a run. Papers report another protocol (a layer trained by SGD for 100 epochs on
augmented images), which needs the backbone at every step.

Source: the penalised maximum likelihood of scikit-learn's LogisticRegression, C = 1 / (n l2).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped
from scipy import optimize

from fixed_head_jax.evaluators.sums import matmul

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_STD_MIN = 1e-6


class Blocks(NamedTuple):
    """Features on the device, in blocks of one size; the last block is padded.

    Attributes:
        features: in the type they were given in.
        labels: true classes; -1 for padding.
    """

    features: Shaped[Array, "n b d"]
    labels: Int[Array, "n b"]


class Probe(NamedTuple):
    """A linear classifier of standardised features.

    Attributes:
        weights: class vectors W and, as the last row, the bias b.
        mean: of the features it was fitted to.
        std: likewise, at least 1e-6.
    """

    weights: Float[Array, "e k"]
    mean: Float[Array, " d"]
    std: Float[Array, " d"]


def linear_probe_accuracy(
    train_features: Float[np.ndarray, "m d"],
    train_labels: Int[np.ndarray, " m"],
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
    max_steps: int = 200,
    seed: int = 0,
    block: int = 16384,
) -> dict[str, float]:
    """Fits a linear classifier to training features and measures it on others.

    Args:
        train_features: of any scale and float type, on the host.
        train_labels: their classes.
        features: to be classified.
        labels: their true classes; they have no part in the fit.
        num_classes: K.
        strengths: of the penalty l2, to choose from; each positive.
        max_steps: L-BFGS iterations of each fit, which ends before that at its minimum.
        seed: of the tenth that is held out.
        block: examples whose logits exist at a time; changes no more than rounding.

    Returns:
        `probe_accuracy` and `probe_top5_accuracy` (percent; ties go to the lower class) and
        `probe_l2`, the strength chosen.

    Raises:
        ValueError: if an argument is out of range or features are not finite.
    """
    sizes = {"strengths": min(strengths, default=0), "max_steps": max_steps, "block": block}
    for name, value in sizes.items():
        if not value > 0:
            raise ValueError(f"{name} has to be positive, not {value}")
    train = to_blocks("train_features", train_features, train_labels, num_classes, block)
    others = to_blocks("features", features, labels, num_classes, block)
    probe, strength = choose_strength(train, num_classes, strengths, max_steps, seed)
    probe = fit(train, train.labels >= 0, probe, strength, max_steps)
    hits = np.asarray(_hits(probe, others, others.labels >= 0), np.float64)
    accuracy, top5_accuracy = (100 * hits / len(labels)).tolist()
    return {
        "probe_accuracy": accuracy,
        "probe_top5_accuracy": top5_accuracy,
        "probe_l2": float(strength),
    }


def to_blocks(
    name: str,
    features: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
    num_classes: int,
    block: int,
) -> Blocks:
    """Moves features to the device, in blocks of at most `block` examples.

    Raises:
        ValueError: with the `name` of the features, if they are not finite, or their labels not as
            many or not from 0 to num_classes - 1.
    """
    if len(labels) != len(features) or not len(labels):
        counts = f"{len(features)} rows, {len(labels)} labels"
        raise ValueError(f"{name}: {counts}; pass a label for each row, at least one")
    if labels.min() < 0 or labels.max() >= num_classes:
        found = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"{name}: labels {found} have to be 0 to {num_classes - 1}")
    if not all(np.isfinite(features[i : i + block]).all() for i in range(0, len(features), block)):
        raise ValueError(f"{name} have NaN or infinity; check the model")
    count = math.ceil(len(labels) / block)
    size = math.ceil(len(labels) / count)
    missing = count * size - len(labels)
    if missing:
        features = np.pad(features, ((0, missing), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=-1)
    features, labels = features.reshape(count, size, -1), labels.reshape(count, size)
    return Blocks(jnp.asarray(features), jnp.asarray(labels, jnp.int32))


def choose_strength(
    train: Blocks, num_classes: int, strengths: Sequence[float], max_steps: int, seed: int
) -> tuple[Probe, float]:
    """Chooses the penalty by the accuracy on a tenth of the examples, at least one, held out.

    Returns:
        The classifier fitted to the others with the strength chosen, and that strength: of equally
        good ones the strongest.

    Raises:
        ValueError: if there is one example only.
    """
    is_valid = np.asarray(train.labels >= 0)
    valid = np.flatnonzero(is_valid)
    if len(valid) < 2:
        raise ValueError("train_features has 1 row; a fit and a choice need at least 2")
    held = np.random.default_rng(seed).permutation(valid)[: max(1, len(valid) // 10)]
    is_held = np.isin(np.arange(is_valid.size), held).reshape(is_valid.shape)
    is_fitted = is_valid & ~is_held
    dim = train.features.shape[-1]
    probe = Probe(jnp.zeros((dim + 1, num_classes)), jnp.zeros(dim), jnp.ones(dim))
    best, best_hits = None, -1
    for strength in sorted(set(strengths), reverse=True):
        probe = fit(train, jnp.asarray(is_fitted), probe, strength, max_steps)
        hits = int(_hits(probe, train, is_held)[0])
        if hits > best_hits:
            best, best_hits = (probe, strength), hits
    return best


def fit(
    train: Blocks, mask: Bool[Array, "n b"], start: Probe, strength: float, max_steps: int
) -> Probe:
    """Minimises the objective over the examples in the mask.

    Args:
        train: the examples.
        mask: which of them count, for the mean and the standard deviation too.
        start: where the weights start; its mean and standard deviation do not matter.
        strength: l2.
        max_steps: L-BFGS iterations at most.
    """
    mean, std = _moments(train.features, mask)

    def loss_and_gradient(flat):
        probe = Probe(flat.reshape(start.weights.shape).astype(np.float32), mean, std)
        loss, gradient = _loss_and_gradient(probe, train, mask, strength)
        return float(loss), np.asarray(gradient, np.float64).ravel()

    flat = np.asarray(start.weights, np.float64).ravel()
    # It ends by the gradient, or where float32 does not tell one loss from the next.
    options = {"maxiter": max_steps, "maxfun": 10 * max_steps, "gtol": 1e-6, "ftol": 1e-9}
    found = optimize.minimize(loss_and_gradient, flat, jac=True, method="L-BFGS-B", options=options)
    return Probe(jnp.asarray(found.x.reshape(start.weights.shape), jnp.float32), mean, std)


@jax.jit
def _moments(features, mask):
    """Returns the mean and the standard deviation of the features in the mask, by dimension."""
    examples = jnp.sum(mask)

    def mean_of(function):
        def add(total, block):
            values, mask = block
            values = jnp.where(mask[:, None], function(values.astype(jnp.float32)), 0.0)
            return total + jnp.sum(values, axis=0) / examples, None

        return lax.scan(add, jnp.zeros(features.shape[-1]), (features, mask))[0]

    # Two passes: the difference of a mean square and a squared mean loses its digits.
    mean = mean_of(lambda values: values)
    variance = mean_of(lambda values: (values - mean[None, :]) ** 2)
    return mean, jnp.maximum(jnp.sqrt(variance), _STD_MIN)


def _logits(probe, features):
    """Returns the logits [B, K] of features [B, D]."""
    standard = (features.astype(jnp.float32) - probe.mean[None, :]) / probe.std[None, :]
    return matmul(standard, probe.weights[:-1]) + probe.weights[-1:]


@jax.jit
def _loss_and_gradient(probe, blocks, mask, strength):
    """Returns the objective over the examples in the mask and its gradient by the weights."""
    examples = jnp.sum(mask)

    def block_loss(weights, features, labels, mask):
        log_probabilities = jax.nn.log_softmax(_logits(probe._replace(weights=weights), features))
        own = jnp.take_along_axis(log_probabilities, jnp.maximum(labels, 0)[:, None], axis=1)
        return -jnp.sum(jnp.where(mask, own[:, 0], 0.0)) / examples

    def add(total, block):
        found = jax.value_and_grad(block_loss)(probe.weights, *block)
        return jax.tree.map(jnp.add, total, found), None

    penalized = probe.weights.at[-1].set(0.0)  # not the bias
    penalty = strength / 2 * jnp.sum(penalized**2), strength * penalized
    return lax.scan(add, penalty, (*blocks, mask))[0]


@jax.jit
def _hits(probe, blocks, mask):
    """Counts the examples in the mask whose class is first, and among the first five: [2]."""
    classes = jnp.arange(probe.weights.shape[1])[None, :]

    def add(total, block):
        features, labels, mask = block
        logits, own = _logits(probe, features), jnp.maximum(labels, 0)[:, None]
        own_logits = jnp.take_along_axis(logits, own, axis=1)
        ahead = (logits > own_logits) | ((logits == own_logits) & (classes < own))
        rank = jnp.sum(ahead & (classes != own), axis=1)
        return total + jnp.stack([jnp.sum(mask & (rank < top)) for top in (1, 5)]), None

    return lax.scan(add, jnp.zeros(2, jnp.int32), (*blocks, mask))[0]
