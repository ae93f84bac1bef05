"""How parameters change: the optimizer, learning-rate schedules, and the dials of transfer."""

from fixed_head_jax.optim.optimizer import make_optimizer
from fixed_head_jax.optim.plateau import observe, plateau_scale

__all__ = ["make_optimizer", "observe", "plateau_scale"]
