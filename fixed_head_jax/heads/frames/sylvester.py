"""The Hadamard matrix of Sylvester, as it is and without repeated columns."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fixed_head_jax.heads.frames.bits import signs
from fixed_head_jax.heads.frames.polytopes import check_cube


def hadamard(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Truncates the Sylvester-Hadamard matrix: entry (r, c) is (-1)^popcount(r & c).

    Args:
        rng: ignored.
        dim: feature size D.
        num_classes: K; columns k and k' repeat each other when they are equal modulo
            `hadamard_capacity(dim)`.

    Returns:
        Entries +1 and -1; columns have norm sqrt(D) and are orthogonal if D is a power of two.

    Source: Hoffer et al. 2018, https://arxiv.org/abs/1801.04540; Qian 2020, equation 3.6.
    """
    del rng
    rows, columns = np.arange(dim)[:, None], np.arange(num_classes)[None, :]
    return signs(np.bitwise_count(rows & columns) & 1)


def hadamard_capacity(dim: int) -> int:
    """Returns how many distinct class vectors `hadamard` has: the next power of two from `dim`."""
    return 1 << max(dim - 1, 0).bit_length()


def hadamard_distinct(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Continues `hadamard` past its capacity n without repeating a class vector.

    Column k is column k mod n of `hadamard` times column k // n of `hadamard_signs`: first the
    matrix itself, then its negative (for D a power of two, all cosines are then 0 or -1: a rotated
    orthoplex), then products with bits of the row's index, where cosines may be large. Each column
    is a polynomial over GF(2) in the bits of the row r (coefficients: of bit i of r, bit i of k;
    of the other monomials, the bits of k // n), and different polynomials differ in some row.

    Args:
        rng: ignored.
        dim: feature size D.
        num_classes: K <= 2^D.

    Returns:
        Entries +1 and -1, columns distinct; the first n are those of `hadamard`.

    Raises:
        ValueError: if K > 2^D.

    Source: ours, for a published head whose classes coincide; the order is that of Reed-Muller
    codes (MacWilliams and Sloane 1977, chapter 13), whose first order are H and -H.
    """
    check_cube(dim, num_classes)
    repeats = -(-num_classes // hadamard_capacity(dim))
    row_signs = jnp.repeat(hadamard_signs(dim, repeats), hadamard_capacity(dim), axis=1)
    return hadamard(rng, dim, num_classes) * row_signs[:, :num_classes]


def hadamard_signs(dim: int, repeats: int) -> Float[Array, "d n"]:
    """Returns the row signs of each repetition of the matrix in `hadamard_distinct`."""
    # Products of the row's bits, as masks; single bits are left to `hadamard`. From the top row
    # down each is 0 until the row that equals its mask, so that none is a sum of the others.
    masks = [row for row in range(dim) if row.bit_count() != 1][: (repeats - 1).bit_length()]
    rows, copies = np.arange(dim)[:, None], np.arange(repeats)[None, :]
    parity = np.zeros((dim, repeats), int)
    for bit, mask in enumerate(masks):
        parity ^= (copies >> bit) & 1 & (rows & mask == mask)
    return signs(parity)
