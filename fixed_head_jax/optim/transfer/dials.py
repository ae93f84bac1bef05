"""The dials of non-binary transfer, their checks, and what they select by layer.

Layers are those of the backbone's `layers`, counted from the image, and on top of them the head
(with the pooling): Inception v4 has 22 and the head. The learning rate has three groups: `head`,
`lower` (the first `num_low_lr_layers` layers) and `upper` (the layers between). Decay has a
fourth one, `new`: the layers drawn anew, which have no start that L2-SP could pull them to.

Source: Plested, Shen & Gedeon 2021, https://arxiv.org/abs/2107.08585.
"""

import re
from dataclasses import dataclass

from jaxtyping import PyTree

from fixed_head_jax.settings.kinds import AT_LEAST_0, COUNT, FLAG
from fixed_head_jax.settings.schema import Group, option

Layers = tuple[tuple[str, ...], ...]  # from the image up, each the paths of its parts
FROM_SCRATCH = "none"  # the `init_from` of a run that is to start without weights


@dataclass(frozen=True)
class Dials(Group, name="transfer"):
    """How layers are transferred, and train; by default in no special way.

    L2-SP pulls kernels alone: norms, biases and embeddings of the backbone are left to the
    optimizer's own weight decay. A beta decays the head's biases too. `as_published` does as the
    release does: its L2-SP has its own constants (0.04 on the first kernel, 0.02 on others) and
    reaches the layers below both n and L - k of a backbone of L layers, for k > 0 one layer less
    than what is transferred; it decays all other kernels and the head by 0.0005. The optimizer's
    weight decay acts on everything in addition. Its warm-up starts all groups at the same rate, so
    that a group with rate 0 trains until it is over.

    Source: arXiv 2107.08585, its flags new-layers, num-lowlrs, lr, L2SP and L2SP_rates.
    """

    new_layers: int = option(0, COUNT, "k, layers drawn anew, from the top, head first; 0: none")
    num_low_lr_layers: int | None = option(
        None, COUNT, "n, layers of the lower group, from the image up"
    )
    lr_head: float | None = option(
        None, AT_LEAST_0, "rate of the head; None: optim.lr; 0: frozen, with its statistics"
    )
    lr_upper: float | None = option(None, AT_LEAST_0, "same, of the layers above the lower group")
    lr_lower: float | None = option(None, AT_LEAST_0, "same, of the lower group")
    l2_sp: bool = option(False, FLAG, "decays kernels that are not new to where they started")
    alpha_upper: float | None = option(None, AT_LEAST_0, "strength of that; None: 0.01; 0: none")
    alpha_lower: float | None = option(None, AT_LEAST_0, "same, of the lower group")
    beta_head: float | None = option(
        None, AT_LEAST_0, "decay to zero; None: weight_decay, or 0 beside alpha"
    )
    beta_new: float | None = option(None, AT_LEAST_0, "same, of new layers below the head")
    beta_upper: float | None = option(None, AT_LEAST_0, "same, of the layers above the lower group")
    beta_lower: float | None = option(None, AT_LEAST_0, "same, of the lower group")
    as_published: bool = option(False, FLAG, "the release's L2-SP and warm-up")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in vars(self).items():
            kind, _, group = key.partition("_")
            if kind in ("lr", "alpha", "beta") and value is not None:
                self._check_strength(f"transfer.{key}={value}", kind, group)
        if has_release_constants(self) and not self.num_low_lr_layers:
            raise ValueError(
                "transfer.as_published=True anchors the lower layers alone, and there are none; "
                "set transfer.num_low_lr_layers to at least 1"
            )

    def _check_strength(self, given, kind, group):
        if group == "lower" and not self.num_low_lr_layers:
            raise ValueError(
                f"{given} needs a group of lower layers; set transfer.num_low_lr_layers"
            )
        if kind == "alpha" and not self.l2_sp:
            raise ValueError(f"{given} is of L2-SP; set transfer.l2_sp=True")
        if group == "new" and self.new_layers < 2:
            raise ValueError(
                f"{given} is of layers drawn anew below the head, and there are none; set "
                "transfer.new_layers to at least 2"
            )
        if kind != "lr" and has_release_constants(self):
            raise ValueError(
                f"{given}, but transfer.as_published=True has the release's own constants; leave "
                "it None"
            )


def is_used(dials: Dials) -> bool:
    """Returns whether any dial is turned."""
    return dials != Dials()


def has_release_constants(dials: Dials) -> bool:
    """Returns whether L2-SP takes its strengths from the release instead of from the dials."""
    return dials.l2_sp and dials.as_published


def group_rate(dials: Dials, group: str, lr: float) -> float:
    """Returns the base learning rate of "head", "upper" or "lower"; `lr` is the optimizer's."""
    rate = getattr(dials, f"lr_{group}")
    return lr if rate is None else rate


