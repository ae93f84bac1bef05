"""Public weights: what there is for each backbone, where it lies and what images it expects.

To add weights, add a row to `_ROWS`. Other names of the same two places can be given as well: this
table is for the listing, for hints at misspelt names and for `preprocessing_of`.
"""

from importlib import resources
from pathlib import Path
from typing import NamedTuple

TORCHVISION = "https://download.pytorch.org/models/"  # FILE.pth, its checksum in the name
HUB_OWNER, HUB_FILE = "timm", "model.safetensors"  # in the repository OWNER/NAME of the hub


class Preprocessing(NamedTuple):
    """How images become what weights expect; the fields are the keys of `data` in a config.

    Attributes:
        image_size: side of the centre crop, in pixels.
        resize_size: shorter side before it, in pixels.
        interpolation: of the resize, "bilinear" or "bicubic".
        mean, std: of pixels in [0, 1], per channel.
    """

    image_size: int
    resize_size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Weights(NamedTuple):
    """Public weights.

    Attributes:
        backbone: the name of ours that they fit.
        top1: published accuracy on ImageNet's validation images, in percent; None where they have
            no classifier, or none is published for this preprocessing.
        preprocessing: of the images.
    """

    backbone: str
    top1: float | None
    preprocessing: Preprocessing


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_BILINEAR = Preprocessing(224, 256, "bilinear", *IMAGENET)
_BILINEAR_232 = _BILINEAR._replace(resize_size=232)
_BICUBIC_235 = Preprocessing(224, 235, "bicubic", *IMAGENET)
_BICUBIC_248 = Preprocessing(224, 248, "bicubic", *IMAGENET)
_AUGREG = Preprocessing(224, 248, "bicubic", *_HALF)
_ROWS = (
    ("torchvision:resnet18-f37072fd", "resnet18", 69.758, _BILINEAR),
    ("timm:resnet18.a1_in1k", "resnet18", None, _BICUBIC_235),
    ("torchvision:resnet34-b627a593", "resnet34", 73.314, _BILINEAR),
    ("timm:resnet34.a1_in1k", "resnet34", None, _BICUBIC_235),
    ("torchvision:resnet50-0676ba61", "resnet50", 76.130, _BILINEAR),
    ("torchvision:resnet50-11ad3fa6", "resnet50", 80.858, _BILINEAR_232),
    ("timm:resnet50.a1_in1k", "resnet50", None, _BICUBIC_235),
    ("torchvision:mobilenet_v2-b0353104", "mobilenet_v2", 71.878, _BILINEAR),
    ("torchvision:mobilenet_v2-7ebf99e0", "mobilenet_v2", 72.154, _BILINEAR_232),
    ("torchvision:shufflenetv2_x0.5-f707e7126e", "shufflenet_v2_x0_5", 60.552, _BILINEAR),
    ("torchvision:shufflenetv2_x1-5666bf0f80", "shufflenet_v2_x1_0", 69.362, _BILINEAR),
    ("timm:inception_v4.tf_in1k", "inception_v4", 80.144,
     Preprocessing(299, 341, "bicubic", *_HALF)),
    ("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_tiny", 75.454, _AUGREG),
    ("timm:vit_small_patch16_224.augreg_in21k_ft_in1k", "vit_small", 81.384, _AUGREG),
    ("timm:vit_small_patch16_224.augreg_in1k", "vit_small", None, _AUGREG),
    ("timm:vit_small_patch16_224.dino", "vit_small", None, _BICUBIC_248),
    ("timm:vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_base", 84.532, _AUGREG),
    ("timm:vit_base_patch16_224.augreg_in1k", "vit_base", None, _AUGREG),
    ("timm:vit_base_patch16_224.dino", "vit_base", None, _BICUBIC_248),
    ("timm:deit_tiny_patch16_224.fb_in1k", "deit_tiny", 72.172, _BICUBIC_248),
    ("timm:deit_small_patch16_224.fb_in1k", "deit_small", 79.844, _BICUBIC_248),
)  # fmt: skip
KNOWN = {name: Weights(*weights) for name, *weights in _ROWS}


def imagenet_class_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes, in the order of public classifiers.

    The first English word of each WordNet synset, as far as it tells two of them apart; the
    order is that of the synsets' numbers, as of all sorted folders of ImageNet.
    """
    lines = resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8")
    return tuple(line.partition(" ")[2] for line in lines.splitlines())


def preprocessing_of(source: str | Path) -> Preprocessing | None:
    """Returns what images known weights expect, see `find`; None of others."""
    weights = find(source)
    return weights and weights.preprocessing


def find(source: str | Path) -> Weights | None:
    """Returns the row of the table that weights are of, None of weights that are not in it.

    Args:
        source: a name of `KNOWN`, or a file that is called as the weights are.
    """
    name = Path(source).name.removesuffix(".safetensors").removesuffix(".pth")
    for known, weights in KNOWN.items():
        if name in (known, known.partition(":")[2]):
            return weights
    return None
