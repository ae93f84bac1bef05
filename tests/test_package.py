"""What `import fixed_head_jax` gives, and what it leaves alone."""

import importlib.metadata
import subprocess
import sys

import pytest

import fixed_head_jax


@pytest.mark.parametrize("name", fixed_head_jax.__all__)
def test_public_names(name):
    assert getattr(fixed_head_jax, name) is not None
    assert name in dir(fixed_head_jax)


def test_version():
    assert fixed_head_jax.__version__ == importlib.metadata.version("fixed_head_jax")


def test_names_it_lacks():
    with pytest.raises(AttributeError, match="'fixed_head_jax' has no attribute 'get_modle'"):
        _ = fixed_head_jax.get_modle


def test_importing_it_loads_nothing_heavy():
    code = """import sys, fixed_head_jax
print(sorted({name.split(".")[0] for name in sys.modules} & {"jax", "numpy", "flax", "optax"}))"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "[]\n"


@pytest.mark.parametrize(
    "line",
    [
        "from fixed_head_jax import load_config, train, evaluate, load",
        "from fixed_head_jax.model import get_model",
        "from fixed_head_jax.heads import frames; frames.hadamard",
        "from fixed_head_jax import pretrained; pretrained.from_torch, pretrained.to_torch",
        "from fixed_head_jax import accounting; accounting.count",
        "from fixed_head_jax.losses.self_classifier import self_classifier_loss",
        "from fixed_head_jax.evaluators.clustering import clustering_scores",
        "from fixed_head_jax.evaluators.knn import knn_accuracy",
    ],
)
def test_promised_names(line):
    exec(line, {})
