"""Linear probe on stored features: multinomial logistic regression, to its minimum.

    x_i = (h_i - mean) / std            over the training features, by dimension
    min over W, b of   1/n sum_i cross-entropy(x_i W + b, y_i) + l2/2 |W|^2

The strength l2 of the penalty is chosen on a tenth of the training features that is held out, going
from strong to weak, each fit starting where the last one ended; then W and b are fitted to all of
them. The split to evaluate has no part in any choice. The objective is convex, any start will do.

The features stay on the device in the type they are given in, and one block of them after another
makes logits: ImageNet (1,281,167 x 2048) takes 5.3 GB in float16 and 10.5 GB in float32, the
fit 0.5 GB besides.

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
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from fixed_head_jax.evaluators.sums import matmul, true_rank

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_STD_MIN = 1e-6
_SLOPE_MAX = 1e-6  # largest entry of the gradient at what counts as the minimum


class Blocks(NamedTuple):
    """Features on the device, in blocks of one size; padding has the label -1."""

    features: Shaped[Array, "n b d"]
    labels: Int[Array, "n b"]


class Probe(NamedTuple):
    """A linear classifier of features standardised by the `mean` and `std` of those it fits."""

    weights: Float[Array, "e k"]  # W and, as the last row, b
    mean: Float[Array, " d"]
    std: Float[Array, " d"]  # at least 1e-6


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
    first, top5 = (100 * hits / len(labels)).tolist()
    return {"probe_accuracy": first, "probe_top5_accuracy": top5, "probe_l2": float(strength)}


def to_blocks(
    name: str,
    features: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
    num_classes: int,
    block: int,
) -> Blocks:
    """Moves features to the device, in blocks of at most `block` examples.

    Raises ValueError, with the `name` of the features, if they are not finite, or their labels not
    as many or not from 0 to num_classes - 1.
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
    if missing := count * size - len(labels):
        features = np.pad(features, ((0, missing), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=-1)
    features, labels = features.reshape(count, size, -1), labels.reshape(count, size)
    return Blocks(jnp.asarray(features), jnp.asarray(labels, jnp.int32))


def choose_strength(
    train: Blocks, num_classes: int, strengths: Sequence[float], max_steps: int, seed: int
) -> tuple[Probe, float]:
    """Chooses the penalty by the accuracy on a tenth of the examples, at least one, held out.

    Returns the classifier fitted to the others with the strength chosen, and that strength, of
    equally good ones the strongest; raises ValueError if there is one example only.
    """
    is_valid = np.asarray(train.labels >= 0)
    valid = np.flatnonzero(is_valid)
    if len(valid) < 2:
        raise ValueError("train_features has 1 row; a fit and a choice need at least 2")
    held = np.random.default_rng(seed).permutation(valid)[: max(1, len(valid) // 10)]
    is_held = np.isin(np.arange(is_valid.size), held).reshape(is_valid.shape)
    dim = train.features.shape[-1]
    probe = Probe(jnp.zeros((dim + 1, num_classes)), jnp.zeros(dim), jnp.ones(dim))
    best, best_hits = (probe, 0.0), -1  # the first fit is better
    for strength in sorted(set(strengths), reverse=True):
        probe = fit(train, jnp.asarray(is_valid & ~is_held), probe, strength, max_steps)
        hits = int(_hits(probe, train, is_held)[0])
        if hits > best_hits:
            best, best_hits = (probe, strength), hits
    return best


def fit(
    train: Blocks, mask: Bool[Array, "n b"], start: Probe, strength: float, max_steps: int
) -> Probe:
    """Minimises the objective over the examples in the mask, and standardises by them.

    Only the weights of `start` matter.
    """
    start = Probe(start.weights, *_moments(train.features, mask))
    return start._replace(weights=_minimize(start, train, mask, strength, max_steps))


@jax.jit
def _minimize(start, train, mask, strength, max_steps):
    """Returns the weights at the minimum of the objective."""

    def loss_and_gradient(weights):
        found = _loss_and_gradient(start._replace(weights=weights), train, mask)
        kernel = weights.at[-1].set(0.0)  # the bias is free
        penalty = strength / 2 * jnp.sum(kernel**2), strength * kernel
        return jax.tree.map(jnp.add, found, penalty)

    # Differentiated as it stands, the loss would keep the logits of all blocks.
    loss = jax.custom_vjp(lambda weights: loss_and_gradient(weights)[0])
    loss.defvjp(loss_and_gradient, lambda gradient, scale: (scale * gradient,))
    # Driven from the host, scipy's L-BFGS-B took 10 to 20 s where this takes 4 s (20,000 x 256, 50
    # classes, 2 busy cores), and its line search stalls in the noise of float32 losses.
    tx = optax.lbfgs(memory_size=10)

    def goes_on(carry):
        _, state, steps = carry
        slope = jnp.max(jnp.abs(optax.tree_utils.tree_get(state, "grad")))
        return (steps < max_steps) & ((slope > _SLOPE_MAX) | (steps == 0))

    def step(carry):
        weights, state, steps = carry
        value, gradient = optax.value_and_grad_from_state(loss)(weights, state=state)
        terms = {"value": value, "grad": gradient, "value_fn": loss}
        updates, state = tx.update(gradient, state, weights, **terms)
        return optax.apply_updates(weights, updates), state, steps + 1

    return lax.while_loop(goes_on, step, (start.weights, tx.init(start.weights), 0))[0]


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
def _loss_and_gradient(probe, blocks, mask):
    """Returns the mean cross-entropy over the mask and its gradient by the weights."""
    examples = jnp.sum(mask)

    def block_loss(weights, features, labels, mask):
        logits, labels = _logits(probe._replace(weights=weights), features), jnp.maximum(labels, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(jnp.where(mask, losses, 0.0)) / examples

    def add(total, block):
        found = jax.value_and_grad(block_loss)(probe.weights, *block)
        return jax.tree.map(jnp.add, total, found), None

    nothing = jnp.zeros(()), jnp.zeros_like(probe.weights)
    return lax.scan(add, nothing, (*blocks, mask))[0]


@jax.jit
def _hits(probe, blocks, mask):
    """Counts the examples in the mask whose class is first, and among the first five: [2]."""

    def add(total, block):
        features, labels, mask = block
        rank = true_rank(_logits(probe, features), labels)
        return total + jnp.stack([jnp.sum(mask & (rank < top)) for top in (1, 5)]), None

    return lax.scan(add, jnp.zeros(2, jnp.int32), (*blocks, mask))[0]
