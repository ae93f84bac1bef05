"""What tests of Self-Classifier share: a small model and a batch of views."""

import jax.numpy as jnp
import numpy as np

from fixed_head_jax.model import get_model

HEAD = dict(num_clusters=(3, 5), hidden_dim=12, dim=6)
BATCH = 4


def make_model(**options):
    return get_model(10, "tiny", "projection", head_options={**HEAD, **options}, axis_name="data")


def make_batch(rng=0, count=BATCH, num_local=2):
    random = np.random.default_rng(rng)

    def views(number, size):
        return tuple(
            jnp.asarray(random.normal(size=(count, size, size, 1)), jnp.float32)
            for _ in range(number)
        )

    labels = jnp.asarray(random.integers(0, 10, count), jnp.int32)
    return {
        "global": views(2, 8), "local": views(num_local, 5), "label": labels,
        "index": jnp.arange(count, dtype=jnp.int32),
    }  # fmt: skip
