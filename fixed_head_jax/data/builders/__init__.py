"""TFDS builders of datasets that TFDS lacks, by dataset name."""

from fixed_head_jax.data.builders.digits import Digits

BUILDERS = {"digits": Digits}
