"""Four CPU devices, strict rank promotion: set before jax is imported."""

import os
import tempfile
from functools import partial

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_backend_optimization_level=1",
    )
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile the same small programs again and again; the cache lives as long as the session.
_CACHE = tempfile.TemporaryDirectory(prefix="jax_cache_")
jax.config.update("jax_compilation_cache_dir", _CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder for prepared datasets; the digits are prepared when they are first opened."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def tiny_backbone():
    """A ResNet-8, "tiny": everything the loop meets, compiled in seconds."""
    from fixed_head_jax.backbones import BACKBONES
    from fixed_head_jax.backbones.cifar_resnet import CifarResNet

    BACKBONES["tiny"] = partial(CifarResNet, 1)
    yield
    del BACKBONES["tiny"]
