"""Heads whose class vectors are fixed: drawn once, or computed in the call, and never learned.

What is drawn is stored in the collection "fixed", out of the optimizer's reach; what can be
computed again (Hadamard, identity) is stored nowhere.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads import frames
from fixed_head_jax.initializers import uniform


class Random(nn.Module):
    """Random class vectors, dot product: logits = features @ kernel + bias; nothing is learned.

    The bias is one constant, the same for every class, so softmax, loss and predictions do not
    depend on it; it is there so that the logits equal the published ones.

    Attributes:
        num_classes: K; any number.
        bias: the constant added to every logit.

    Source: Shalev et al. 2020, https://arxiv.org/abs/2011.08704, fixed dot product.
    """

    num_classes: int
    bias: float = 0.01

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        kernel = _fixed_kernel(self, frames.random_integers, features.shape[-1])
        return features @ kernel + self.bias


class Orthogonal(nn.Module):
    """Random semi-orthogonal class vectors: logits = scale * features @ kernel + bias.

    The defaults are the thesis' form, without scale. Hoffer et al. normalise the features and
    learn the scale: `normalize_features=True, init_scale=10.0, bias_init="zeros"` (they divide by
    a norm of zero unguarded; here it is at least 1e-12).

    Attributes:
        num_classes: K; any number, but only up to D are the class vectors orthonormal.
        normalize_features: divides the features by their norm.
        init_scale: initial value of the learned scale; None leaves it out.
        use_bias: adds a learned bias.
        bias_init: "uniform", U(-1/sqrt(D), 1/sqrt(D)), or "zeros".

    Raises:
        ValueError: on an unknown `bias_init`, at construction.

    Source: Qian 2020, section 3; Hoffer et al. 2018, https://arxiv.org/abs/1801.04540.
    """

    num_classes: int
    normalize_features: bool = False
    init_scale: float | None = None
    use_bias: bool = True
    bias_init: str = "uniform"

    def __post_init__(self):
        if self.bias_init not in ("uniform", "zeros"):
            raise ValueError(f"unknown bias_init {self.bias_init!r}; known: uniform, zeros")
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        x = features / _norm(features, 1e-12) if self.normalize_features else features
        logits = x @ _fixed_kernel(self, frames.orthogonal, dim)
        if self.init_scale is not None:
            logits *= self.param("scale", nn.initializers.constant(self.init_scale), ())
        if self.use_bias:
            bound = dim**-0.5 if self.bias_init == "uniform" else 0.0
            logits += self.param("bias", uniform(bound), (self.num_classes,))[None, :]
        return logits


class Hadamard(nn.Module):
    """Hadamard class vectors: logits = -scale * features / (|features| + 1e-8) @ kernel + bias.

    This is the form behind the published numbers. Equation 3.6 of the thesis has neither the
    minus nor the normalisation: `negate_scale=False, normalize_features=False`. The signs are not
    interchangeable: class 0 is all ones, so with features >= 0 (any backbone that ends in ReLU)
    it gets the largest projection for every image with a plus, the smallest with a minus, and
    only the bias can set it apart.

    Attributes:
        num_classes: K, at most `frames.hadamard_capacity(D)` unless `allow_repeated`.
        negate_scale: multiplies by -scale instead of scale.
        normalize_features: divides the features by their norm + 1e-8.
        learn_scale: makes the scale a parameter; otherwise it stays at `init_scale`.
        init_scale: None means 1/sqrt(K).
        use_bias: adds a learned bias, drawn from U(-1/sqrt(K), 1/sqrt(K)): K, not D.
        allow_repeated: accepts more classes than there are distinct class vectors, as published
            runs did; images of classes that share a vector cannot be told apart.

    Source: Hoffer et al. 2018, https://arxiv.org/abs/1801.04540 (released code); Qian 2020.
    """

    num_classes: int
    negate_scale: bool = True
    normalize_features: bool = True
    learn_scale: bool = True
    init_scale: float | None = None
    use_bias: bool = True
    allow_repeated: bool = False

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if class vectors would repeat, unless `allow_repeated`."""
        capacity = frames.hadamard_capacity(dim)
        if self.num_classes > capacity and not self.allow_repeated:
            raise ValueError(
                f"hadamard has {capacity} distinct class vectors for {dim} features, got "
                f"num_classes={self.num_classes}: {self.num_classes - capacity} of them would "
                "repeat another class and never be predicted; use head 'orthogonal', or a "
                f"backbone with more than {frames.hadamard_capacity(self.num_classes) // 2} "
                f"features (backbone_options.out_channels={self.num_classes} where it has it), or "
                "head_options.allow_repeated=True to build it as published"
            )

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim, num_classes = features.shape[-1], self.num_classes
        self.check_capacity(dim)
        # The guard of 1e-8 is added, as published; the 1e-15 only keeps the gradient finite.
        x = features / (_norm(features, 1e-15) + 1e-8) if self.normalize_features else features
        scale = num_classes**-0.5 if self.init_scale is None else self.init_scale
        if self.learn_scale:
            scale = self.param("scale", nn.initializers.constant(scale), ())
        logits = (-scale if self.negate_scale else scale) * (
            x @ frames.hadamard(None, dim, num_classes)
        )
        if self.use_bias:
            logits += self.param("bias", uniform(num_classes**-0.5), (num_classes,))[None, :]
        return logits


class Identity(nn.Module):
    """No classifier: the logit of class k is feature k; features from K on get no gradient.

    Attributes:
        num_classes: K, at most D.
        use_bias: adds a learned bias, drawn from U(-1/sqrt(D), 1/sqrt(D)) (a listed variant of
            the thesis; the method itself has none).

    Source: Qian 2020, identity head.
    """

    num_classes: int
    use_bias: bool = False

    def check_capacity(self, dim: int) -> None:
        """Raises ValueError if K > D."""
        frames.check_identity(dim, self.num_classes)

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        self.check_capacity(dim)
        logits = features[:, : self.num_classes]
        if self.use_bias:
            logits += self.param("bias", uniform(dim**-0.5), (self.num_classes,))[None, :]
        return logits


def _fixed_kernel(head, frame, dim):
    """Returns the head's class vectors [D, K], drawn when it is initialised."""

    def draw():
        return frame(head.make_rng("params"), dim, head.num_classes)

    return head.variable("fixed", "kernel", draw).value


def _norm(features, minimum):
    """Returns the norms [B, 1], at least `minimum`."""
    # Clamped before the root, whose gradient at zero is infinite.
    return jnp.sqrt(jnp.maximum(jnp.sum(features**2, -1, keepdims=True), minimum**2))
