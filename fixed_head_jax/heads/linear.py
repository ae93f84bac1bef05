"""The learned linear head: the baseline of every comparison."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.heads.parts import Head, linear_class_vectors
from fixed_head_jax.layers.initializers import he_normal_fan_in, uniform, uniform_fan_in
from fixed_head_jax.settings.lookup import check_choice

KERNEL_INITS = {
    "uniform": uniform_fan_in,
    "he_normal": he_normal_fan_in,
    "normal": nn.initializers.normal(0.01),
}


class Linear(Head):
    """Learned classifier: logits = features @ kernel + bias, times `class_scales` if set.

    Attributes:
        num_classes: K.
        kernel_init: "uniform", U(-1/sqrt(D), 1/sqrt(D)); "he_normal", N(0, 2/D), which the thesis
            uses for its CIFAR ResNets; or "normal", N(0, 0.01^2), MobileNetV2's.
        use_bias: adds a bias: zeros with "normal", otherwise from U(-1/sqrt(D), 1/sqrt(D)).
        class_scales: multiplies each class' logit, bias included, by a parameter that starts at 1:
            learnable weight scaling (Kang et al.). Usually it alone learns, in a second stage that
            starts from a trained kernel and bias and freezes all else, with
            `model.frozen_backbone` and `optim.frozen=("^head/(kernel|bias)$",)`.

    Raises:
        ValueError: on an unknown `kernel_init`, at construction.

    Source: of `class_scales`, Kang et al. 2020, https://arxiv.org/abs/1910.09217 (LWS), with the
    bias inside, as in released code.
    """

    num_classes: int
    kernel_init: str = "uniform"
    use_bias: bool = True
    class_scales: bool = False

    def __post_init__(self):
        check_choice("kernel_init", self.kernel_init, KERNEL_INITS)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    class_vectors = linear_class_vectors

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        shape = (dim, self.num_classes)
        logits = features @ self.param("kernel", KERNEL_INITS[self.kernel_init], shape, jnp.float32)
        if self.use_bias:
            bound = 0.0 if self.kernel_init == "normal" else dim**-0.5
            logits += self.param("bias", uniform(bound), (self.num_classes,))[None, :]
        if self.class_scales:
            scales = self.param("class_scales", nn.initializers.ones, (self.num_classes,))
            logits *= scales[None, :]
        return logits
