"""Heads whose class vectors are fixed: drawn once, or computed in the call, and never learned.

What is drawn is stored in the collection "fixed", out of the optimizer's reach; what can be
computed again (Hadamard, identity) is stored nowhere. With `learned=True` the same class vectors
are where a parameter starts, for comparison.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads import frames
from fixed_head_jax.heads.parts import Head, check_scale, fixed_kernel, linear_class_vectors, norm
from fixed_head_jax.layers.initializers import uniform
from fixed_head_jax.settings.lookup import check_choice


class Random(Head):
    """Random class vectors, dot product: logits = features @ kernel + bias.

    Unless `learned`, the bias is one constant, the same for every class, so softmax, loss and
    predictions do not depend on it; it is there so that the logits equal the published ones.

    Attributes:
        num_classes: K; any number.
        bias: the constant added to every logit, or the initial value of each class' bias.
        learned: makes kernel and bias parameters; the class vectors then lose their unit norm.

    Source: Shalev et al. 2020, https://arxiv.org/abs/2011.08704, dot product, fixed and learned.
    """

    num_classes: int
    bias: float = 0.01
    learned: bool = False

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    class_vectors = linear_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        if not self.learned:
            return features @ fixed_kernel(self, frames.random_integers, dim) + self.bias
        kernel = self.param("kernel", frames.random_integers, dim, self.num_classes)
        initial = nn.initializers.constant(self.bias)
        return features @ kernel + self.param("bias", initial, (self.num_classes,))[None, :]


class Orthogonal(Head):
    """Random semi-orthogonal class vectors: logits = scale * features @ kernel + bias.

    The defaults are the thesis' form, without scale. Hoffer et al. normalise the features and
    learn the scale: `normalize_features=True, init_scale=10.0, bias_init="zeros"` (they divide by
    a norm of zero unguarded; here it is at least 1e-12).

    Attributes:
        num_classes: K; any number, but only up to D are the class vectors orthonormal.
        normalize_features: divides the features by their norm.
        init_scale: initial value of the learned scale, > 0; None leaves it out.
        use_bias: adds a learned bias.
        bias_init: "uniform", U(-1/sqrt(D), 1/sqrt(D)), or "zeros".

    Raises:
        ValueError: on an unknown `bias_init` or `init_scale` <= 0, at construction.

    Source: Qian 2020, section 3; Hoffer et al. 2018, https://arxiv.org/abs/1801.04540.
    """

    num_classes: int
    normalize_features: bool = False
    init_scale: float | None = None
    use_bias: bool = True
    bias_init: str = "uniform"

    def __post_init__(self):
        check_choice("bias_init", self.bias_init, ("uniform", "zeros"))
        check_scale(self.init_scale)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    def class_vectors(self, variables: Mapping[str, Any], dim: int) -> Float[Array, "d k"]:
        """Returns what the features, at unit norm if the head normalises them, multiply."""
        return linear_class_vectors(self.clone(normalize_features=False), variables, dim)

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        x = features / norm(features, 1e-12) if self.normalize_features else features
        logits = x @ fixed_kernel(self, frames.orthogonal, dim)
        if self.init_scale is not None:
            logits *= self.param("scale", nn.initializers.constant(self.init_scale), ())
        if self.use_bias:
            bound = dim**-0.5 if self.bias_init == "uniform" else 0.0
            logits += self.param("bias", uniform(bound), (self.num_classes,))[None, :]
        return logits


class Hadamard(Head):
    """Hadamard class vectors: logits = -scale * features / (|features| + 1e-8) @ kernel + bias.

    This is the form behind the published numbers. Equation 3.6 of the thesis has neither the
    minus nor the normalisation: `negate_scale=False, normalize_features=False`. The signs are not
    interchangeable: class 0 is all ones, so with features >= 0 (any backbone that ends in ReLU)
    it gets the largest projection for every image with a plus, the smallest with a minus, and
    only the bias can set it apart.

    Attributes:
        num_classes: K, at most `frames.hadamard_capacity(D)` unless one of the last three is set.
        negate_scale: multiplies by -scale instead of scale.
        normalize_features: divides the features by their norm + 1e-8.
        learn_scale: makes the scale a parameter; otherwise it stays at `init_scale`.
        init_scale: > 0; None means 1/sqrt(K).
        use_bias: adds a learned bias, drawn from U(-1/sqrt(K), 1/sqrt(K)): K, not D.
        allow_repeated: accepts more classes than there are distinct class vectors, as published
            runs did; images of classes that share a vector cannot be told apart.
        distinct: continues with `frames.hadamard_distinct` instead, for K up to 2^D.
        learned: makes the class vectors a parameter that starts there.

    Raises:
        ValueError: on `init_scale` <= 0, or both `allow_repeated` and `distinct`, at construction.

    Source: Hoffer et al. 2018, https://arxiv.org/abs/1801.04540 (released code); Qian 2020.
    """

    num_classes: int
    negate_scale: bool = True
    normalize_features: bool = True
    learn_scale: bool = True
    init_scale: float | None = None
    use_bias: bool = True
    allow_repeated: bool = False
    distinct: bool = False
    learned: bool = False

    def __post_init__(self):
        check_scale(self.init_scale)
        if self.allow_repeated and self.distinct:
            raise ValueError("allow_repeated=True and distinct=True exclude each other; set one")
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if class vectors would repeat, and stay so."""
        if self.distinct:
            frames.check_cube(dim, self.num_classes)
            return
        capacity = frames.hadamard_capacity(dim)
        if self.num_classes > capacity and not (self.allow_repeated or self.learned):
            raise ValueError(
                f"hadamard has {capacity} distinct class vectors for {dim} features, got "
                f"num_classes={self.num_classes}: {self.num_classes - capacity} of them would "
                "repeat another class and never be predicted; use head 'orthogonal', or a "
                f"backbone with more than {frames.hadamard_capacity(self.num_classes) // 2} "
                f"features (backbone_options.out_channels={self.num_classes} where it has it), or "
                "head_options.distinct=True for others, or head_options.allow_repeated=True to "
                "build it as published"
            )

    def class_vectors(self, variables: Mapping[str, Any], dim: int) -> Float[Array, "d k"]:
        """Returns what the features, at unit norm if the head normalises them, multiply."""
        return linear_class_vectors(self.clone(normalize_features=False), variables, dim)

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim, num_classes = features.shape[-1], self.num_classes
        self.check_capacity(dim)
        # The guard of 1e-8 is added, as published; the 1e-15 only keeps the gradient finite.
        x = features / (norm(features, 1e-15) + 1e-8) if self.normalize_features else features
        scale = num_classes**-0.5 if self.init_scale is None else self.init_scale
        if self.learn_scale:
            scale = self.param("scale", nn.initializers.constant(scale), ())
        if self.learned:
            frame = frames.hadamard_distinct if self.distinct else frames.hadamard
            logits = x @ self.param("kernel", frame, dim, num_classes)
        else:
            logits = _walsh_hadamard(x, num_classes, self.distinct)
        logits *= -scale if self.negate_scale else scale
        if self.use_bias:
            logits += self.param("bias", uniform(num_classes**-0.5), (num_classes,))[None, :]
        return logits


