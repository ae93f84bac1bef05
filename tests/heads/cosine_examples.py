"""What tests of cosine heads share: features, class vectors, their cosines, and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

RNG = jax.random.key(0)
H = jnp.array([[3.0, 4, 0, 0], [1, 2, 2, 4]])
KERNEL = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [2, -1, 2, 0]]).T
COSINES = np.array([[0.6, 0.7, 2 / 15], [0.2, 0.9, 4 / 15]])
LABELS = jnp.array([1, 2])
BIAS = jnp.array([0.1, -0.2, 0.3])


def cross_entropy(logits, labels=LABELS):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def given(head, **params):
    """Returns the head's logits of `H` with the class vectors `KERNEL` and other `params`."""
    vectors = {"kernel": KERNEL}
    variables = {"fixed": vectors} if head.fixed else {"params": {**vectors, **params}}
    return head.apply(variables, H)


def build(kind, options, num_classes=5, dim=8):
    """Returns the head, asymmetric features [3, dim], and the variables by params and the rest."""
    head = kind(num_classes, **options)
    features = jax.random.normal(jax.random.key(1), (3, dim)) + 0.3
    rest = dict(head.init(RNG, features))
    return head, features, rest.pop("params", {}), rest


def training_loss(params, head, rest, features):
    logits = head.apply({"params": params, **rest}, features)
    labels = jnp.arange(len(features)) % head.num_classes
    if hasattr(head, "training_logits"):
        logits = head.training_logits(logits, labels)
    return cross_entropy(logits, labels).mean()


loss_and_grads = jax.jit(jax.value_and_grad(training_loss, (0, 3)), static_argnums=1)


def assert_finite(tree):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
