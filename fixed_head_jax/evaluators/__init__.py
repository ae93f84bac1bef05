"""Evaluators: sums per batch on the device, metrics of the whole split on the host."""

from fixed_head_jax.evaluators.classification import classification_metrics, classification_sums

__all__ = ["classification_metrics", "classification_sums"]
