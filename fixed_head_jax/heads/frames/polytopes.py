"""Vertices of the regular polytopes: orthoplex, cube and simplex."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from fixed_head_jax.heads.frames.bits import binary_digits, repeats_earlier, signs
from fixed_head_jax.heads.frames.drawn import orthogonal


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
    digits = binary_digits(np.arange(num_classes), varying).T
    digits = np.pad(digits, ((0, dim - varying), (0, 0)))
    return signs(digits if least_significant_first else digits[::-1], dim**-0.5)


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
        codes = binary_digits(jax.random.permutation(rng, 1 << dim)[:num_classes], dim)
        return signs(codes.T, dim**-0.5)

    def redraw(state):
        rng, codes, repeated = state
        rng, draw = jax.random.split(rng)
        codes = jnp.where(repeated[:, None], jax.random.bernoulli(draw, shape=codes.shape), codes)
        return rng, codes, repeats_earlier(codes)

    nothing = jnp.zeros((num_classes, dim), bool), jnp.ones(num_classes, bool)
    _, codes, _ = jax.lax.while_loop(lambda state: state[2].any(), redraw, (rng, *nothing))
    return signs(codes.T, dim**-0.5)


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
