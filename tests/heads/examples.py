"""What tests of heads share: features, options that matter, a head with its variables."""

import jax
import jax.numpy as jnp
import optax

RNG = jax.random.key(0)
H = jnp.array([[3.0, 4, 0, 0], [1, 2, 2, 4]])
HOFFER = dict(normalize_features=True, init_scale=10.0, bias_init="zeros")
EQUATION_3_6 = dict(negate_scale=False, normalize_features=False)
RAW = dict(project=False)
CODES = dict(random_codes=True)


def build(head, num_classes=5, dim=8, **options):
    """Returns the head, asymmetric features [3, dim] of both signs, and the variables."""
    head = head(num_classes=num_classes, **options)
    features = jax.random.normal(jax.random.key(1), (3, dim)) + 0.3
    return head, features, head.init(RNG, features)


def loss(params, head, rest, features):
    logits = head.apply({"params": params, **rest}, features)
    labels = jnp.arange(len(features)) % head.num_classes
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
