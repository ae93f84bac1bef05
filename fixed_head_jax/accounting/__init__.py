"""What a model stores and computes, counted by part, and the published tables next to ours.

python -m fixed_head_jax.accounting --table --classes 1000 --image_size 224
"""

from fixed_head_jax.accounting.cost import count, saving, thesis_operations

__all__ = ["count", "saving", "thesis_operations"]
