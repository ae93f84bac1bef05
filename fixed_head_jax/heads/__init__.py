"""Heads: features [B, D] -> logits [B, K], float32.

A head is a linen module with the field `num_classes` (K), the call `head(features)`, and
`check_capacity(dim)`, which raises ValueError where it cannot hold K classes in `dim` features;
`get_model` asks before anything is initialised, and the call itself asks again. What a head draws
but never learns lives in the collection "fixed". A head with a margin also has a pure method
`training_logits(logits, labels)`: what the training loss takes; the call is without.

Every head has a pure method `class_vectors(variables, dim)`: the vectors, as columns [D, K], that
it compares the features with, for evaluators. `variables` is the head's own, {"params", "fixed"},
either missing where empty. The logits without the bias are features @ class_vectors, scales and a
learned projection included, with features at unit norm where the head normalises them; in
`heads.cosine`, whose class vectors count by direction alone, they are an increasing function of the
cosines (decreasing if a learned scale is negative), the same for every class.

A head of `EMBEDDING_HEADS` has no `class_vectors`. Its methods `embed(features, train)`, the
embeddings [B, D] at unit norm, and `classify(embeddings)`, the logits of all its classifiers, are
what its task trains; its call gives the logits of one of them in evaluation mode.

To add a head, write it in a file of its own and name it in `HEADS`; the contract tests cover it
from there.
"""

from flax import linen as nn

from fixed_head_jax.heads import cosine, fixed, linear, polytope, projection
from fixed_head_jax.settings import lookup

HEADS = {
    "linear": linear.Linear,
    "random": fixed.Random,
    "orthogonal": fixed.Orthogonal,
    "hadamard": fixed.Hadamard,
    "identity": fixed.Identity,
    "simplex": polytope.Simplex,
    "simplex_etf": polytope.SimplexETF,
    "orthoplex": polytope.Orthoplex,
    "cube": polytope.Cube,
    "cosine": cosine.Cosine,
    "tvmf": cosine.TVMF,
    "cosface": cosine.CosFace,
    "arcface": cosine.ArcFace,
}

# Heads that embed the features, for tasks that learn without labels.
EMBEDDING_HEADS = {"projection": projection.Projection}


def get_head(name: str, **options) -> nn.Module:
    """Builds the head `name`; `options` name at least `num_classes`.

    Raises:
        ValueError: on an unknown name or option, or a value the head does not know.
    """
    return lookup.build("head", {**HEADS, **EMBEDDING_HEADS}, name, options)
