"""ImageNet with a fixed classifier or none: Tables 5.2, 5.3, 5.4 and 5.6 of Qian's thesis (2020).

    python main.py --config=configs/qian_imagenet.py:table5_4 --sweep --workdir=runs/imagenet

(and `--config.data_dir=DIR`). The tables can share a workdir: `table5_2` (default; ResNet-18),
`table5_3` (MobileNetV2, ShuffleNetV2 x0.5), `table5_4` (ResNet-18, the first 8 to 512 classes),
`table5_6` and `poolings` (attempts to improve the identity head; reported as no gain, the numbers
not legible or left out). Published top-1 % is in `TABLES`; the gaps of Table 5.2 printed as -3.27
and -1.53 are 3.28 and 1.54 between its own accuracies. The learned networks with 1000 classes were
not trained there: they are the library's public weights. Not measured here yet.

One run: network, head and `classesK` (the first K), e.g. `qian_imagenet.py:mobilenet_v2,linear`;
default ResNet-18, identity, all 1000 classes. With identity, ResNet-18 takes its first K features
up to 512 classes; beyond, in the other networks and with `surgery`, its last convolution has K
channels instead. The shortcut around it is padded with zeros in ResNet-18, or learned with
`--config.model.backbone_options.out_shortcut=projection`.
Not stated, assumed: random-resized crops to 224, tests on the central 224 pixels of 256.
Not stated, our choice: the 100 classes (the first), seeds outside Table 5.4, RMSProp's constants, a
linear rate that falls by iteration, penalties (of weight 0.025) on every convolution. Power and
attention pooling lose the class maps.
"""

from fixed_head_jax.configs import common

# Optimizer, rate, schedule, its factor, held within an epoch; weight decay, batch size, epochs.
RECIPES = {
    "resnet18": ("sgd", 0.1, "step", 0.1, False, 1e-4, 256, 90.0),
    "mobilenet_v2": ("rmsprop", 0.02, "exponential", 0.98, True, 4e-5, 256, 100.0),
    "shufflenet_v2_x0_5": ("sgd", 0.5, "linear", 0.1, False, 4e-5, 1024, 240.0),
}
HEADS = ("linear", "orthogonal", "hadamard", "identity", "surgery")
CLASSES = {f"classes{count}": count for count in (8, 16, 32, 64, 100, 128, 256, 512, 1000)}
# Network and classes: rows of the table, by head, with the published accuracy.
TABLES: dict[str, dict[tuple[str, int], dict]] = {
    "table5_2": {
        ("resnet18", 1000): {"linear": 69.76, "orthogonal": 66.48},
        ("resnet18", 512): dict(linear=77.87, orthogonal=77.29, hadamard=76.33, identity=77.59),
    },
    "table5_3": {
        ("shufflenet_v2_x0_5", 1000): {"linear": 60.55, "identity": 53.06},
        ("mobilenet_v2", 1000): {"linear": 71.88, "identity": 71.03},
        ("shufflenet_v2_x0_5", 100): {"linear": 72.94, "identity": 74.42},
    },
    "table5_4": {
        ("resnet18", 8): {"linear": 74.92, "hadamard": 74.00, "identity": 76.58},
        ("resnet18", 16): {"linear": 83.21, "hadamard": 81.25, "identity": 83.71},
        ("resnet18", 32): {"linear": 83.64, "hadamard": 81.38, "identity": 83.50},
        ("resnet18", 64): {"linear": 75.51, "hadamard": 72.23, "identity": 75.63},
        ("resnet18", 128): {"linear": 77.98, "hadamard": 73.82, "identity": 78.36},
        ("resnet18", 256): {"linear": 79.03, "hadamard": 77.52, "identity": 78.54},
        ("resnet18", 512): {"linear": 77.87, "hadamard": 76.33, "identity": 77.59},
    },
    "table5_6": {("resnet18", 100): {"linear": None, "surgery": None}},
    "poolings": {("resnet18", 100): {"linear": None, "surgery": None}},
}
# Changes to the surgery of ResNet-18 with 100 classes: more rows. Power 1 is the plain mean.
ATTEMPTS: dict[str, dict[str, dict]] = {
    "table5_6": {
        "orthogonal_last": {"model.orthogonal_init": (r"^backbone/layer4\.1/conv2/kernel$",)},
        "orthogonal_all": {"model.orthogonal_init": ("^backbone/.*kernel$",)},
        "so": {"task.options.orthogonality": "soft"},
        "dso": {"task.options.orthogonality": "double_soft"},
        "relu": {"model.relu_before_pool": True},
        "max": {"model.pool": "max"},
    },
    "poolings": {
        **{
            f"power{p:g}": {"model.pool": "power", "model.pool_options.p": p}
            for p in (0.5, 1.5, 2.0, 4.0)
        },
        **{
            f"attention{units}": {"model.pool": "attention", "model.pool_options.units": units}
            for units in (32, 64, 128, 256, 512, 1024)
        },
    },
}


def get_config(arg: str = ""):
    variants = common.variants(arg, (*RECIPES, *HEADS, *CLASSES, *TABLES, "smoke"))
    config = common.get_config()
    config.data.name, config.data.eval_split = "imagenet2012", "validation"
    common.imagenet_images(config)
    config.optim.milestones = (30, 60)  # of the step schedule
    network = common.choose(variants, RECIPES, "resnet18")
    head = common.choose(variants, HEADS, "identity")
    classes = CLASSES[common.choose(variants, CLASSES, "classes1000")]
    config.update_from_flattened_dict(_overrides(network, classes, head))
    return common.smoke(config, image_size=32) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Every row of one table; gaps are to the learned head of the same network and classes."""
    table = common.choose(arg.split(","), TABLES, "table5_2")
    rows = [
        {
            "name": f"{network}_{classes}_{head}",
            "overrides": _overrides(network, classes, head),
            "published": accuracy,
            "baseline": f"{network}_{classes}_linear",
        }
        for (network, classes), heads in TABLES[table].items()
        for head, accuracy in heads.items()
    ]
    rows += [
        {
            "name": f"resnet18_100_surgery_{name}",
            "overrides": {**_overrides("resnet18", 100, "surgery"), **changes},
            "published": None,
            "baseline": "resnet18_100_surgery",
        }
        for name, changes in ATTEMPTS.get(table, {}).items()
    ]
    return {"baseline": rows[0]["name"], "seeds": (0, 1, 2), "rows": rows, "table": table}


def _overrides(network, classes, head):
    name, lr, schedule, factor, per_epoch, weight_decay, batch_size, epochs = RECIPES[network]
    truncates = head == "identity" and network == "resnet18" and classes <= 512
    surgery = head in ("identity", "surgery") and not truncates
    return {
        "model.backbone": network,
        "model.backbone_options.out_channels": classes if surgery else None,
        "model.head": "identity" if surgery else head,
        "model.dropout": 0.2 if (network, head) == ("mobilenet_v2", "linear") else 0.0,
        "data.first_classes": classes,
        "optim.name": name,
        "optim.lr": lr,
        "optim.schedule": schedule,
        "optim.factor": factor,
        "optim.per_epoch": per_epoch,
        "optim.weight_decay": weight_decay,
        "batch_size": batch_size,
        "total_epochs": epochs,
        # What the attempts change.
        "model.orthogonal_init": (),
        "model.relu_before_pool": False,
        "model.pool": "mean",
        "model.pool_options.p": None,
        "model.pool_options.units": None,
        "task.options.orthogonality": None,
    }
