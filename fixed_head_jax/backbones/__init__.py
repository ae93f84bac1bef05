"""Backbones: images [B, H, W, C] (normalised, float) -> feature map [B, h, w, D].

A backbone is a linen module called as `backbone(images, train)`. It has `num_features` (D), the
fields `dtype`, `axis_name`, `remat` and, where the thesis modifies it, `out_channels`; `layers`,
its layers from the image up, each a tuple of paths of submodules that together hold every
parameter; `torch_head`, the name of the classifier in torch state dicts; and, where it needs them,
`torch_has_background` (an older public classifier has a first row for no class),
`resample(name, value)` (brings a weight for another image size to its own) and `head_defaults`,
options by head that differ from the head's own. Submodules are named as in torchvision or timm. To
add one, write it in a file of its own and name it in `BACKBONES`; the contract tests cover it from
there.
"""

from collections.abc import Callable

from flax import linen as nn

from fixed_head_jax.backbones import (
    cifar_resnet,
    densenet,
    inception_v4,
    mobilenet_v2,
    resnet,
    shufflenet_v2,
    vit,
)
from fixed_head_jax.settings import lookup

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet10": resnet.resnet10,
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "stl_resnet18": resnet.stl_resnet18,
    "resnet20": cifar_resnet.resnet20,
    "resnet32": cifar_resnet.resnet32,
    "resnet44": cifar_resnet.resnet44,
    "resnet56": cifar_resnet.resnet56,
    "densenet_bc_100_12": densenet.densenet_bc_100_12,
    "mobilenet_v2": mobilenet_v2.MobileNetV2,
    "shufflenet_v2_x0_5": shufflenet_v2.shufflenet_v2_x0_5,
    "shufflenet_v2_x1_0": shufflenet_v2.shufflenet_v2_x1_0,
    "inception_v4": inception_v4.InceptionV4,
    "vit_tiny": vit.vit_tiny,
    "vit_small": vit.vit_small,
    "vit_base": vit.vit_base,
    "deit_tiny": vit.deit_tiny,
    "deit_small": vit.deit_small,
}


def get_backbone(name: str, **options) -> nn.Module:
    """Builds the backbone `name`; raises ValueError on an unknown name or option."""
    return lookup.build("backbone", BACKBONES, name, options)
