"""What the experiments of non-binary transfer share: recipe, rows of dials, and guided search.

Source: Plested, Shen & Gedeon 2021, arXiv 2107.08585, and its release.
"""

from collections.abc import Callable


def turn(
    new_layers: int = 1,
    low_layers: int | None = None,
    rates: tuple[float | None, float | None, float | None] = (None, None, None),
    alphas: tuple[float, float] = (0.0, 0.0),
) -> dict:
    """Returns the config values of one setting of the dials, those that it leaves alone included.

    Args:
        new_layers: drawn anew, from the head.
        low_layers: of the lower group, from the image; None for one group.
        rates: of head, upper and lower layers; None is the optimizer's.
        alphas: strength of L2-SP on the upper and the lower layers; 0 decays them to zero instead.
    """
    l2_sp, (lr_head, lr_upper, lr_lower) = any(alphas), rates
    return {
        "transfer.new_layers": new_layers,
        "transfer.num_low_lr_layers": low_layers,
        "transfer.lr_head": lr_head,
        "transfer.lr_upper": lr_upper,
        "transfer.lr_lower": lr_lower,
        "transfer.l2_sp": l2_sp,
        "transfer.alpha_upper": alphas[0] if l2_sp else None,
        "transfer.alpha_lower": alphas[1] if l2_sp and low_layers is not None else None,
    }


def search(num_layers: int, splits: dict, space: dict, start: dict, starts: Callable) -> dict:
    """Returns a guided search over the dials, for `--mode=search`.

    Args:
        num_layers: of the backbone.
        splits: config values that hold out images to tune on.
        space: dial -> its range: new_layers, low_layers, lr, low_rate (the lower layers' share of
            the rate), weight_decay, alpha_upper, alpha_lower.
        start: the paper's default setting of these dials.
        starts: accuracy from scratch minus accuracy on frozen features, in points -> settings to
            try first, as changes of `start`.
    """

    def overrides(dials):
        new, lr = dials["new_layers"], dials["lr"]
        # Layers drawn anew are never in the lower group, whose rate may be 0.
        low = min(dials["low_layers"], num_layers + 1 - new)
        alphas = (dials["alpha_upper"], dials["alpha_lower"])
        return {
            **splits, "optim.lr": lr, "optim.weight_decay": dials["weight_decay"],
            **turn(new, low, (None, None, dials["low_rate"] * lr), alphas),
        }  # fmt: skip

    frozen = {"model.frozen_backbone": True}
    scratch = {"init_from": "none"}
    return {
        "space": space,
        "overrides": overrides,
        "probes": {
            name: {**overrides(start), **changes}
            for name, changes in (("scratch", scratch), ("frozen", frozen))
        },
        "starts": lambda difference: [{**start, **changes} for changes in starts(difference)],
    }
