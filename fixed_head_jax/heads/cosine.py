"""Heads that compare directions: only the angle between features and class vectors counts.

Class vectors, learned or fixed, and features are normalised in every call; a norm counts as at
least 1e-12. The margin of `CosFace` and `ArcFace` is in `training_logits`, not in the call.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from fixed_head_jax.heads import frames
from fixed_head_jax.heads.parts import Head, direction_class_vectors, fixed_kernel, norm
from fixed_head_jax.layers.initializers import uniform, uniform_fan_in
from fixed_head_jax.settings.lookup import check_choice

KERNEL_INITS = {
    "uniform": lambda rng, dim, num_classes: uniform_fan_in(rng, (dim, num_classes)),
    "random_integers": frames.random_integers,
}
SCALE_FORMS = ("softplus", "learned", "constant")
BIAS_FORMS = ("none", "inside", "outside")


class Cosine(Head):
    """Cosine similarity: logits = scale * (phi(cosine) + inside) + outside; phi is `t_vmf`.

    The defaults are Kobayashi's head, whose scale starts at 1 + ln 2 = 1.693 and stays above 1.
    Shalev et al.: `kernel_init="random_integers", scale_form="constant", init_scale=s,
    bias_form="outside"`, with `fixed` or without. NormFace: `scale_form="learned"`.

    Attributes:
        num_classes: K; any number.
        fixed: draws the class vectors once, into the collection "fixed"; otherwise they train.
        kernel_init: "uniform", U(-1/sqrt(D), 1/sqrt(D)), or "random_integers", unit vectors of
            `frames.random_integers`.
        scale_form: "softplus", 1 + softplus(a parameter); "learned", a parameter of any sign; or
            "constant".
        init_scale: the scale at initialisation, > 0, with softplus > 1. None: with softplus
            1 + ln 2, where its parameter is 0, otherwise 1.
        bias_form: "none"; "inside", learned from U(-1/sqrt(D), 1/sqrt(D)) and multiplied by the
            scale (Kobayashi); or "outside", 0.01 for every class, learned unless `fixed`, when it
            changes neither softmax nor predictions (Shalev et al.).
        kappa: concentration of `t_vmf`, > -1/2; 0 leaves the cosine as it is.

    Raises:
        ValueError: on an unknown form or `kernel_init`, or a number out of range, at construction.

    Source: Kobayashi 2021 (CVPR), Shalev et al. 2020, https://arxiv.org/abs/2011.08704 (both in
    released code); Wang et al. 2017, https://arxiv.org/abs/1704.06369 (NormFace).
    """

    num_classes: int
    fixed: bool = False
    kernel_init: str = "uniform"
    scale_form: str = "softplus"
    init_scale: float | None = None
    bias_form: str = "none"
    kappa: float = 0.0

    def __post_init__(self):
        check_choice("kernel_init", self.kernel_init, KERNEL_INITS)
        check_choice("scale_form", self.scale_form, SCALE_FORMS)
        check_choice("bias_form", self.bias_form, BIAS_FORMS)
        lowest = 1 if self.scale_form == "softplus" else 0
        if self.init_scale is not None and not lowest < self.init_scale < math.inf:
            raise ValueError(
                f"init_scale must be finite and > {lowest} with scale_form {self.scale_form!r}, "
                f"got {self.init_scale}"
            )
        if not -0.5 < self.kappa < math.inf:
            raise ValueError(f"kappa must be finite and > -0.5, got {self.kappa}")
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    compares_directions: ClassVar[bool] = True
    class_vectors = direction_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        logits = _cosines(self, features)
        if self.kappa != 0:
            # A rounding error beyond -1 would reach past the pole when kappa is close to -1/2.
            logits = t_vmf(jnp.clip(logits, -1.0, 1.0), self.kappa)
        if self.bias_form == "inside":
            bound = features.shape[-1] ** -0.5
            logits += self.param("bias", uniform(bound), (self.num_classes,))[None, :]
        logits *= _scale(self)
        if self.bias_form == "outside":
            shape, initial = (self.num_classes,), nn.initializers.constant(0.01)
            logits += 0.01 if self.fixed else self.param("bias", initial, shape)[None, :]
        return logits


class TVMF(Cosine):
    """t-vMF similarity: `Cosine` with a kappa of 16.

    Above 0, kappa sharpens the similarity around the class vector, so that features of a class
    must lie closer to it; below, it flattens. The paper uses -0.3, 4, 16 and 64.

    Source: Kobayashi 2021 (CVPR); the default is that of the released code.
    """

    kappa: float = 16.0


class CosFace(Head):
    """Additive margin: scale * cosine; in training, scale * (cosine - margin) for the label.

    Attributes:
        num_classes, fixed, kernel_init: as in `Cosine`.
        scale: constant, > 0; 64 for faces, 16 to 30 for small problems.
        margin: of the cosine, in [0, 2]; 0 is NormFace with a constant scale.

    Raises:
        ValueError: on an unknown `kernel_init` or a number out of range, at construction.

    Source: Wang et al. 2018, https://arxiv.org/abs/1801.09414, equation 4.
    """

    has_margin: ClassVar[bool] = True

    num_classes: int
    fixed: bool = False
    kernel_init: str = "uniform"
    scale: float = 64.0
    margin: float = 0.35

    def __post_init__(self):
        _check_margin_head("CosFace", self, 2.0)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    compares_directions: ClassVar[bool] = True
    class_vectors = direction_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.scale * _cosines(self, features)

    def training_logits(
        self, logits: Float[Array, "b k"], labels: Int[Array, "b"]
    ) -> Float[Array, "b k"]:
        """Applies the margin to each example's label; nothing is learned or stored here."""
        is_label = jax.nn.one_hot(labels, logits.shape[-1])
        return logits - self.scale * self.margin * is_label


