"""Heads on the vertices of a regular polytope, or on the same simplex in more dimensions.

A learned linear map without bias takes the features to the dimension of the polytope and gives
them signs; what follows is fixed and, unless drawn, stored nowhere. The map is part of the method:
on features that end in ReLU (`project=False`) every vertex -e_c of an orthoplex has a logit <= 0,
and vertex 0 of a cube, all +, has the largest one for every image.

Times are of forward and backward in ms on 2 CPU cores, batch 128, beside those of a product with
the stored matrix.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads import frames
from fixed_head_jax.heads.parts import Head, check_scale, fixed_kernel, linear_class_vectors
from fixed_head_jax.layers.initializers import uniform_fan_in


class Simplex(Head):
    """Vertices of the simplex: logits = scale * features @ projection @ `frames.simplex`.

    Class vectors, and so logits, add up to zero. With `project` that is all that is fixed:
    projection times vertices can be any matrix whose columns add up to zero.

    Attributes:
        num_classes: K >= 2, in K - 1 dimensions.
        project: learns the map; otherwise there must be K - 1 features.
        max_separation: takes `frames.max_separation`, the same simplex turned. Kasarla et al.:
            `project=False, max_separation=True, init_scale=0.1` (their ResNets).
        init_scale: > 0.
        learn_scale: makes the scale a parameter.

    Raises:
        ValueError: on `init_scale` <= 0, at construction.

    Source: Pernici et al. 2021, https://arxiv.org/abs/2103.15632; Kasarla et al. 2022,
    https://arxiv.org/abs/2206.08704.
    """

    num_classes: int
    project: bool = True
    max_separation: bool = False
    init_scale: float = 1.0
    learn_scale: bool = False

    def __post_init__(self):
        check_scale(self.init_scale)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K < 2, or D is not K - 1 where nothing is projected."""
        size = self.num_classes - 1
        frames.check_simplex(size if self.project else dim, self.num_classes)

    class_vectors = linear_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        points = _project(self, features, self.num_classes - 1)
        product = _triangular_simplex if self.max_separation else _simplex
        return product(points) * _scale(self)


