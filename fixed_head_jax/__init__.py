"""Image classifiers whose classification layer is fixed, redesigned or learned without labels."""

from fixed_head_jax import compiler

compiler.mend()
