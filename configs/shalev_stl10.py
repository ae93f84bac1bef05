"""Fixed random class vectors on STL-10, by the released code of Shalev et al. (2020).

    python main.py --config=configs/shalev_stl10.py --workdir=runs/shalev --config.data_dir=DIR

Variants: `fixed` or `learned`, `dot` or `cosine`, e.g. `shalev_stl10.py:learned,cosine`; default
`fixed,dot`. The scale of cosine mode: `--config.model.head_options.init_scale=10`. ResNet-18 with
4608 features, 80 epochs of SGD, the rate divided by 5 on a plateau of the test accuracy. As
published, learned dot starts at 0.001 and the others at 0.1, and only dot mode decays weights, by
5e-4: `equal` gives all four 0.1 and no decay, the fair comparison. The sweep runs both.
Source: https://arxiv.org/abs/2011.08704. Its accuracies are not at hand; not measured here yet.
"""

from configs import common


def get_config(arg: str = ""):
    variants = common.variants(arg, ("fixed", "learned", "dot", "cosine", "equal", "smoke"))
    config = common.get_config()
    config.data.name = "stl10"
    config.augment.pad_crop, config.augment.flip = 10, True
    config.model.backbone, config.model.pool = "stl_resnet18", "flatten"
    config.model.pool_options.window = 4
    config.batch_size, config.total_epochs = 32, 80.0
    config.optim.nesterov, config.optim.schedule = True, "plateau"
    config.update_from_flattened_dict(
        _overrides("learned" not in variants, "cosine" in variants, "equal" in variants)
    )
    if "smoke" in variants:
        config.data.image_size = 32  # the least that fills a window
        config = common.smoke(config)
    return config


def get_sweep():
    """Both similarities, fixed and learned, as published and under equal rates."""
    rows = []
    for equal in (False, True):
        for cosine in (False, True):
            end = ("_cosine" if cosine else "_dot") + ("_equal" if equal else "")
            for fixed in (False, True):
                row = {
                    "name": ("fixed" if fixed else "learned") + end,
                    "overrides": _overrides(fixed, cosine, equal),
                    "published": None,
                    "baseline": "learned" + end,
                }
                rows.append(row)
    return {"baseline": "learned_dot", "seeds": (0, 1, 2), "rows": rows}


def _overrides(fixed, cosine, equal):
    published_lr = 0.1 if fixed or cosine else 0.001
    return {
        "model.head": "cosine" if cosine else "random",
        "model.head_options.learned": None if cosine else not fixed,
        "model.head_options.fixed": fixed if cosine else None,
        "model.head_options.kernel_init": "random_integers" if cosine else None,
        "model.head_options.scale_form": "constant" if cosine else None,
        "model.head_options.bias_form": "outside" if cosine else None,
        "optim.lr": 0.1 if equal else published_lr,
        "optim.weight_decay": 0.0 if cosine or equal else 5e-4,
    }
