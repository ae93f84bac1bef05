"""Binary digits and the signs made of them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool


def signs(digits, size=1.0):
    """Returns `size` where a digit is 0 and -`size` where it is 1."""
    return jnp.asarray(size * (1 - 2 * digits.astype(np.float32)))


def binary_digits(numbers, count):
    """Returns the `count` lowest binary digits of each number, the lowest first: [K, count]."""
    return (numbers[:, None] >> np.arange(count)[None, :]) & 1


def repeats_earlier(codes: Bool[Array, "k d"]) -> Bool[Array, "k"]:
    """Marks codes whose first 64 digits are those of an earlier one; other codes are distinct."""
    digits = jnp.pad(codes[:, :64], ((0, 0), (0, max(64 - codes.shape[1], 0))))
    digits = digits.reshape(-1, 2, 32).astype(jnp.uint32)
    words = (digits << jnp.arange(32, dtype=jnp.uint32)[None, None, :]).sum(-1, dtype=jnp.uint32)
    order = jnp.lexsort(words.T)  # stable: equal codes keep their order
    same = (words[order][1:] == words[order][:-1]).all(axis=1)
    return jnp.zeros(len(codes), bool).at[order[1:]].set(same)
