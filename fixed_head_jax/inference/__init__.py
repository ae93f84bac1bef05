"""Trained models at work: photographs in; probabilities, features and maps out."""

from fixed_head_jax.inference.predictor import Predictions, Predictor, Preprocessing, load

__all__ = ["Predictions", "Predictor", "Preprocessing", "load"]
