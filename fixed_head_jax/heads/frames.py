"""Class-vector constructions: plain functions (rng, dim, num_classes) -> [D, K].

Columns are class vectors. Constructions without randomness ignore `rng`, so that any of them can
stand in for any other; they are computed by numpy, so that a traced program holds them as
constants. The specifications write the transpose, one class per row.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def random_integers(rng: PRNGKeyArray, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws unit vectors in the directions of random integer vectors.

    Entries are uniform on {-100, ..., 99} before each column is divided by its norm.

    Args:
        rng: key of the draw.
        dim: feature size D.
        num_classes: K; any number.

    Returns:
        Unit-norm columns.

    Source: Shalev et al. 2020, https://arxiv.org/abs/2011.08704 (released code).
    """
    vectors = jax.random.randint(rng, (dim, num_classes), -100, 100).astype(jnp.float32)
    # An all-zero column (possible at dim = 1) stays zero instead of becoming NaN.
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=0, keepdims=True), 1.0)


def orthogonal(rng: PRNGKeyArray, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws a uniformly distributed semi-orthogonal matrix.

    Args:
        rng: key of the draw.
        dim: feature size D.
        num_classes: K; any number.

    Returns:
        Orthonormal columns if K <= D; orthonormal rows if K > D, where the class vectors stay
        distinct but have mean squared norm D / K.

    Source: Qian 2020, section 3; Hoffer et al. 2018, https://arxiv.org/abs/1801.04540.
    """
    tall = (max(dim, num_classes), min(dim, num_classes))
    q, r = jnp.linalg.qr(jax.random.normal(rng, tall))
    # The sign of R's diagonal is the algorithm's choice; fixing it makes the draw uniform.
    q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)[None, :]
    return q if dim >= num_classes else q.T


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
    return _signs(np.bitwise_count(rows & columns) & 1)


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
    signs = jnp.repeat(hadamard_signs(dim, repeats), hadamard_capacity(dim), axis=1)
    return hadamard(rng, dim, num_classes) * signs[:, :num_classes]


def hadamard_signs(dim: int, repeats: int) -> Float[Array, "d n"]:
    """Returns the row signs of each repetition of the matrix in `hadamard_distinct`."""
    # Products of the row's bits, as masks; single bits are left to `hadamard`. From the top row
    # down each is 0 until the row that equals its mask, so that none is a sum of the others.
    masks = [row for row in range(dim) if row.bit_count() != 1][: (repeats - 1).bit_length()]
    rows, copies = np.arange(dim)[:, None], np.arange(repeats)[None, :]
    parity = np.zeros((dim, repeats), int)
    for bit, mask in enumerate(masks):
        parity ^= (copies >> bit) & 1 & (rows & mask == mask)
    return _signs(parity)


def identity(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Takes the first K columns of the identity matrix: class k is feature k.

    Args:
        rng: ignored.
        dim: feature size D.
        num_classes: K <= D.

    Returns:
        Orthonormal columns of zeros and ones.

    Raises:
        ValueError: if K > D.

    Source: Qian 2020, identity head.
    """
    del rng
    check_identity(dim, num_classes)
    return jnp.eye(dim, num_classes)


def orthoplex(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Takes the vertices of the orthoplex in pairs: e_0, -e_0, e_1, -e_1, ...

    Args:
        rng: ignored.
        dim: feature size D.
        num_classes: K <= 2 D; features from ceil(K / 2) on are zero in every column.

    Returns:
        Unit-norm columns, pairwise cosines 0 or -1.

    Raises:
        ValueError: if K > 2 D.

    Source: Qian 2020, shortcut option D.
    """
    del rng
    check_orthoplex(dim, num_classes)
    classes = np.arange(num_classes)
    return jnp.asarray(np.eye(dim)[:, classes // 2] * (1 - 2 * (classes % 2)), jnp.float32)


def orthoplex_shuffled(
    rng: PRNGKeyArray | None, dim: int, num_classes: int, as_published: bool = False
) -> Float[Array, "d k"]:
    """Takes the vertices of the orthoplex by sign: e_0, ..., e_{D-1}, -e_0, ..., -e_{D-1}.

    With D = ceil(K / 2) this is Pernici's order; his code yields a class too many for odd K,
    which is left out here.

    Args:
        rng: ignored; nothing is shuffled at random.
        dim: feature size D.
        num_classes: K <= 2 D.
        as_published: accepts K > 2 D as the thesis' code does, where columns from 2 D on repeat
            the negative ones.

    Returns:
        Unit-norm columns, pairwise cosines 0 or -1.

    Raises:
        ValueError: if K > 2 D, unless `as_published`.

    Source: Qian 2020, shortcut option E; Pernici et al. 2021, https://arxiv.org/abs/2103.15632.
    """
    del rng
    if not as_published:
        check_orthoplex(dim, num_classes)
    classes = np.arange(num_classes)
    return jnp.asarray(np.eye(dim)[:, classes % dim] * np.where(classes < dim, 1, -1), jnp.float32)


def cube(
    rng: PRNGKeyArray | None, dim: int, num_classes: int, least_significant_first: bool = False
) -> Float[Array, "d k"]:
    """Takes vertices of the cube in binary order: entry (c, k) is (-1)^(digit c of k) / sqrt(D).

    Only ceil(log2 K) features vary; the others are + in every class, so that for K much smaller
    than 2^D the cosines are close to 1.

    Args:
        rng: ignored.
        dim: feature size D, the number of binary digits.
        num_classes: K <= 2^D.
        least_significant_first: Pernici's order of the digits; otherwise the thesis', most
            significant first.

    Returns:
        Unit-norm columns, distinct.

    Raises:
        ValueError: if K > 2^D.

    Source: Qian 2020, shortcut option F; Pernici et al. 2021, https://arxiv.org/abs/2103.15632.
    """
    del rng
    check_cube(dim, num_classes)
    # Digits that are 0 for every class are not computed: shifts by 32 and more are undefined.
    varying = (num_classes - 1).bit_length()
    digits = _binary_digits(np.arange(num_classes), varying).T
    digits = np.pad(digits, ((0, dim - varying), (0, 0)))
    return _signs(digits if least_significant_first else digits[::-1], dim**-0.5)


def cube_random(rng: PRNGKeyArray, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws K different vertices of the cube, each subset of that size equally likely.

    Args:
        rng: key of the draw.
        dim: feature size D; 64 and more are no different.
        num_classes: K <= 2^D.

    Returns:
        Unit-norm columns of entries +-1 / sqrt(D), distinct, in random order.

    Raises:
        ValueError: if K > 2^D.

    Source: Qian 2020, shortcut option G, whose code fails where 2^D overflows.
    """
    check_cube(dim, num_classes)
    if 1 << dim < 4 * num_classes:
        codes = _binary_digits(jax.random.permutation(rng, 1 << dim)[:num_classes], dim)
        return _signs(codes.T, dim**-0.5)

    def redraw(state):
        rng, codes, repeated = state
        rng, draw = jax.random.split(rng)
        codes = jnp.where(repeated[:, None], jax.random.bernoulli(draw, shape=codes.shape), codes)
        return rng, codes, _repeats_earlier(codes)

    nothing = jnp.zeros((num_classes, dim), bool), jnp.ones(num_classes, bool)
    _, codes, _ = jax.lax.while_loop(lambda state: state[2].any(), redraw, (rng, *nothing))
    return _signs(codes.T, dim**-0.5)


def simplex(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Centres and scales e_0, ..., e_{D-1} and a (1, ..., 1), with a = (1 - sqrt(1 + D)) / D.

    Args:
        rng: ignored.
        dim: feature size D = K - 1.
        num_classes: K >= 2.

    Returns:
        Unit-norm columns that add up to zero; every pair has cosine -1 / (K - 1).

    Raises:
        ValueError: if K < 2 or D is not K - 1.

    Source: Pernici et al. 2021, https://arxiv.org/abs/2103.15632.
    """
    del rng
    check_simplex(dim, num_classes)
    corner = (1 - (1 + dim) ** 0.5) / dim
    points = np.concatenate([np.eye(dim), np.full((dim, 1), corner)], axis=1)
    points -= points.mean(axis=1, keepdims=True)
    return jnp.asarray(points / np.linalg.norm(points, axis=0), jnp.float32)


def max_separation(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Builds the maximum-separation matrix: the simplex in triangular form.

    P_1 = [1, -1]; P_k has first column (1, 0, ..., 0), first row (1, -1/k, ..., -1/k) and the
    block sqrt(1 - 1/k^2) P_{k-1} below; the result is P_{K-1}. The product of the square roots
    telescopes, so row i is written down: with n = K - 1 - i, zeros, then
    r = sqrt(K n / ((K - 1) (n + 1))), then -r / n.

    Args:
        rng: ignored.
        dim: feature size D = K - 1.
        num_classes: K >= 2.

    Returns:
        Unit-norm columns that add up to zero; every pair has cosine -1 / (K - 1).

    Raises:
        ValueError: if K < 2 or D is not K - 1.

    Source: Kasarla et al. 2022, https://arxiv.org/abs/2206.08704.
    """
    del rng
    check_simplex(dim, num_classes)
    left = np.arange(dim, 0, -1)
    radius = np.sqrt(num_classes * left / (dim * (left + 1)))
    others = np.triu(np.ones((dim, num_classes)), k=1) * (-radius / left)[:, None]
    return jnp.asarray(np.eye(dim, num_classes) * radius[:, None] + others, jnp.float32)


def simplex_etf(rng: PRNGKeyArray | None, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws a simplex equiangular tight frame: sqrt(K / (K - 1)) U (I - 1/K).

    Args:
        rng: key of the orthonormal columns U; None takes the first columns of the identity.
        dim: feature size D >= K, or K - 1, where U turns `simplex` instead.
        num_classes: K >= 2.

    Returns:
        Unit-norm columns that add up to zero; every pair has cosine -1 / (K - 1).

    Raises:
        ValueError: if K < 2 or D < K - 1.

    Source: Papyan, Han and Donoho 2020, https://arxiv.org/abs/2008.08186.
    """
    check_simplex(dim, num_classes, exactly=False)
    if dim < num_classes:
        frame = simplex(None, dim, num_classes)
    else:
        scale = (num_classes / (num_classes - 1)) ** 0.5
        frame = scale * (jnp.eye(num_classes) - 1 / num_classes)
    if rng is None:
        return jnp.pad(frame, ((0, dim - len(frame)), (0, 0)))
    return orthogonal(rng, dim, len(frame)) @ frame


def check_identity(dim: int, num_classes: int) -> None:
    """Raises ValueError if K > D, where `identity` does not exist."""
    if num_classes > dim:
        raise ValueError(
            f"identity needs num_classes <= dim, got {num_classes} classes for {dim} features; "
            f"set backbone_options.out_channels={num_classes} or use head 'orthogonal'"
        )


def check_orthoplex(dim: int, num_classes: int) -> None:
    """Raises ValueError if K > 2 D, where vertices of the orthoplex would repeat."""
    if num_classes > 2 * dim:
        needs = f"num_classes <= {2 * dim}, its vertices"
        raise _wrong_size("orthoplex", needs, dim, num_classes, -(-num_classes // 2))


def check_cube(dim: int, num_classes: int) -> None:
    """Raises ValueError if K > 2^D, where vertices of the cube would repeat."""
    digits = (num_classes - 1).bit_length()
    if digits > dim:
        needs = f"num_classes <= {1 << dim}, its vertices"
        raise _wrong_size("cube", needs, dim, num_classes, digits)


def check_simplex(dim: int, num_classes: int, exactly: bool = True) -> None:
    """Raises ValueError if K < 2, D < K - 1, or `exactly` and D > K - 1."""
    if num_classes < 2:
        raise ValueError(f"simplex needs num_classes >= 2, got num_classes={num_classes}")
    if dim < num_classes - 1 or (exactly and dim > num_classes - 1):
        needs = f"dim {'=' if exactly else '>='} num_classes - 1"
        raise _wrong_size("simplex", needs, dim, num_classes, num_classes - 1)


def _wrong_size(frame, needs, dim, num_classes, fitting):
    return ValueError(
        f"{frame} needs {needs}, got num_classes={num_classes} for dim={dim}; give it dim="
        f"{fitting} (head_options.project=True maps the features to it), or use head 'orthogonal'"
    )


def _signs(digits, size=1.0):
    """Returns `size` where a digit is 0 and -`size` where it is 1."""
    return jnp.asarray(size * (1 - 2 * digits.astype(np.float32)))


def _binary_digits(numbers, count):
    """Returns the `count` lowest binary digits of each number, the lowest first: [K, count]."""
    return (numbers[:, None] >> np.arange(count)[None, :]) & 1


def _repeats_earlier(codes: Bool[Array, "k d"]) -> Bool[Array, "k"]:
    """Marks codes whose first 64 digits are those of an earlier one; other codes are distinct."""
    digits = jnp.pad(codes[:, :64], ((0, 0), (0, max(64 - codes.shape[1], 0))))
    digits = digits.reshape(-1, 2, 32).astype(jnp.uint32)
    words = (digits << jnp.arange(32, dtype=jnp.uint32)[None, None, :]).sum(-1, dtype=jnp.uint32)
    order = jnp.lexsort(words.T)  # stable: equal codes keep their order
    same = (words[order][1:] == words[order][:-1]).all(axis=1)
    return jnp.zeros(len(codes), bool).at[order[1:]].set(same)
