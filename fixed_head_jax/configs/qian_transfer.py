"""Transfer to Cars-196 and Flowers-102 without a classifier: Table 5.5 of Qian's thesis (2020).

    python main.py --config=configs/qian_transfer.py:cars,resnet18 --sweep \\
        --workdir=runs/cars_resnet18 --config.init_from=resnet18.safetensors

(and `--config.data_dir=DIR`). A data set (`cars`, default, or `flowers`) and a network (`resnet18`,
default, `resnet50`, `mobilenet_v2`, `shufflenet_v2_x0_5`) per workdir, since each network starts
from its own public ImageNet weights; the sweep trains it with a learned head and with identity,
which leaves the head and the replaced last convolution out of them (`init_skip`). Without
`init_from` a run is refused; `--config.init_skip="()"` trains from scratch, which is not the
experiment. Published top-1 % (mean of 3) is in `TABLE`. Not measured here yet.

Recipe: SGD, momentum 0.9, batch 64, 40 epochs, divided by 10 at 30; the rate, 0.01, and the weight
decay were found by a grid search, on images not stated. `cars,resnet18,grid --sweep` is one around
these values, for both heads, evaluated on training images held out and never on the test set.
Not legible: ShuffleNetV2's rate, 0.01 or 0.1 (`--config.optim.lr=0.1`). Not stated: the split of
Flowers; here training and validation images, 2040 (`--config.data.train_split=train`: 1020).
Inferred from the published savings: ResNet-18 learns the shortcut around the new convolution.
Not stated, assumed: random-resized crops to 224, tests on the central 224 pixels of 256.
"""

from fixed_head_jax.configs import common

# TFDS name, training split, classes; then the splits that the grid trains and evaluates on.
DATA = {
    "cars": ("cars196", "train", 196, "train[:80%]", "train[80%:]"),
    "flowers": ("oxford_flowers102", "train+validation", 102, "train", "validation"),
}
# Weight decays of the grid, the published one in the middle; what surgery replaces or adds.
NETWORKS = {
    "resnet18": ((1e-4, 1e-3, 1e-2), r"^layer4\.1\.(conv2|bn2|downsample)\."),
    "resnet50": ((1e-5, 1e-4, 1e-3), r"^layer4\.2\.(conv3|bn3)\."),
    "mobilenet_v2": ((1e-5, 1e-4, 1e-3), r"^features\.18\."),
    "shufflenet_v2_x0_5": ((1e-5, 1e-4, 1e-3), r"^conv5\."),
}
# Published accuracy of the learned head and of identity.
TABLE = {
    ("cars", "resnet18"): {"linear": 88.12, "identity": 86.06},
    ("cars", "resnet50"): {"linear": 89.90, "identity": 90.35},
    ("cars", "mobilenet_v2"): {"linear": 87.68, "identity": 86.12},
    ("cars", "shufflenet_v2_x0_5"): {"linear": 77.99, "identity": 75.76},
    ("flowers", "resnet18"): {"linear": 93.42, "identity": 92.78},
    ("flowers", "resnet50"): {"linear": 95.06, "identity": 94.64},
    ("flowers", "mobilenet_v2"): {"linear": 94.24, "identity": 93.95},
    ("flowers", "shufflenet_v2_x0_5"): {"linear": 87.75, "identity": 86.34},
}
HEADS = ("linear", "identity")


def get_config(arg: str = ""):
    variants = common.variants(arg, (*DATA, *NETWORKS, *HEADS, "grid", "smoke"))
    data, network = _chosen(variants)
    config = common.get_config()
    config.data.name, config.data.train_split = DATA[data][:2]
    common.imagenet_images(config)
    config.model.backbone = network
    if network == "resnet18":
        config.model.backbone_options.out_shortcut = "projection"
    config.batch_size, config.total_epochs = 64, 40.0
    config.optim.lr, config.optim.weight_decay = 0.01, NETWORKS[network][0][1]
    config.optim.schedule, config.optim.milestones = "step", (30,)
    head = common.choose(variants, HEADS, "identity")
    config.update_from_flattened_dict(_overrides(data, network, head))
    if "smoke" in variants:
        config.init_skip = ()  # there are no weights to leave them out of
        config = common.smoke(config, image_size=32)
    return config


def get_sweep(arg: str = ""):
    """The two rows of the table for a data set and a network, or with `grid` the grid search."""
    data, network = _chosen(arg.split(","))
    if "grid" in arg.split(","):
        return _grid(data, network)
    rows = [
        {
            "name": f"{data}_{network}_{head}",
            "overrides": _overrides(data, network, head),
            "published": accuracy,
        }
        for head, accuracy in TABLE[data, network].items()
    ]
    return {"baseline": rows[0]["name"], "seeds": (0, 1, 2), "rows": rows, "table": "table5_5"}


def _grid(data, network):
    """Both heads at rates and weight decays around the published ones, without the test images."""
    name = f"{data}_{network}_{{}}_lr{{:g}}_decay{{:g}}".format
    decays = NETWORKS[network][0]
    train_split, eval_split = DATA[data][3:]
    rows = [
        {
            "name": name(head, lr, decay),
            "overrides": {
                **_overrides(data, network, head),
                "data.train_split": train_split,
                "data.eval_split": eval_split,
                "optim.lr": lr,
                "optim.weight_decay": decay,
            },
            "published": None,
            "baseline": name(head, 0.01, decays[1]),
        }
        for head in HEADS
        for lr in (0.001, 0.01, 0.1)
        for decay in decays
    ]
    return {"baseline": rows[4]["name"], "seeds": (0,), "rows": rows, "table": "grid"}


def _chosen(variants):
    data = common.choose(variants, DATA, "cars")
    return data, common.choose(variants, NETWORKS, "resnet18")


def _overrides(data, network, head):
    surgery = head == "identity"
    return {
        "model.head": head,
        "model.backbone_options.out_channels": DATA[data][2] if surgery else None,
        "model.dropout": 0.2 if network == "mobilenet_v2" and not surgery else 0.0,
        "init_skip": ("^head", NETWORKS[network][1]) if surgery else ("^head",),
    }
