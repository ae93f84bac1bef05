"""What is refused by its size, before anything is made."""

import pytest

from fixed_head_jax.configs import common, digits
from fixed_head_jax.devices import memory
from fixed_head_jax.training import experiment

pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.fixture
def build(data_dir):
    def build(**overrides):
        config = digits.get_config("linear")
        config.data_dir, config.model.backbone, config.eval_batch_size = data_dir, "tiny", 100
        return experiment.build(common.override(config, overrides))

    return build


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_size": 8}, r"images kept on the device \(data.placement=auto\)"),
        ({"data.placement": "disk", "batch_size": 1440}, r"a batch \(batch_size=1440"),
        ({"data.placement": "disk", "eval_batch_size": 10**9}, r"a batch \(eval_batch_size=10+,"),
        ({"model.backbone": "resnet20"}, "the model, gradients and optimizer"),
    ],
)
def test_a_run_that_does_not_fit_names_what_takes_most(monkeypatch, build, overrides, message):
    monkeypatch.setattr(memory, "limit", lambda device: 8_000_000)
    size = 8 if "model.backbone" in overrides else 64
    with pytest.raises(ValueError, match=f"needs at least .* GiB .* most, .* is for {message}"):
        build(**{"data.image_size": size, "batch_size": 8, **overrides})


@pytest.mark.parametrize("limit", [None, 10**9])
def test_a_run_that_fits_or_may_fit_is_built(monkeypatch, build, limit):
    monkeypatch.setattr(memory, "limit", lambda device: limit)
    build(batch_size=8)


def test_micro_batches_and_copies_count(monkeypatch, build):
    """Each of 4 CPU devices holds the model; of a batch they hold a share, and outputs in parts."""

    def needed(**overrides):
        sizes = []
        monkeypatch.setattr(memory, "limit", lambda device: 10**12)
        monkeypatch.setattr(
            "fixed_head_jax.training.experiment.sizes._refuse_too_much",
            lambda parts, limit: sizes.append(list(parts.values())),
        )
        build(**{"data.placement": "disk", **overrides})
        return sizes[0]  # of training

    model, task, images, batch = needed(batch_size=16)
    assert (task, images) == (0, 0)
    assert needed(batch_size=16, num_devices=1) == [model / 4, 0, 0, batch]
    assert needed(batch_size=32)[3] == 2 * batch
    pixels = 4 * 16 * 8 * 8
    assert needed(batch_size=16, accumulation_steps=2)[3] - pixels == (batch - pixels) / 2
