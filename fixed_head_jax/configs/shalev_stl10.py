"""Fixed random class vectors on STL-10, by the released code of Shalev et al. (2020).

    python main.py --config=configs/shalev_stl10.py --workdir=runs/shalev --config.data_dir=DIR

Variants: `fixed` or `learned`, `dot` or `cosine`, e.g. `shalev_stl10.py:learned,cosine`; default
`fixed,dot`. The scale s of cosine mode: `--config.model.head_options.init_scale=10`. ResNet-18 with
4608 features, 80 epochs of SGD, the rate divided by 5 on a plateau of the test accuracy. As
published, learned dot starts at 0.001 and the others at 0.1, and only dot mode decays weights, by
5e-4: `equal` gives all four 0.1 and no decay, the fair comparison. The sweep runs both, and s of 1,
10 and 20 (not stated which were used). `cifar10` and `cifar100` are other data, a workdir each:
32x32 images give 512 features, padded by 4 before the crop instead of 10. The released code has
STL-10 alone, and none of the paper's other encoders and data sets.
Source: https://arxiv.org/abs/2011.08704. Its accuracies are not at hand; not measured here yet.
"""

from fixed_head_jax.configs import common

DATA = ("stl10", "cifar10", "cifar100")


def get_config(arg: str = ""):
    variants = common.variants(arg, (*DATA, "fixed", "learned", "dot", "cosine", "equal", "smoke"))
    config = common.get_config()
    config.data.name = common.choose(variants, DATA, "stl10")
    config.augment.pad_crop = 10 if config.data.name == "stl10" else 4
    config.augment.flip = True
    config.model.backbone, config.model.pool = "stl_resnet18", "flatten"
    config.model.pool_options.window = 4
    config.batch_size, config.total_epochs = 32, 80.0
    config.evaluators = ("feature_norms",)
    config.optim.nesterov, config.optim.schedule = True, "plateau"
    scale = 1.0 if "cosine" in variants else None
    config.update_from_flattened_dict(
        _overrides("learned" not in variants, scale, "equal" in variants)
    )
    # 32 pixels are the least that fills a window.
    return common.smoke(config, image_size=32) if "smoke" in variants else config


def get_sweep(arg: str = ""):
    """Fixed and learned: dot as published and at equal rates, and cosine at every scale."""
    del arg  # the same rows on any data
    kinds: dict[str, tuple[float | None, bool]] = {"dot": (None, False), "dot_equal": (None, True)}
    kinds |= {f"cosine_s{scale:g}": (scale, False) for scale in (1.0, 10.0, 20.0)}
    rows = [
        {
            "name": f"{'fixed' if fixed else 'learned'}_{kind}",
            "overrides": _overrides(fixed, scale, equal),
            "published": None,
            "baseline": f"learned_{kind}",
        }
        for kind, (scale, equal) in kinds.items()
        for fixed in (False, True)
    ]
    return {"baseline": "learned_dot", "seeds": (0, 1, 2), "rows": rows}


def _overrides(fixed, scale, equal):
    """Returns what a row changes; without a scale it compares by dot product."""
    cosine = scale is not None
    published_lr = 0.1 if fixed or cosine else 0.001
    return {
        "model.head": "cosine" if cosine else "random",
        "model.head_options.learned": None if cosine else not fixed,
        "model.head_options.fixed": fixed if cosine else None,
        "model.head_options.kernel_init": "random_integers" if cosine else None,
        "model.head_options.scale_form": "constant" if cosine else None,
        "model.head_options.init_scale": scale,
        "model.head_options.bias_form": "outside" if cosine else None,
        "optim.lr": 0.1 if equal else published_lr,
        "optim.weight_decay": 0.0 if cosine or equal else 5e-4,
    }
