"""Fixed heads on CIFAR-100, Table 5.1 of Qian's thesis (2020): ResNet-32 and DenseNet-BC.

    python main.py --config=configs/qian_cifar100.py --workdir=runs/cifar100 --config.data_dir=DIR

`--sweep` runs the whole table. Published (top-1 %, 100 classes): ResNet-32 learned 69.46,
orthogonal 68.61, Hadamard 44.86; with 100 channels learned 70.23, identity 69.98; DenseNet-BC
77.61, 76.68, 75.84, identity 76.90. With the 64-class subset (here the first 64): 73.94, 73.92,
73.97, identity 74.25. Not measured here yet.

Variants: a head (`linear`, `orthogonal`, `hadamard`, `identity`) and a network (`resnet32`, `wide`
with 100 channels, `densenet`, `classes64`), e.g. `qian_cifar100.py:wide,identity`, the default.
Table 4.1: SGD 0.1, momentum 0.9, weight decay 1e-4; ResNet-32 batch 128, divided by 10 at epochs 81
and 122 of 164; DenseNet-BC batch 64, at 150 and 225 of 300.
"""

from fixed_head_jax.configs import common

HEADS = ("linear", "orthogonal", "hadamard", "identity")
# Network: rows of the table, by head, with the published accuracy.
TABLE = {
    "resnet32": {"linear": 69.46, "orthogonal": 68.61, "hadamard": 44.86},
    "wide": {"linear": 70.23, "identity": 69.98},
    "densenet": {"linear": 77.61, "orthogonal": 76.68, "hadamard": 75.84, "identity": 76.90},
    "classes64": {"linear": 73.94, "orthogonal": 73.92, "hadamard": 73.97, "identity": 74.25},
}


def get_config(arg: str = ""):
    variants = common.variants(arg, (*HEADS, *TABLE, "smoke"))
    config = common.get_config()
    config.data.name = "cifar100"
    config.data.mean, config.data.std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    config.augment.pad_crop, config.augment.flip = 4, True
    config.optim.lr, config.optim.weight_decay = 0.1, 1e-4
    config.optim.schedule = "step"
    network = common.choose(variants, TABLE, "wide")
    head = common.choose(variants, HEADS, "identity")
    config.update_from_flattened_dict(_overrides(network, head))
    return common.smoke(config) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Every row of the table; the gaps are to the learned head of the same network."""
    del arg  # one table
    rows = [
        {
            "name": f"{network}_{head}",
            "overrides": _overrides(network, head),
            "published": accuracy,
            "baseline": f"{network}_linear",
        }
        for network, heads in TABLE.items()
        for head, accuracy in heads.items()
    ]
    return {"baseline": "wide_linear", "seeds": (0, 1, 2), "rows": rows}


def _overrides(network, head):
    dense = network == "densenet"
    return {
        "model.backbone": "densenet_bc_100_12" if dense else "resnet32",
        "model.backbone_options.out_channels": 100 if network == "wide" else None,
        "model.head": head,
        "data.first_classes": 64 if network == "classes64" else 0,
        "batch_size": 64 if dense else 128,
        "total_epochs": 300.0 if dense else 164.0,
        "optim.milestones": (150, 225) if dense else (81, 122),
        # As published: 36 of the 100 classes share another one's vector.
        "model.head_options.allow_repeated": True if head == "hadamard" else None,
        "model.head_options.kernel_init": "he_normal" if head == "linear" and not dense else None,
    }
