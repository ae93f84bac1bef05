"""What tests of datasets share: the digits, prepared."""

import pytest

from fixed_head_jax.data import sources


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("tfds"))
    sources.open_source("digits", "train", path)
    return path


@pytest.fixture(scope="session")
def digits(digits_dir):
    return sources.open_source("digits", "train", digits_dir)
