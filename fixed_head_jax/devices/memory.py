"""How much memory there is."""

import os
from pathlib import Path
from typing import Any

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def limit(device: Any) -> int | None:
    """Returns the bytes that a `jax.Device` has, or None where that is not known.

    A CPU has those of its host, or of the container that the process is in.
    """
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, _CGROUP_LIMITS):
        text = file.read_text().strip() if file.exists() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)
