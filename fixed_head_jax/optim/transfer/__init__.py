"""Fine-tuning with dials: which layers start anew, and how every group of layers trains."""

from fixed_head_jax.optim.transfer.dials import (
    FROM_SCRATCH,
    Dials,
    Layers,
    check,
    frozen_parts,
    frozen_patterns,
    is_used,
    skip_patterns,
)
from fixed_head_jax.optim.transfer.plan import Plan, make_plan, make_rates, restrict, table

__all__ = [
    "FROM_SCRATCH",
    "Dials",
    "Layers",
    "Plan",
    "check",
    "frozen_parts",
    "frozen_patterns",
    "is_used",
    "make_plan",
    "make_rates",
    "restrict",
    "skip_patterns",
    "table",
]
