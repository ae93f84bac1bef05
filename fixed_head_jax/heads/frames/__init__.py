"""Class-vector constructions: plain functions (rng, dim, num_classes) -> [D, K].

Columns are class vectors. Constructions without randomness ignore `rng`, so that any of them can
stand in for any other; they are computed by numpy, so that a traced program holds them as
constants. The specifications write the transpose, one class per row.
"""

from fixed_head_jax.heads.frames.drawn import check_identity, identity, orthogonal, random_integers
from fixed_head_jax.heads.frames.polytopes import (
    check_cube,
    check_orthoplex,
    check_simplex,
    cube,
    cube_random,
    max_separation,
    orthoplex,
    orthoplex_shuffled,
    simplex,
    simplex_etf,
)
from fixed_head_jax.heads.frames.sylvester import (
    hadamard,
    hadamard_capacity,
    hadamard_distinct,
    hadamard_signs,
)

__all__ = [
    "check_cube",
    "check_identity",
    "check_orthoplex",
    "check_simplex",
    "cube",
    "cube_random",
    "hadamard",
    "hadamard_capacity",
    "hadamard_distinct",
    "hadamard_signs",
    "identity",
    "max_separation",
    "orthogonal",
    "orthoplex",
    "orthoplex_shuffled",
    "random_integers",
    "simplex",
    "simplex_etf",
]
