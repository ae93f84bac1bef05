"""Layers that backbones and heads are made of, and how their parameters start."""
