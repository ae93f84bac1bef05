"""Mean and standard deviation of the pixels of a split."""

import numpy as np

from fixed_head_jax.data.sources import Source

MOST = 2000  # images: the third digit no longer moves


def pixel_statistics(
    source: Source, most: int = MOST
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measures mean and standard deviation of each channel, of pixels in 0 ... 1.

    Over all pixels of at most `most` images spread evenly over the split, as evaluation sees them;
    rounded to four digits, so that they are the same on every machine.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int))
    sums, squares = np.zeros((2, source.image_shape[-1]))
    count = 0
    for start in range(0, len(indices), 64):
        images, _ = source.read(indices[start : start + 64])
        pixels = images.reshape(-1, images.shape[-1]).astype(np.float64) / 255
        sums, squares = sums + pixels.sum(0), squares + (pixels**2).sum(0)
        count += len(pixels)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))  # of one colour alone: not 0
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())
