"""How parameters change: the optimizer, learning-rate schedules, and the dials of transfer."""

from fixed_head_jax.optim.optimizer import Rule, make_optimizer
from fixed_head_jax.optim.plateau import Plateau, observe, plateau_scale
from fixed_head_jax.optim.schedules import Schedule, make_schedule

__all__ = [
    "Plateau",
    "Rule",
    "Schedule",
    "make_optimizer",
    "make_schedule",
    "observe",
    "plateau_scale",
]