class ArcFace(Head):
    """Angular margin: scale * cos(theta); in training, scale * cos(theta + margin) for the label.

    Past theta = pi - margin, where that rises again, scale * (cosine - margin sin(margin)).
    The gradient includes the margin's; one widely used code leaves it out, which trains otherwise.

    The pull of the label vanishes towards theta = pi - margin, and on features that end in ReLU
    training can end there, all features opposite to all class vectors (seen on the digits, see
    results/digits_heads.md). `easy_margin` keeps the margin to angles below 90 degrees.

    Attributes:
        num_classes, fixed, kernel_init: as in `Cosine`.
        scale: constant, > 0; 64 for faces, 16 to 30 for small problems.
        margin: of the angle in radians, in [0, pi / 2], where the label's logit is monotone.
        easy_margin: leaves labels with a cosine <= 0 without a margin, as an option of released
            code does; the label's logit then drops where the cosine passes 0.

    Raises:
        ValueError: on an unknown `kernel_init` or a number out of range, at construction.

    Source: Deng et al. 2019, https://arxiv.org/abs/1801.07698, equation 3, and released code.
    """

    has_margin: ClassVar[bool] = True

    num_classes: int
    fixed: bool = False
    kernel_init: str = "uniform"
    scale: float = 64.0
    margin: float = 0.5
    easy_margin: bool = False

    def __post_init__(self):
        _check_margin_head("ArcFace", self, math.pi / 2)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    compares_directions: ClassVar[bool] = True
    class_vectors = direction_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        return self.scale * _cosines(self, features)

    def training_logits(
        self, logits: Float[Array, "b k"], labels: Int[Array, "b"]
    ) -> Float[Array, "b k"]:
        """Applies the margin to each example's label; nothing is learned or stored here."""
        cosine = logits / self.scale
        # Strictly inside (-1, 1): the derivative of the sine is infinite at the ends.
        limit = 1 - jnp.finfo(logits.dtype).eps
        inside = jnp.clip(cosine, -limit, limit)
        sine = jnp.sqrt((1 - inside) * (1 + inside))
        shifted = inside * math.cos(self.margin) - sine * math.sin(self.margin)
        if self.easy_margin:
            shifted = jnp.where(cosine > 0, shifted, cosine)
        else:
            past = cosine < -math.cos(self.margin)
            shifted = jnp.where(past, cosine - self.margin * math.sin(self.margin), shifted)
        is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
        return jnp.where(is_label, self.scale * shifted, logits)


def t_vmf(cosine: Float[Array, "*shape"], kappa: float) -> Float[Array, "*shape"]:
    """Computes the t-vMF similarity: (1 + c) / (1 + kappa (1 - c)) - 1, from -1 to 1 as c does.

    Args:
        cosine: c, in [-1, 1].
        kappa: concentration, > -1/2; 0 gives c back.

    Source: Kobayashi 2021.
    """
    # The same fraction without a difference of nearly equal terms, whatever kappa.
    near, far = 1 + cosine, (1 + 2 * kappa) * (1 - cosine)
    return (near - far) / (near + far)


def _cosines(head, features):
    """Returns the cosines [B, K] between features and the head's class vectors."""
    draw, dim = KERNEL_INITS[head.kernel_init], features.shape[-1]
    if head.fixed:
        kernel = fixed_kernel(head, draw, dim)
    else:
        kernel = head.param("kernel", draw, dim, head.num_classes)
    # By default GPU and TPU multiply with fewer bits than float32 has.
    return jnp.matmul(
        features / norm(features, 1e-12),
        kernel / norm(kernel, 1e-12, axis=0),
        precision=jax.lax.Precision.HIGHEST,
    )


def _scale(head):
    """Returns the scale of a `Cosine`, a parameter unless constant."""
    if head.scale_form == "softplus":
        above = math.log(2) if head.init_scale is None else head.init_scale - 1
        raw = above + math.log(-math.expm1(-above))  # softplus(raw) = above
        return 1 + nn.softplus(head.param("raw_scale", nn.initializers.constant(raw), ()))
    scale = 1.0 if head.init_scale is None else head.init_scale
    if head.scale_form == "learned":
        return head.param("scale", nn.initializers.constant(scale), ())
    return scale


def _check_margin_head(kind, head, largest):
    check_choice("kernel_init", head.kernel_init, KERNEL_INITS)
    if not 0 < head.scale < math.inf:
        raise ValueError(f"{kind} needs a finite scale > 0, got {head.scale}")
    if not 0 <= head.margin <= largest:
        raise ValueError(f"{kind} needs a margin in [0, {largest:.4g}], got {head.margin}")
