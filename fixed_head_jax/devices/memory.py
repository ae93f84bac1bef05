"""How much memory there is."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def peaks(device: Any) -> dict[str, float]:
    """Returns the most GiB that this process has held so far: "host", and "device" where known."""
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    host = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
    if device.platform == "cpu":
        return host
    held = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return host if held is None else {**host, "device": held / 2**30}


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
