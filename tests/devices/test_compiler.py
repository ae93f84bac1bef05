"""The compiler's known wrong numbers: kept out in a process of its own, and looked for."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fixed_head_jax.devices import compiler
from fixed_head_jax.devices.compiler import FLAG, MENDED, mended_flags

ROOT = Path(__file__).parents[2]
JAXLIB = importlib.metadata.version("jaxlib")
IS_FAULTY = bool(mended_flags("", JAXLIB))
# Prints how far each reduction is from float64. The last two end a faulty process.
REPRODUCERS = """
import json
import fixed_head_jax
import jax, jax.numpy as jnp, numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)
draw = np.random.default_rng(0).normal
errors = {}

def compare(name, function, *inputs, expected):
    found = np.asarray(jax.jit(function)(*inputs))
    errors[name] = float(np.max(np.abs(found - expected) / (1 + np.abs(expected))))

for dtype, rows in ((np.float32, 32_769), (np.float64, 16_385)):
    x, identity = np.arange(rows)[:, None] * np.eye(3)[0], jnp.eye(3, dtype=dtype)
    matvec = jax.vmap(lambda row: jnp.sum((identity @ row) ** 2))
    compare(f"39103 {rows}", matvec, x.astype(dtype), expected=(x**2).sum(1))
    embeddings, ones = draw(size=(1000, 64)).astype(dtype), np.ones((64, 64), dtype)
    expected = embeddings.astype(np.float64).sum(1) ** 2
    quadratic = lambda e: jnp.sum((e @ ones) * e, -1)
    compare(f"quadratic {rows}", quadratic, embeddings, expected=expected)
x = draw(size=(64, 128)).astype(np.float32)
holes = np.full((64, 255), -np.inf)
holes[:, ::2] = x
maximum = lambda x: lax.reduce_window(
    x, np.float32(-np.inf), lax.max, (2, 1), (2, 1), "VALID", base_dilation=(1, 2))[:, ::2]
compare("48714", maximum, x, expected=np.maximum(holes[::2], holes[1::2])[:, ::2])
u, v = draw(size=(2, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
compare("40412", lambda u, v: jnp.sum(u * v, 3), u, v, expected=(u * v).sum(3))
u, v = np.ones((10, 4, 6), np.float32), np.ones((10, 4, 6, 9, 9, 9, 9, 9), np.float32)
product = lambda u, v: jnp.log(jnp.sum(u[(..., *[None] * 5)] * v, axis=2))
compare("39257", product, u, v, expected=np.full((10, 4, 9, 9, 9, 9, 9), np.log(6)))
print(json.dumps(errors))
"""


def run(*command, xla_flags=""):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("flags", "version", "mended"),
    [
        ("", "0.10.2", MENDED),
        ("", "0.12.0.1", MENDED),
        ("--a=1 --b", "0.11.0", f"--a=1 --b {MENDED}"),
        (f"{FLAG}=reduce", "0.10.2", f"{FLAG}=reduce"),
        (f"--a {MENDED}", "0.10.2", f"--a {MENDED}"),
        ("--a=1", "0.8.1", "--a=1"),  # it does not know the flag
        ("", "0.10.1", ""),
        ("", "0.12.0.2", ""),
        ("", "0.12.1.dev20261101", ""),
        ("", "unknown", ""),
    ],
)
def test_the_flag_is_added_where_the_version_is_faulty(flags, version, mended):
    assert mended_flags(flags, version) == mended


def test_reductions_known_to_go_wrong_are_right():
    result = run("-c", REPRODUCERS)
    assert result.returncode == 0, result.stderr
    errors = json.loads(result.stdout)
    assert len(errors) == 7 and all(error < 1e-5 for error in errors.values()), errors


@pytest.mark.skipif(not IS_FAULTY, reason=f"jaxlib {JAXLIB} is not known to be faulty")
def test_a_process_that_computed_already_is_warned():
    late = "import jax.numpy as jnp; jnp.zeros(1); import fixed_head_jax"
    result = run("-W", "error", "-c", late)
    assert "import fixed_head_jax first" in result.stderr


@pytest.mark.skipif(not IS_FAULTY, reason=f"jaxlib {JAXLIB} is not known to be faulty")
def test_training_is_refused_where_reductions_are_wrong(tmp_path):
    command = ("main.py", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}")
    result = run(*command, xla_flags=f"{FLAG}=reduce")
    assert result.returncode == 2
    assert f"main.py: jaxlib {JAXLIB} adds up wrongly on 'cpu'" in result.stderr
    assert MENDED in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_check_refuses_one_wrong_sum(monkeypatch):
    compiler.check()
    right = compiler._quadratic_form

    def wrong(values):
        return np.array(right(values)) + np.eye(1, len(values), 7)[0]

    monkeypatch.setattr(compiler, "_quadratic_form", wrong)
    with pytest.raises(ValueError, match="adds up wrongly"):
        compiler.check.__wrapped__()


def test_compiled_programs_are_kept_unless_the_user_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        compiler.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == before  # what conftest.py says
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        jax.config.update("jax_compilation_cache_dir", None)
        compiler.keep_compiled()
        assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path / "fixed_head_jax"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