def is_frozen(dials: Dials, group: str, lr: float) -> bool:
    """Returns whether a group never trains; as published, it does while the rate warms up."""
    return is_used(dials) and not dials.as_published and group_rate(dials, group, lr) == 0


def check(
    dials: Dials, num_layers: int, start: str | None, lr: float, frozen_backbone: bool = False
) -> None:
    """Raises ValueError on dials that cannot be meant.

    Args:
        dials: the dials.
        num_layers: layers of the backbone.
        start: the config's `init_from`; None where it does not matter, as nothing is read.
        lr: the optimizer's base learning rate.
        frozen_backbone: whether nothing of the backbone trains.
    """
    _check_counts(dials, num_layers)
    _check_new_layers_train(dials, num_layers, lr, frozen_backbone)
    if start is not None and is_used(dials):
        _check_start(dials, start, lr)


def _check_counts(dials, num_layers):
    counts = {
        "new_layers": (dials.new_layers, num_layers + 1, ", and the head is one more"),
        "num_low_lr_layers": (dials.num_low_lr_layers or 0, num_layers, ""),
    }
    for key, (count, most, more) in counts.items():
        if not 0 <= count <= most:
            raise ValueError(
                f"transfer.{key}={count} must be 0 ... {most}: the backbone has {num_layers} "
                f"layers{more}"
            )


def _check_new_layers_train(dials, num_layers, lr, frozen_backbone):
    low, first_new = dials.num_low_lr_layers or 0, num_layers + 1 - dials.new_layers
    new_backbone = dials.new_layers >= 2
    still = {
        "transfer.lr_head=0": dials.new_layers >= 1 and is_frozen(dials, "head", lr),
        "model.frozen_backbone=True": new_backbone and frozen_backbone,
        "transfer.lr_upper=0": new_backbone and low < num_layers and is_frozen(dials, "upper", lr),
        "transfer.lr_lower=0": first_new < low and is_frozen(dials, "lower", lr),
    }
    for key, freezes in still.items():
        if freezes:
            raise ValueError(
                f"transfer.new_layers={dials.new_layers} draws layers anew that {key} never "
                "trains; lower new_layers or let them train"
            )


def _check_start(dials, start, lr):
    plain = vars(Dials())
    turned = [f"transfer.{key}={v}" for key, v in vars(dials).items() if v != plain[key]]
    if not start:
        raise ValueError(
            f"{turned[0]} needs weights to start from, and init_from is empty: name a file or a "
            f"workdir (README lists public files); init_from={FROM_SCRATCH} trains from scratch"
        )
    if start != FROM_SCRATCH:
        return
    frozen = [group for group in ("upper", "lower") if is_frozen(dials, group, lr)]
    if dials.l2_sp or frozen:
        key = "l2_sp=True pulls to" if dials.l2_sp else f"lr_{frozen[0]}=0 keeps"
        raise ValueError(
            f"transfer.{key} the weights of the start, and init_from={FROM_SCRATCH} has none; turn "
            "that dial back, or set init_from to a file"
        )


def new_parts(dials: Dials, layers: Layers) -> tuple[str, ...]:
    """Returns the paths of the backbone's parts that start anew: the top k - 1 layers."""
    first = len(layers) - max(dials.new_layers - 1, 0)
    return tuple(part for layer in layers[first:] for part in layer)


def frozen_parts(dials: Dials, layers: Layers, lr: float) -> tuple[str, ...]:
    """Returns the paths of the backbone's parts that never train."""
    low = dials.num_low_lr_layers or 0
    frozen = layers[:low] if is_frozen(dials, "lower", lr) else ()
    frozen += layers[low:] if is_frozen(dials, "upper", lr) else ()
    return tuple(part for layer in frozen for part in layer)


def frozen_patterns(dials: Dials, params: PyTree, layers: Layers, lr: float) -> tuple[str, ...]:
    """Returns patterns of the paths of parameters that never train."""
    patterns = [rf"^backbone/{re.escape(part)}(/|$)" for part in frozen_parts(dials, layers, lr)]
    if is_frozen(dials, "head", lr):
        patterns += [f"^{part}/" for part in ("head", "pool") if params.get(part)]
    return tuple(patterns)


def skip_patterns(dials: Dials, params: PyTree, layers: Layers) -> tuple[str, ...]:
    """Returns patterns of the names, in a torch state dict, of what starts anew."""
    if not dials.new_layers:
        return ()
    tops = ("^head", *((r"^pool\.",) if params.get("pool") else ()))
    parts = (part.replace("/", ".") for part in new_parts(dials, layers))
    return (*tops, *(rf"^{re.escape(part)}(\.|$)" for part in parts))
