"""The compiler under JAX: its wrong numbers, kept out where known and looked for everywhere, and
what it has compiled, kept for the next process.

On the CPU some versions of jaxlib hand reductions to YNNPACK, which adds up some of them wrongly
without a word and crashes on others (jax-ml/jax#39103, #39257, #40412; openxla/xla#48714). Measured
on x86-64: right up to 0.10.1, wrong in 0.10.2, 0.11.0, 0.11.1, 0.12.0 and 0.12.0.1, and right in
these with the flag below. Versions that do not know the flag end the process, so it is set between
these bounds alone; any later version is left to the check.
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
import warnings
from pathlib import Path

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
MENDED = f"{FLAG}=-reduce"
FIRST_FAULTY, LAST_FAULTY = (0, 10, 2), (0, 12, 0, 1)


def mended_flags(xla_flags: str, jaxlib_version: str) -> str:
    """Appends to XLA_FLAGS what a faulty version needs; a value that the user gave stays.

    Args:
        xla_flags: the user's flags, separated by spaces.
        jaxlib_version: as `0.10.2`.
    """
    release = re.match(r"\d+(\.\d+)*", jaxlib_version)
    version = tuple(map(int, release.group().split("."))) if release else ()
    if not FIRST_FAULTY <= version <= LAST_FAULTY or FLAG in xla_flags:
        return xla_flags
    return f"{xla_flags} {MENDED}".lstrip()


def mend() -> None:
    """Sets the flag in this process' environment, which has an effect until a backend starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    mended = mended_flags(flags, importlib.metadata.version("jaxlib"))
    if mended == flags:
        return
    os.environ["XLA_FLAGS"] = mended
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        warnings.warn(
            "JAX computed before fixed_head_jax was imported, so this jaxlib may add up wrongly on "
            f"the CPU; import fixed_head_jax first, or start with XLA_FLAGS={MENDED}",
            stacklevel=3,
        )


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache, unless JAX was told a place or not to.

    In a folder for each kind of processor: the code is for the instructions that it has.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.values["jax_compilation_cache_dir"]:
        return
    kind = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(caches / "fixed_head_jax" / kind))


@functools.cache
def check() -> None:
    """Compares a reduction that goes wrong in every faulty version with its exact value, once.

    On this process' backend; takes about 45 ms, its compilation included.

    Raises:
        ValueError: if it is wrong.
    """
    import numpy as np  # here and below: the package sets the flag without waiting for JAX

    # Whole numbers so small that every backend's default precision multiplies them exactly.
    values = np.arange(4096, dtype=np.float32).reshape(2048, 2) % 13
    if not np.array_equal(_quadratic_form(values), values.sum(axis=1) ** 2):
        import jax

        version = importlib.metadata.version("jaxlib")
        raise ValueError(
            f"jaxlib {version} adds up wrongly on {jax.default_backend()!r}; install another "
            f"version, or start with XLA_FLAGS={MENDED} if this one knows it"
        )


def _quadratic_form(values):
    """Computes v' 1 1' v of every row, the square of its sum, by the compiler."""
    import jax
    import jax.numpy as jnp

    return jax.jit(lambda values: jnp.sum((values @ jnp.ones((2, 2))) * values, axis=1))(values)


def _processor():
    """Says what instructions this machine's processor has."""
    cpu_info = Path("/proc/cpuinfo")  # of Linux
    text = cpu_info.read_text() if cpu_info.exists() else ""
    instructions = re.search(r"^(?:flags|Features)\s*:.*$", text, re.MULTILINE)
    return f"{platform.machine()} {instructions[0] if instructions else platform.processor()}"
