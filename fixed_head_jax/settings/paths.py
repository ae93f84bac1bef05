"""Parameters by regular expressions on their paths, such as "backbone/conv1/kernel"."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree


def flatten(params: PyTree) -> tuple[list[str], Any]:
    """Returns the paths of the leaves and the tree's structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves], treedef


def match(params: PyTree, argument: str, patterns: Sequence[str]) -> PyTree:
    """Returns a tree of booleans: whether any of the patterns is found in a parameter's path.

    Args:
        params: the parameters, or their shapes.
        argument: where the patterns come from, for the messages.
        patterns: regular expressions; none matches nothing.

    Raises:
        ValueError: on a string instead of a sequence, or a pattern that matches no parameter.
    """
    paths, treedef = flatten(params)
    if isinstance(patterns, str):
        raise ValueError(f"{argument}={patterns!r} is a string; pass a sequence: ({patterns!r},)")
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            shown = ", ".join(paths[:4] + ["..."] * (len(paths) > 4))
            raise ValueError(
                f"{argument} pattern {pattern!r} matches no parameter; paths look like: {shown}"
            )
    return treedef.unflatten([any(re.search(p, path) for p in patterns) for path in paths])


def multipliers(params: PyTree, argument: str, pairs: Sequence[tuple[str, float]]) -> PyTree:
    """Returns a tree of factors: that of the first pattern found in a parameter's path, or 1.

    Args:
        params: the parameters, or their shapes.
        argument: where the pairs come from, for the messages.
        pairs: (pattern, factor >= 0).

    Raises:
        ValueError: on a pattern that matches no parameter, or a negative factor.
    """
    match(params, argument, [pattern for pattern, _ in pairs])
    for pattern, factor in pairs:
        if factor < 0:
            raise ValueError(f"{argument} has the factor {factor} for {pattern!r}; use 0 or more")
    paths, treedef = flatten(params)
    return treedef.unflatten(
        [next((factor for p, factor in pairs if re.search(p, path)), 1.0) for path in paths]
    )


def match_kernels(params: PyTree, argument: str, patterns: Sequence[str]) -> PyTree:
    """Returns `match`; raises ValueError too on a match that is not a kernel."""
    matched = match(params, argument, patterns)
    paths, _ = flatten(params)
    leaves = zip(paths, jax.tree.leaves(params), jax.tree.leaves(matched), strict=True)
    for path, leaf, matches in leaves:
        if matches and leaf.ndim < 2:
            raise ValueError(
                f"{argument} patterns match {path!r} of shape {leaf.shape}, which is no kernel; "
                "end them in 'kernel$'"
            )
    return matched
