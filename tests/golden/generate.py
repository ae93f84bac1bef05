"""Writes the reference outputs of this folder with torch, torchvision and timm (see README.md).

    python tests/golden/generate.py

Needs torch 2.13, torchvision 0.29 and timm 1.0, which the tests themselves do not. No weights are
stored: `weight` makes every tensor from its name, with numpy alone.
"""

import copy
import json
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHOWN = 100  # outputs kept per image


def weight(name, shape):
    """Returns the tensor of a state dict's entry, in torch's layout."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("running_mean"):
        return (0.1 * rng.randn(*shape)).astype(np.float32)
    if len(shape) >= 2:
        return (rng.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if name.endswith("weight"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.randn(*shape)).astype(np.float32)


def images(batch, resolution, seed):
    """Returns images [B, H, W, 3]."""
    rng = np.random.RandomState(seed)
    return rng.randn(batch, 3, resolution, resolution).astype(np.float32).transpose(0, 2, 3, 1)


# Backbone: resolution and batch of "eval", resolution of "other" (batch 2) and "train" (batch 4).
CASES = {
    "resnet10": (224, 1, 97, 64),
    "resnet18": (64, 2, 97, 64),
    "resnet50": (64, 2, 97, 64),
    "stl_resnet18": (96, 2, 64, 32),
    "densenet_bc_100_12": (32, 2, 45, 32),
    "mobilenet_v2": (64, 2, 97, 64),
    "shufflenet_v2_x0_5": (64, 2, 97, 64),
    "inception_v4": (107, 2, 139, 107),
    "deit_small": (224, 1, 96, 96),
    "vit_tiny": (224, 1, 96, 96),
}


def _models():
    import timm
    import torch
    from torchvision import models

    def stl(block=models.resnet.BasicBlock):
        model = models.ResNet(block, [2, 2, 2, 2])
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool, model.fc = torch.nn.Identity(), torch.nn.Identity()
        model.avgpool = torch.nn.AvgPool2d(4)
        return model

    def resnet10():
        model = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
        model.fc = torch.nn.Identity()
        return model

    def densenet():
        model = models.DenseNet(12, (16, 16, 16), 24, 4, num_classes=10)
        model.features.conv0 = torch.nn.Conv2d(3, 24, 3, 1, 1, bias=False)
        for name in ("norm0", "relu0", "pool0"):
            delattr(model.features, name)
        return model

    def mobilenet():
        model = models.mobilenet_v2()
        model.classifier[0].p = 0.0
        return model

    return {
        "resnet10": resnet10,
        "resnet18": models.resnet18,
        "resnet50": models.resnet50,
        "stl_resnet18": stl,
        "densenet_bc_100_12": densenet,
        "mobilenet_v2": mobilenet,
        "shufflenet_v2_x0_5": models.shufflenet_v2_x0_5,
        "inception_v4": lambda: timm.create_model("inception_v4"),
        "deit_small": lambda: timm.create_model("deit_small_patch16_224"),
        "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224"),
    }


def _resize_positions(model, resolution):
    """Gives a ViT the position embeddings of another resolution, as Self-Classifier does."""
    import torch

    size = resolution // 16
    table = model.pos_embed.data
    grid = table[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    scale = (size + 0.1) / 14
    grid = torch.nn.functional.interpolate(
        grid, scale_factor=(scale, scale), mode="bicubic", recompute_scale_factor=False
    )
    grid = grid.permute(0, 2, 3, 1).reshape(1, size * size, -1)
    model.pos_embed = torch.nn.Parameter(torch.cat([table[:, :1], grid], 1))
    model.patch_embed.img_size, model.patch_embed.strict_img_size = None, False


def main():
    import torch

    for name, make in _models().items():
        resolution, batch, other, train = CASES[name]
        model = make()
        keys = {
            key: list(value.shape)
            for key, value in model.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        # The code of Shalev et al. calls the projections of its ResNet-18 shortcuts.
        public = {
            key: key.replace("downsample", "shortcut") if name == "stl_resnet18" else key
            for key in keys
        }
        made = {key: torch.from_numpy(weight(public[key], keys[key])) for key in keys}
        model.load_state_dict(made, strict=False)

        def run(model, batch, resolution, seed):
            x = torch.from_numpy(images(batch, resolution, seed).transpose(0, 3, 1, 2).copy())
            with torch.no_grad():
                return model(x.to(next(model.parameters()).dtype)).numpy()[:, :SHOWN]

        model.eval()
        arrays = {"eval": run(model, batch, resolution, 0)}
        if "it" in name:  # ViTs
            _resize_positions(model, other)
        arrays["other"] = run(model, 2, other, 1)
        exact = copy.deepcopy(model).double().train()
        reference = run(exact, 4, train, 2)
        error = np.abs(run(model.train(), 4, train, 2) - reference).max()
        arrays["train"] = reference.astype(np.float32)
        arrays["train_error"] = np.array(error / reference.std())
        stats = [(k, v) for k, v in exact.state_dict().items() if "running_" in k]
        arrays["stats"] = np.array([float(value.double().mean()) for _, value in stats])
        arrays["stats_of"] = np.array(json.dumps([public[key] for key, _ in stats]))
        arrays["keys"] = np.array(json.dumps({public[key]: keys[key] for key in keys}))
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


if __name__ == "__main__":
    main()
