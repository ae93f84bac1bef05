"""Tables of position embeddings at another size, by two published rules.

A table holds the position of the class token, which is always kept, then those of a square grid,
row by row: [1, 1 + g^2, C]. A grid of the table's own size gives the table as it is.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_positions(
    table: Float[Array, "1 n c"], rows: int, columns: int
) -> Float[Array, "1 m c"]:
    """Interpolates a table to a grid of rows x columns, in every call of the network.

    Bicubic (a = -0.75), corners not aligned, no antialiasing. New position i samples the old grid
    of side g at (i + 0.5) g / (rows + 0.1) - 0.5: the reference hands the factor (rows + 0.1) / g
    to its interpolation, which steps by that factor and not by the ratio of the sizes.

    Args:
        table: class position, then g x g positions row by row: [1, 1 + g^2, C].
        rows: height of the new grid in patches.
        columns: width of the new grid in patches.

    Returns:
        The class position, then rows x columns positions row by row.

    Raises:
        ValueError: on a table that is not a class position and a square.

    Source: code of Amrani et al. 2022, after Caron et al. 2021, https://arxiv.org/abs/2104.14294.
    """
    grid = _side(table)
    if (rows, columns) == (grid, grid):
        return table
    old = table[:, 1:].reshape(1, grid, grid, -1)
    weights = (_cubic_weights(grid, rows), _cubic_weights(grid, columns))
    # Left to itself, a TPU rounds the operands to bfloat16; on so small a product it saves nothing.
    new = jnp.einsum("rg,ch,oghd->orcd", *weights, old, precision="highest")
    return jnp.concatenate([table[:, :1], new.reshape(1, rows * columns, -1)], axis=1)


def resample_positions(
    table: Float[np.ndarray, "1 n c"], rows: int, columns: int
) -> Float[np.ndarray, "1 m c"]:
    """Resamples a table to a grid of rows x columns, once, when weights are read.

    As timm does: bicubic (a = -0.5), corners not aligned, antialiased where the grid shrinks, and
    near the border by the positions there are (`resize_positions` repeats the outermost one). In
    float64: torch's own float32 is up to 4e-6 away from it for positions of unit variance.

    Args:
        table: class position, then g x g positions row by row: [1, 1 + g^2, C].
        rows: height of the new grid in patches.
        columns: width of the new grid in patches.

    Returns:
        The class position, then rows x columns positions row by row.

    Raises:
        ValueError: on a table that is not a class position and a square.

    Source: `resample_abs_pos_embed` of timm.
    """
    grid = _side(table)
    if (rows, columns) == (grid, grid):
        return table
    old = table[0, 1:].reshape(grid, grid, -1).astype(np.float64)
    weights = (_antialiased_weights(grid, rows), _antialiased_weights(grid, columns))
    new = np.einsum("rg,ch,ghd->rcd", *weights, old).reshape(1, rows * columns, -1)
    return np.concatenate([table[:, :1], new.astype(table.dtype)], axis=1)


def is_table(shape: tuple[int, ...]) -> bool:
    """Tells whether an array of this shape holds a class position and a square."""
    squares = shape[1] - 1 if len(shape) == 3 and shape[0] == 1 else 0
    return squares > 0 and math.isqrt(squares) ** 2 == squares


def _side(table):
    if not is_table(table.shape):
        raise ValueError(f"table must hold 1 + g * g positions, got {table.shape[1]}")
    return math.isqrt(table.shape[1] - 1)


def _cubic_weights(size, new_size):
    """Returns the weights [new_size, size] of the old positions in every new one."""
    source = (np.arange(new_size) + 0.5) * size / (new_size + 0.1) - 0.5
    weights = np.zeros((new_size, size), np.float32)
    for tap in range(-1, 3):
        old = np.floor(source).astype(int) + tap
        # Beyond the border the outermost position is repeated.
        clamped = np.clip(old, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), clamped), _cubic(np.abs(source - old), -0.75))
    return weights


def _antialiased_weights(size, new_size):
    """Returns the weights [new_size, size] of the old positions in every new one."""
    step = size / new_size
    source = (np.arange(new_size) + 0.5) * step - 0.5
    distances = np.abs(np.arange(size)[None, :] - source[:, None])
    weights = _cubic(distances / max(step, 1.0), -0.5)
    return weights / weights.sum(1, keepdims=True)


def _cubic(distance, a):
    """Computes the cubic convolution kernel with the free coefficient a."""
    near = np.polyval([a + 2, -(a + 3), 0, 1], distance)
    far = a * np.polyval([1, -5, 8, -4], distance)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
