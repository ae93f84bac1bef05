"""How much memory there is."""

import os
import types

import jax

from fixed_head_jax.devices import memory

HOST = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_cpu_has_what_its_host_or_container_has(monkeypatch, tmp_path):
    limited, unlimited = tmp_path / "limited", tmp_path / "unlimited"
    limited.write_text("1048576\n")
    unlimited.write_text("max\n")
    for files, expected in (((unlimited, tmp_path / "missing"), HOST), ((limited,), 2**20)):
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", tuple(map(str, files)))
        assert memory.limit(jax.devices("cpu")[0]) == expected


def test_an_accelerator_says_what_it_has_if_it_does():
    for stats, expected in (({"bytes_limit": 7}, 7), ({}, None), (None, None)):
        device = types.SimpleNamespace(platform="gpu", memory_stats=lambda stats=stats: stats)
        assert memory.limit(device) == expected