class SimplexETF(Head):
    """Simplex equiangular tight frame: logits = scale * features @ `frames.simplex_etf`.

    The fixed classifier of the literature on neural collapse, usually after batch norm. With
    `project` the features are mapped to K dimensions, where nothing needs to be drawn: the logits
    are the mapped features less their mean, times sqrt(K / (K - 1)), and nothing more is fixed
    than in `Simplex`.

    Attributes:
        num_classes: K >= 2.
        project: learns a map without bias in front; without it there must be at least K - 1
            features, and the frame is drawn and stored.
        init_scale: > 0.
        learn_scale: makes the scale a parameter.

    Raises:
        ValueError: on `init_scale` <= 0, at construction.

    Source: Papyan et al. 2020, https://arxiv.org/abs/2008.08186.
    """

    num_classes: int
    project: bool = False
    init_scale: float = 1.0
    learn_scale: bool = False

    def __post_init__(self):
        check_scale(self.init_scale)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K < 2, or D < K - 1 where nothing is projected."""
        size = self.num_classes if self.project else dim
        frames.check_simplex(size, self.num_classes, exactly=False)

    class_vectors = linear_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        points = _project(self, features, self.num_classes)
        if self.project:
            radius = (self.num_classes / (self.num_classes - 1)) ** 0.5
            logits = radius * (points - points.mean(axis=1, keepdims=True))
        else:
            logits = points @ fixed_kernel(self, frames.simplex_etf, points.shape[1])
        return logits * _scale(self)


class Orthoplex(Head):
    """Vertices of the orthoplex: logits = scale * concatenate(x, -x), x = features @ projection.

    The order is that of `frames.orthoplex_shuffled`. With `project=False` and K <= D the logits
    are the first K features, as in the identity head.

    Attributes:
        num_classes: K, in ceil(K / 2) dimensions.
        project: learns the map; otherwise K must be at most 2 D.
        init_scale: > 0.
        learn_scale: makes the scale a parameter.

    Raises:
        ValueError: on `init_scale` <= 0, at construction.

    Source: Pernici et al. 2021, https://arxiv.org/abs/2103.15632.
    """

    num_classes: int
    project: bool = True
    init_scale: float = 1.0
    learn_scale: bool = False

    def __post_init__(self):
        check_scale(self.init_scale)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K > 2 D where nothing is projected."""
        frames.check_orthoplex(self._size if self.project else dim, self.num_classes)

    class_vectors = linear_class_vectors

    @property
    def _size(self) -> int:
        return -(-self.num_classes // 2)

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        points = _project(self, features, self._size)
        # 64 -> 10 0.01 (0.02), 500 -> 1000 0.12 (1.3), 4096 -> 8192 0.5 (47).
        logits = jnp.concatenate([points, -points], axis=1)[:, : self.num_classes]
        return logits * _scale(self)


class Cube(Head):
    """Vertices of the cube: logits = scale * features @ projection @ `frames.cube`.

    The order is Pernici's, least significant digit first. His head has an output for each of the
    2^D vertices, and those past K, in the softmax but never a target, are left out here.

    Attributes:
        num_classes: K, in ceil(log2 K) dimensions.
        project: learns the map; otherwise K must be at most 2^D.
        random_codes: draws the vertices by `frames.cube_random` and stores them; worth it with
            many more features than ceil(log2 K), of which only so many vary otherwise.
        init_scale: > 0.
        learn_scale: makes the scale a parameter.

    Raises:
        ValueError: on `init_scale` <= 0, at construction.

    Source: Pernici et al. 2021, https://arxiv.org/abs/2103.15632; Qian 2020, options F and G.
    """

    num_classes: int
    project: bool = True
    random_codes: bool = False
    init_scale: float = 1.0
    learn_scale: bool = False

    def __post_init__(self):
        check_scale(self.init_scale)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K > 2^D where nothing is projected."""
        frames.check_cube(self._size if self.project else dim, self.num_classes)

    class_vectors = linear_class_vectors

    @property
    def _size(self) -> int:
        return max((self.num_classes - 1).bit_length(), 1)

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        points = _project(self, features, self._size)
        dim = points.shape[1]
        if self.random_codes:
            logits = points @ fixed_kernel(self, frames.cube_random, dim)
        else:
            logits = _cube(points, self.num_classes)
        return logits * _scale(self)


def _simplex(points):
    """Computes points @ `frames.simplex` from their sum."""
    # 9 -> 10 0.04 (0.04), 999 -> 1000 0.22 (2.8), 8191 -> 8192 1.3 (188).
    dim = points.shape[1]
    corner = (1 - (1 + dim) ** 0.5) / dim
    centre = (1 + corner) / (dim + 1)
    radius = ((1 - centre) ** 2 + (dim - 1) * centre**2) ** 0.5
    total = points.sum(axis=1, keepdims=True)
    return jnp.concatenate([points - centre * total, (corner - centre) * total], axis=1) / radius


def _triangular_simplex(points):
    """Computes points @ `frames.max_separation`, from their running sums where that is faster."""
    # 99 -> 100 0.14 (0.07), 999 -> 1000 0.84 (2.9), 8191 -> 8192 8.1 (185).
    dim = points.shape[1]
    if dim < 300:
        return points @ frames.max_separation(None, dim, dim + 1)
    left = np.arange(dim, 0, -1)
    radius = np.sqrt((dim + 1) * left / (dim * (left + 1)))
    own = points * jnp.asarray(radius, jnp.float32)[None, :]
    sums = jnp.cumsum(own / jnp.asarray(left, jnp.float32)[None, :], axis=1)
    return jnp.pad(own, ((0, 0), (0, 1))) - jnp.pad(sums, ((0, 0), (1, 0)))


def _cube(points, num_classes):
    """Computes points @ `frames.cube`, least significant digit first."""
    dim, varying = points.shape[1], max((num_classes - 1).bit_length(), 1)
    # The product with the log2 K features that vary: 10 -> 1000 0.11, and 0.17 by sums of the
    # halves' logits, without any matrix; 2048 -> 1000 0.27 (2.6), 2048 -> 8192 0.9 (23).
    kernel = frames.cube(None, varying, num_classes, least_significant_first=True)
    rest = points[:, varying:].sum(axis=1, keepdims=True) / dim**0.5
    return points[:, :varying] @ kernel * (varying / dim) ** 0.5 + rest


def _project(head, features, size):
    """Returns the features in the head's dimension: mapped to `size`, or as they are."""
    head.check_capacity(features.shape[-1])
    if not head.project:
        return features
    return nn.Dense(size, use_bias=False, kernel_init=uniform_fan_in, name="projection")(features)


def _scale(head):
    if head.learn_scale:
        return head.param("scale", nn.initializers.constant(head.init_scale), ())
    return head.init_scale