class Identity(Head):
    """No classifier: the logits are the first K features; the others get no gradient.

    Attributes:
        num_classes: K, at most D.
        take: "first", or "last" for the last K features (what a DenseNet needs, whose first ones
            pass its last block by).
        use_bias: adds a learned bias, drawn from U(-1/sqrt(D), 1/sqrt(D)) (a listed variant of
            the thesis; the method itself has none).

    Raises:
        ValueError: on an unknown `take`, at construction.

    Source: Qian 2020, identity head.
    """

    num_classes: int
    take: str = "first"
    use_bias: bool = False

    def __post_init__(self):
        check_choice("take", self.take, ("first", "last"))
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K > D."""
        frames.check_identity(dim, self.num_classes)

    class_vectors = linear_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        self.check_capacity(dim)
        start = dim - self.num_classes if self.take == "last" else 0
        logits = features[:, start : start + self.num_classes]
        if self.use_bias:
            logits += self.param("bias", uniform(dim**-0.5), (self.num_classes,))[None, :]
        return logits


def _walsh_hadamard(features, num_classes, distinct):
    """Computes features @ `hadamard_distinct`, or @ `hadamard`, without either matrix.

    Entry (r, c) depends on the bits that r and c share, so features that agree in the bits that
    some class has are added first; what is left is a Kronecker product of small matrices.
    """
    # Forward and backward in ms beside the product with a matrix made in the call (2 CPU cores,
    # batch 128): 64 -> 10 0.04 (0.04), 512 -> 1000 0.40 (1.43), 2048 -> 1000 0.77 (6.25),
    # 2048 -> 8192 1.6 (72; 52 if it is stored). Additions in pairs take 2 to 3.5 times as long.
    batch, dim = features.shape
    capacity = frames.hadamard_capacity(dim)
    order = min(capacity, frames.hadamard_capacity(num_classes))
    repeats = -(-num_classes // capacity)
    if distinct and repeats > 1:
        signs = frames.hadamard_signs(dim, repeats).T
        features = (features[:, None, :] * signs[None]).reshape(-1, dim)
    folded = (
        jnp.pad(features, ((0, 0), (0, -dim % order))).reshape(features.shape[0], -1, order).sum(1)
    )
    bits = order.bit_length() - 1
    parts = max(-(-bits // 6), 1)  # of up to 64 x 64: larger ones cost more than another pass
    sizes = [1 << (bits + part) // parts for part in range(parts)]
    product = folded.reshape(-1, *sizes)
    for size in sizes:  # each product takes the first axis and puts its own last
        product = jnp.tensordot(product, frames.hadamard(None, size, size), (1, 0))
    product = product.reshape(batch, -1)
    if not distinct:
        product = jnp.tile(product, (1, repeats))
    return product[:, :num_classes]
