"""Self-Classifier's head: an MLP, embeddings at unit norm, and one or more classifiers of these.

Submodules and their parameters are named as in the released checkpoints.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads import frames
from fixed_head_jax.heads.parts import Head, norm
from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.initializers import uniform
from fixed_head_jax.settings.lookup import check_choice


def random_directions(rng, dim: int, num_classes: int) -> Float[Array, "d k"]:
    """Draws class vectors as learned ones start, at unit norm: not uniformly on the sphere."""
    vectors = uniform(dim**-0.5)(rng, (num_classes, dim))
    return (vectors / norm(vectors, 1e-12)).T


FIXED_FRAMES: dict[str, Callable] = {
    "random_directions": random_directions,
    "random_integers": frames.random_integers,
    "orthogonal": frames.orthogonal,
    "hadamard": frames.hadamard,
    "hadamard_distinct": frames.hadamard_distinct,
    "identity": frames.identity,
    "simplex": frames.simplex,
    "simplex_etf": frames.simplex_etf,
    "max_separation": frames.max_separation,
    "orthoplex": frames.orthoplex,
    "orthoplex_shuffled": frames.orthoplex_shuffled,
    "cube": frames.cube,
    "cube_random": frames.cube_random,
}


class MLP(nn.Module):
    """Linear layers with batch norm and LeakyReLU between them; no layers leave the input.

    Attributes as in `Projection`.
    """

    num_layers: int
    hidden_dim: int
    dim: int
    use_batch_norm: bool
    negative_slope: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], train: bool) -> Float[Array, "b e"]:
        place = 0  # in the sequence of the released code, where activations count too
        for layer in range(self.num_layers):
            is_last = layer == self.num_layers - 1
            x = nn.Dense(
                self.dim if is_last else self.hidden_dim,
                kernel_init=nn.initializers.normal(0.02),
                name=f"mlp.{place}",
            )(x)
            if is_last:
                break
            if self.use_batch_norm:
                place += 1
                x = BatchNorm(self.axis_name, name=f"mlp.{place}")(x, train)
            x = nn.leaky_relu(x, self.negative_slope)
            place += 2
        return x


class EmbeddingClassifier(nn.Module):
    """Class vectors without bias: logits = embeddings @ (gains * directions).

    Directions and gains are separate parameters, as in weight normalisation (`weight_v` [K, D] and
    `weight_g` [K, 1], which starts at 1); or the class vectors are fixed ones at unit norm.

    Attributes:
        num_classes: K.
        frame: None, or which fixed class vectors, of `FIXED_FRAMES`.

    Source: Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868.
    """

    num_classes: int
    frame: str | None

    @nn.compact
    def __call__(self, embeddings: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = embeddings.shape[-1]
        if self.frame is not None:
            kernel = self.variable("fixed", "kernel", self._draw, self.frame, dim).value
            return embeddings @ kernel
        directions = self.param("weight_v", uniform(dim**-0.5), (self.num_classes, dim))
        gains = self.param("weight_g", nn.initializers.ones, (self.num_classes, 1))
        return embeddings @ (gains * directions / norm(directions, 1e-12)).T

    def _draw(self, frame, dim):
        kernel = FIXED_FRAMES[frame](self.make_rng("params"), dim, self.num_classes)
        return kernel / norm(kernel, 1e-12, axis=0)


class Projection(Head):
    """MLP, embeddings at unit norm, classifiers of different numbers of classes.

    The call, without `train`, gives the logits of one classifier: what evaluation takes.

    Attributes:
        num_classes: K of the one classifier, unless `num_clusters` says otherwise.
        num_clusters: classes of every classifier, e.g. (1000, 2000, 4000, 8000); () is one of
            `num_classes`.
        evaluated: number of the classifier whose logits the call gives; -1 is the one with the
            smallest training loss, a running mean that the task keeps in `batch_stats`. All then
            have the same number of classes.
        num_layers: linear layers of the MLP; with 0 the embeddings are the features at unit norm.
        hidden_dim: outputs of all layers but the last.
        dim: D, of the embeddings (with `num_layers=0`: that of the features).
        use_batch_norm: normalises the outputs of all layers but the last.
        negative_slope: of the LeakyReLU after them; 0 is a ReLU.
        frame: None, or fixed class vectors instead of learned ones: "random_directions", the
            published ablation, or any of `FIXED_FRAMES`; the vectors are scaled to unit norm.
        axis_name: mesh axis that batch norm reduces over.

    Raises:
        ValueError: on a classifier of fewer than two classes, or a value out of its range, at
            construction; on more classes than a frame can hold, when it is initialised.

    Source: Amrani et al. 2022, https://arxiv.org/abs/2103.10994, section 3.3 and code.
    """

    embeds: ClassVar[bool] = True

    num_classes: int
    num_clusters: tuple[int, ...] = ()
    evaluated: int = 0
    num_layers: int = 2
    hidden_dim: int = 4096
    dim: int = 128
    use_batch_norm: bool = True
    negative_slope: float = 0.01
    frame: str | None = None
    axis_name: str | None = None

    def __post_init__(self):
        sizes = self.clusters
        if min(sizes) < 2:
            raise ValueError(f"num_clusters must be at least 2 in every classifier, got {sizes}")
        if not -1 <= self.evaluated < len(sizes):
            raise ValueError(f"evaluated={self.evaluated} must be in -1 ... {len(sizes) - 1}")
        if self.evaluated == -1 and len(set(sizes)) > 1:
            raise ValueError(
                f"evaluated=-1 compares losses, but classifiers of {sizes} classes have different "
                "ones; give all the same number in num_clusters, or set evaluated"
            )
        for key, minimum in (("num_layers", 0), ("hidden_dim", 1), ("dim", 1)):
            if getattr(self, key) < minimum:
                raise ValueError(f"{key} must be at least {minimum}, got {getattr(self, key)}")
        if self.frame is not None:
            check_choice("frame", self.frame, FIXED_FRAMES)
        super().__post_init__()

    @property
    def clusters(self) -> tuple[int, ...]:
        """Classes of every classifier."""
        return tuple(self.num_clusters) or (self.num_classes,)

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if a frame cannot hold the classes."""
        if self.frame is not None:
            dim = self.dim if self.num_layers else dim
            for size in self.clusters:
                draw = partial(FIXED_FRAMES[self.frame], dim=dim, num_classes=size)
                jax.eval_shape(draw, jax.random.key(0))

    def setup(self):
        self.mlp_head = MLP(
            self.num_layers, self.hidden_dim, self.dim, self.use_batch_norm, self.negative_slope,
            self.axis_name,
        )  # fmt: skip
        for number, size in enumerate(self.clusters):
            setattr(self, f"cls_{number}", EmbeddingClassifier(size, self.frame))
        if self.evaluated == -1:
            self.losses = self.variable("batch_stats", "losses", jnp.zeros, len(self.clusters))

    def embed(self, features: Float[Array, "b d"], train: bool) -> Float[Array, "b e"]:
        """Returns the embeddings, at unit norm."""
        x = self.mlp_head(features, train)
        return x / norm(x, 1e-7)

    def classify(self, embeddings: Float[Array, "b e"]) -> tuple[Float[Array, "b k"], ...]:
        """Returns the logits of every classifier."""
        return tuple(
            getattr(self, f"cls_{number}")(embeddings) for number in range(len(self.clusters))
        )

    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        logits = self.classify(self.embed(features, train=False))
        if self.evaluated == -1:
            return jnp.stack(logits)[jnp.argmin(self.losses.value)]
        return logits[self.evaluated]
