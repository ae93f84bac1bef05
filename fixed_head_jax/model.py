"""Backbone, pooling and head as one model."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, Key

from fixed_head_jax.backbones import get_backbone
from fixed_head_jax.heads import EMBEDDING_HEADS, get_head
from fixed_head_jax.layers.batch_norm import BatchNorm
from fixed_head_jax.layers.pooling import get_pool

_DROPOUT = 0  # folded into an example's key; the augmentations fold in other numbers


class Classifier(nn.Module):
    """Image classifier; pooling and head compute in float32 whatever the backbone's dtype.

    Attributes:
        backbone, pool, head: its parts.
        relu_before_pool: puts a ReLU between backbone and pooling.
        dropout: share of the features that are dropped in training, in [0, 1).
        frozen_backbone: the backbone always runs in evaluation mode, and gets no gradient.
        frozen_parts: paths of parts of the backbone whose batch norm runs in evaluation mode.
    """

    backbone: nn.Module
    pool: nn.Module
    head: nn.Module
    relu_before_pool: bool = False
    dropout: float = 0.0
    frozen_backbone: bool = False
    frozen_parts: tuple[str, ...] = ()

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        train: bool,
        example_rngs: Key[Array, " b"] | None = None,
    ) -> dict[str, Array]:
        """Classifies a batch of images.

        Args:
            images: normalised float images [B, H, W, C].
            train: batch norm uses, and updates, the statistics of this batch.
            example_rngs: one key per example, for dropout in training; nothing is dropped without.

        Returns:
            "feature_map" [B, h, w, C] (float32), "features" [B, D] and "logits" [B, K].
        """
        feature_map = self._map(images, train)
        features = self.pool(feature_map)
        if self.dropout and train and example_rngs is not None:
            features = _drop(example_rngs, features, self.dropout)
        return {"feature_map": feature_map, "features": features, "logits": self.head(features)}

    def embed(self, batches: Sequence[Float[Array, "_ _ _ _"]], train: bool) -> Float[Array, "n d"]:
        """Embeds batches of images, each of its own size, by a head of `heads.EMBEDDING_HEADS`.

        Backbone and pooling see one batch after the other, so that batch norm there takes the
        statistics of each by itself and updates the running ones each time; the head sees all.

        Args:
            batches: normalised float images [B, H, W, C] each.
            train: see the call.

        Returns:
            Embeddings [N, D] at unit norm, batch after batch.
        """
        features = [self.pool(self._map(images, train)) for images in batches]
        return self.head.embed(jnp.concatenate(features), train)

    def classify(self, embeddings: Float[Array, "n d"]) -> tuple[Float[Array, "n k"], ...]:
        """Returns the logits of every classifier of a head of `heads.EMBEDDING_HEADS`."""
        return self.head.classify(embeddings)

    def _map(self, images, train):
        """Returns the feature map as the pooling takes it."""
        with nn.intercept_methods(partial(_evaluate_frozen, self.frozen_parts)):
            feature_map = self.backbone(images, train and not self.frozen_backbone)
        feature_map = feature_map.astype(jnp.float32)
        if self.frozen_backbone:
            feature_map = lax.stop_gradient(feature_map)
        return nn.relu(feature_map) if self.relu_before_pool else feature_map

    def training_logits(
        self, logits: Float[Array, "b k"], labels: Int[Array, "b"]
    ) -> Float[Array, "b k"]:
        """Returns what the training loss takes instead of `logits`.

        A head with a margin has a pure method `training_logits(logits, labels)`, which lowers the
        logit of each label; every other head leaves the logits as they are. Accuracy and
        evaluation take the logits themselves.
        """
        return self.head.training_logits(logits, labels) if self.head.has_margin else logits

    def class_vectors(self, variables: Mapping[str, Any], dim: int) -> Float[Array, "d k"]:
        """Returns what the head compares features [B, dim] with, see `heads`."""
        own = {name: variables.get(name, {}).get("head", {}) for name in ("params", "fixed")}
        return self.head.class_vectors(own, dim)


def _evaluate_frozen(frozen_parts, call, args, kwargs, context):
    """Calls a method of a module; batch norm inside a frozen part is told not to train."""
    if context.method_name == "__call__" and isinstance(context.module, BatchNorm):
        path = "/".join((*context.module.path, ""))
        if path.startswith(tuple(f"backbone/{part}/" for part in frozen_parts)):
            return call(*args[:1], train=False)
    return call(*args, **kwargs)


def _drop(rngs, features, rate):
    """Drops each feature with probability `rate` and scales up the others."""

    def kept(rng):
        rng = jax.random.fold_in(rng, _DROPOUT)
        return jax.random.bernoulli(rng, 1 - rate, features.shape[1:])

    return jnp.where(jax.vmap(kept)(rngs), features / (1 - rate), 0.0)


def get_model(
    num_classes: int,
    backbone: str = "resnet18",
    head: str = "linear",
    pool: str = "mean",
    backbone_options: Mapping[str, Any] | None = None,
    head_options: Mapping[str, Any] | None = None,
    pool_options: Mapping[str, Any] | None = None,
    axis_name: str | None = None,
    relu_before_pool: bool = False,
    dropout: float = 0.0,
    frozen_backbone: bool = False,
) -> Classifier:
    """Builds a classifier and checks that the head can hold the classes.

    Args:
        num_classes: K, at least 2; 0 where a head of `heads.EMBEDDING_HEADS` names its clusters.
        backbone: a name of `backbones.BACKBONES`.
        head: a name of `heads.HEADS` or `heads.EMBEDDING_HEADS`.
        pool: a name of `pooling.POOLINGS`.
        backbone_options: fields of the backbone, e.g. `{"out_channels": 100}`.
        head_options: fields of the head, e.g. `{"allow_repeated": True}`.
        pool_options: fields of the pooling, e.g. `{"window": 4}`.
        axis_name: mesh axis that batch norm reduces over; None outside a mapped step.
        relu_before_pool: puts a ReLU in front of the pooling; most backbones end in one.
        dropout: share of the features that are dropped in training, in [0, 1).
        frozen_backbone: runs the backbone in evaluation mode, without gradient, in training too:
            neither its parameters nor its batch statistics move (weight decay is the optimizer's).

    Returns:
        A linen module; `init` and `apply` take images [B, H, W, C] and `train`.

    Raises:
        ValueError: on unknown names or options, or more classes than the head can tell apart
            (with `pool="flatten"`, whose size depends on the images, when it is initialised).
    """
    if num_classes < 2 and head not in EMBEDDING_HEADS:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    options = {**(backbone_options or {}), "axis_name": axis_name}
    backbone_module = get_backbone(backbone, **options)
    pool_module = get_pool(pool, **(pool_options or {}))
    defaults = getattr(backbone_module, "head_defaults", {}).get(head, {})
    head_options = {**defaults, **(head_options or {})}
    head_module = get_head(head, num_classes=num_classes, **head_options)
    if hasattr(head_module, "axis_name"):  # it has batch norm of its own
        head_module = head_module.clone(axis_name=axis_name)
    dim = pool_module.num_features(backbone_module.num_features)
    if dim is not None:
        head_module.check_capacity(dim)
    parts = (backbone_module, pool_module, head_module)
    return Classifier(*parts, relu_before_pool, dropout, frozen_backbone)
