"""Class maps: where in a photograph a network sees each class.

Before mean pooling a linear head sees the features at every place of the photograph; applied there
instead of to their mean, it gives a map of each class in the forward pass that classifies. With an
identity head nothing needs to be applied: a channel of the last feature map is the class' map.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fixed_head_jax.heads.fixed import Identity
from fixed_head_jax.layers.pooling import Mean


def check_maps(model: Any) -> None:
    """Raises ValueError, saying why, if the classes of a model have no maps."""
    if not isinstance(model.pool, Mean):
        name = type(model.pool).__name__.lower()
        raise ValueError(
            f"{name} pooling has no class maps: a map is a part of a logit at every place, which "
            "takes mean pooling"
        )
    if model.head.embeds:
        raise ValueError("a projection head has no class maps: it is not linear in the features")


def class_maps(
    model: Any,
    variables: dict[str, Any],
    feature_map: Float[Array | np.ndarray, "b h w c"],
    classes: Int[Array | np.ndarray, " n"],
) -> Float[Array, "b h w n"]:
    """Returns maps of classes, of which the spatial mean is the logit without its bias.

    M_k = sum over channels of w_k F, w_k the vector of class k (Zhou et al. 2016, "Learning Deep
    Features for Discriminative Localization"); with an identity head channel k of F itself. Heads
    that compare directions have w_k at unit norm: the mean is the cosine times the features' norm.

    Args:
        model: a classifier of `get_model`, with mean pooling.
        variables: of the model.
        feature_map: of its call.
        classes: whose maps, 0 ... K - 1.

    Raises:
        ValueError: if the model has no such maps, see `check_maps`.

    Source: Qian 2020, section on class maps, for the identity head.
    """
    check_maps(model)
    feature_map, dim = jnp.asarray(feature_map), feature_map.shape[-1]
    if isinstance(model.head, Identity):
        first = dim - model.head.num_classes if model.head.take == "last" else 0
        return feature_map[..., first + classes]
    vectors = model.class_vectors(variables, dim)[:, classes]
    if model.head.compares_directions:
        vectors = vectors / jnp.linalg.norm(vectors, axis=0, keepdims=True)
    return feature_map @ vectors


def grad_cam(
    model: Any,
    variables: dict[str, Any],
    feature_map: Float[Array | np.ndarray, "b h w c"],
    labels: Int[Array | np.ndarray, " b"],
) -> Float[Array, "b h w"]:
    """Returns Grad-CAM of one class of each image, for comparison with `class_maps`.

    relu(sum over channels of a_k F_k), a_k the mean gradient of the logit by channel k of the last
    feature map. Its scale means nothing.

    Args:
        model: a classifier of `get_model`.
        variables: of the model.
        feature_map: of its call.
        labels: the classes.

    Source: Selvaraju et al. 2017, "Grad-CAM".
    """

    def logit(feature_map):
        def head(model, feature_map):
            return model.head(model.pool(feature_map))

        logits = model.apply(variables, feature_map, method=head)
        return jnp.take_along_axis(logits, labels[:, None], 1).sum()

    weights = jax.grad(logit)(feature_map).mean((1, 2), keepdims=True)
    return jax.nn.relu((weights * feature_map).sum(-1))
