"""Trains, evaluates or searches one config, or sweeps over the rows it lists. See README.md."""

from fixed_head_jax.commands import run

if __name__ == "__main__":
    run(program="main.py")
