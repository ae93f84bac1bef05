"""Four CPU devices, strict rank promotion: set before jax is imported."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 --xla_llvm_disable_expensive_passes=true"
)

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile the same small programs again and again; the cache lives as long as the session.
_CACHE = tempfile.TemporaryDirectory(prefix="jax_cache_")
jax.config.update("jax_compilation_cache_dir", _CACHE.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
