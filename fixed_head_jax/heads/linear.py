"""The learned linear head: the baseline of every comparison."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fixed_head_jax.initializers import he_normal_fan_in, uniform, uniform_fan_in
from fixed_head_jax.lookup import check_choice

KERNEL_INITS = {
    "uniform": uniform_fan_in,
    "he_normal": he_normal_fan_in,
    "normal": nn.initializers.normal(0.01),
}


class Linear(nn.Module):
    """Learned classifier: logits = features @ kernel + bias.

    Attributes:
        num_classes: K.
        kernel_init: "uniform", U(-1/sqrt(D), 1/sqrt(D)); "he_normal", N(0, 2/D), which the thesis
            uses for its CIFAR ResNets; or "normal", N(0, 0.01^2), MobileNetV2's.
        use_bias: adds a bias: zeros with "normal", otherwise from U(-1/sqrt(D), 1/sqrt(D)).

    Raises:
        ValueError: on an unknown `kernel_init`, at construction.
    """

    num_classes: int
    kernel_init: str = "uniform"
    use_bias: bool = True

    def __post_init__(self):
        check_choice("kernel_init", self.kernel_init, KERNEL_INITS)
        super().__post_init__()

    def check_capacity(self, dim: int) -> None:
        """Any number of classes fits."""

    @nn.compact
    def __call__(self, features: Float[Array, "b d"]) -> Float[Array, "b k"]:
        dim = features.shape[-1]
        shape = (dim, self.num_classes)
        logits = features @ self.param("kernel", KERNEL_INITS[self.kernel_init], shape, jnp.float32)
        if self.use_bias:
            bound = 0.0 if self.kernel_init == "normal" else dim**-0.5
            logits += self.param("bias", uniform(bound), (self.num_classes,))[None, :]
        return logits
