"""Oracle tests of the learning-rate schedules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.optim import Schedule, make_schedule

CIFAR_STEPS = 50_000 / 128


def cifar_starts(epoch):
    return math.ceil(epoch * CIFAR_STEPS)


def ten(epoch):
    return math.ceil(10 * epoch)


def make(name, lr, total_steps, epoch_starts, **options):
    return make_schedule(Schedule(name, **options), lr, total_steps, epoch_starts)


def rates(schedule, steps):
    jitted = jax.jit(schedule)
    out = np.asarray([jitted(jnp.int32(s)) for s in steps])
    np.testing.assert_allclose(out, [schedule(s) for s in steps], rtol=1e-6)
    assert jitted._cache_size() == 1 and out.dtype == np.float32
    return out


@pytest.mark.parametrize(
    "epochs, expected",
    [
        (90, {0: 0.2, 1: 0.1999390827, 30: 0.15, 45: 0.1, 88: 0.000243595, 89: 0.0000609173}),
        (30, {1: 0.1994521895, 10: 0.15, 15: 0.1, 28: 0.0021852399, 29: 0.0005478105}),
    ],
)
def test_cosine_per_epoch(epochs, expected):
    total = cifar_starts(epochs)
    schedule = make("cosine", 0.2, total, cifar_starts, per_epoch=True)
    for at in (lambda e: cifar_starts(e), lambda e: cifar_starts(e + 1) - 1):
        out = rates(schedule, [at(e) for e in expected])
        np.testing.assert_allclose(out, list(expected.values()), rtol=2e-6)


def test_cosine_and_linear_per_step():
    total = 1000
    steps = [0, 1, 333, 500, 999, 1000, 1200]
    t = np.minimum(steps, total) / total
    cosine = rates(make("cosine", 0.2, total, ten), steps)
    np.testing.assert_allclose(cosine, 0.1 * (1 + np.cos(np.pi * t)), rtol=1e-6)
    assert cosine[-1] == 0
    linear = rates(make("linear", 0.5, total, ten), steps)
    np.testing.assert_allclose(linear, 0.5 * (1 - t), rtol=1e-5, atol=1e-9)
    assert linear[-1] == 0
    held = rates(make("linear", 0.5, total, ten, per_epoch=True), [0, 9, 10, 999])
    np.testing.assert_allclose(held, [0.5, 0.5, 0.495, 0.005], rtol=1e-6)


def test_exponential_of_mobilenet_v2():
    expected = {0: 0.02, 1: 0.0196, 10: 0.0163414561, 50: 0.0072833936, 99: 0.0027065215}
    options = {"lr": 0.02, "total_steps": cifar_starts(100), "epoch_starts": cifar_starts}
    for per_epoch in (True, False):
        schedule = make("exponential", factor=0.98, per_epoch=per_epoch, **options)
        out = rates(schedule, [cifar_starts(e) for e in expected])
        rtol = 2e-7 if per_epoch else 1e-4  # an epoch starts at the step after its fraction
        np.testing.assert_allclose(out, list(expected.values()), rtol=rtol)
    assert schedule(200) < schedule(199)


def test_step_milestones_at_exact_steps():
    total = cifar_starts(164)
    schedule = make("step", 0.1, total, cifar_starts, milestones=(81, 122))
    assert (cifar_starts(81), cifar_starts(122)) == (31641, 47657)
    out = rates(schedule, [0, 31640, 31641, 47656, 47657, total - 1])
    np.testing.assert_array_equal(out, np.float32([0.1, 0.1, 0.01, 0.01, 0.001, 0.001]))


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_constant(name):
    for per_epoch in (False, True):
        schedule = make(name, 0.1, 100, ten, per_epoch=per_epoch)
        np.testing.assert_array_equal(rates(schedule, [0, 50, 99]), np.float32([0.1] * 3))


def test_warmup_then_the_schedule_at_its_own_step():
    schedule = make("linear", 0.6, 100, ten, warmup_epochs=0.5)
    expected = [0.12, 0.24, 0.48, 0.6, 0.6 * 0.95, 0.6 * 0.94]
    np.testing.assert_allclose(rates(schedule, [0, 1, 3, 4, 5, 6]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("epochs", "lr", "start", "expected"),
    [
        (100, 4.8, 0.3, {
            0: 0.3, 1: 0.301438159, 313: 0.750143816, 3129: 4.8, 3130: 4.8, 3131: 4.799999985,
            15650: 2.818738871, 31299: 0.004800015,
        }),
        (800, 3.2, 0.2, {1: 0.200958773, 313: 0.500095877, 125200: 1.633379689}),
    ],
)  # fmt: skip
def test_rates_of_self_classifier(epochs, lr, start, expected):
    schedule = make(
        "cosine", lr, epochs * 313, lambda epoch: 313 * epoch, warmup_epochs=10,
        warmup_from=start, final_lr=lr / 1000, decay_after_warmup=True,
    )  # fmt: skip
    np.testing.assert_allclose(rates(schedule, expected), list(expected.values()), rtol=3e-7)


def test_decay_after_warmup_step_by_step():
    def make_one(name, **options):
        return make(
            name, 1.0, 10, lambda epoch: 2 * epoch, warmup_epochs=2, warmup_from=0.2, final_lr=0.1,
            decay_after_warmup=True, **options,
        )  # fmt: skip

    up = [0.2, 0.4666667, 0.7333333, 1.0]
    down = [1.0, 0.9397114, 0.775, 0.55, 0.325, 0.1602886]
    np.testing.assert_allclose(rates(make_one("cosine"), range(10)), up + down, rtol=1e-6)
    down = [1 - 0.15 * step for step in range(6)]
    np.testing.assert_allclose(rates(make_one("linear"), range(10)), up + down, rtol=1e-6)


def test_final_lr_by_epochs():
    """The earlier version of Self-Classifier on CIFAR-10."""
    schedule = make("cosine", 3.2, 1600, lambda epoch: 2 * epoch, per_epoch=True, final_lr=0.032)
    expected = [3.2, 3.2, (3.2 + 0.032) / 2, 0.032 + 3.168 * math.cos(math.pi / 4) ** 2]
    np.testing.assert_allclose(rates(schedule, [0, 1, 800, 801]), expected, rtol=1e-6)


def test_epochs_shorter_than_a_step():
    schedule = make("step", 1.0, 3, lambda e: math.ceil(e / 2), milestones=(2, 4), per_epoch=True)
    np.testing.assert_allclose(rates(schedule, [0, 1, 2]), [1.0, 0.1, 0.01], rtol=1e-6)


def spec_starts(epoch):
    return 187 * epoch


@pytest.mark.parametrize(
    "lr, every, factor, expected",
    [
        (0.03, 10, 0.9, {0: 1e-4, 1: 0.01006667, 2: 0.02003333, 3: 0.03, 9: 0.03, 10: 0.027,
                         19: 0.027, 20: 0.0243, 30: 0.02187, 100: 0.01046035, 400: 4.434265e-4,
                         799: 7.282483e-6}),
        (0.01, 30, 0.1, {0: 1e-4, 1: 0.0034, 2: 0.0067, 3: 0.01, 29: 0.01, 30: 0.001, 60: 1e-4,
                         199: 1e-8}),
        (0.0, 10, 0.9, {0: 1e-4, 1: 6.667e-5, 2: 3.333e-5, 3: 0.0, 799: 0.0}),
    ],
)  # fmt: skip
def test_transfer_schedule(lr, every, factor, expected):
    """The worked numbers of the transfer work: warm-up per epoch, decay every so many epochs."""
    schedule = make(
        "step", lr, spec_starts(800), spec_starts, warmup_epochs=3, warmup_from=1e-4,
        warmup_per_epoch=True, step_every_epochs=every, factor=factor,
    )  # fmt: skip
    for at in (lambda e: spec_starts(e), lambda e: spec_starts(e + 1) - 1):
        out = rates(schedule, [at(epoch) for epoch in expected])
        np.testing.assert_allclose(out, list(expected.values()), rtol=1e-4 if not lr else 4e-7)


def test_warmup_from_a_rate_step_by_step():
    schedule = make("constant", 0.5, 100, ten, warmup_epochs=0.4, warmup_from=0.1)
    np.testing.assert_allclose(rates(schedule, [0, 1, 3, 4]), [0.2, 0.3, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "cosin"}, "optim.schedule='cosin' must be one of constant, step, cosine"),
        ({"milestones": (60, 30)}, r"optim.milestones=\(60, 30\) must be .*, smallest first"),
        ({"milestones": (30, 30)}, "none twice, smallest first"),
        ({"milestones": (0.5,)}, r"each a number in \[1, 1e9\]"),
        ({"warmup_epochs": 10.1}, "warmup_epochs=10.1 makes 101 steps .*, but the run has 100"),
        ({"total_steps": 0}, "total_steps=0 must be at least 1"),
        ({"warmup_from": -0.1}, r"optim.warmup_from=-0.1 must be a number in \[0, inf\)"),
        ({"warmup_epochs": 0.5, "warmup_per_epoch": True}, "its 5 steps end inside one"),
        ({"step_every_epochs": -1}, "optim.step_every_epochs=-1 must be a whole number"),
        ({"step_every_epochs": 10, "milestones": (5,)}, "both say when to step; set one of them"),
        ({"factor": 0.0}, r"optim.factor=0.0 must be a number in \(0, inf\)"),
        ({"final_lr": 0.1}, "optim.final_lr=0.1 and .* are of schedules 'cosine' and 'linear'"),
        ({"decay_after_warmup": True, "name": "linear", "per_epoch": True}, "counts steps"),
        ({"epoch_starts": lambda e: 0}, "total_steps=100 is more than 100,000 epochs"),
    ],
)
def test_schedule_errors(options, message):
    defaults = {"name": "step", "lr": 0.1, "total_steps": 100, "epoch_starts": ten}
    with pytest.raises(ValueError, match=message):
        make(**{**defaults, **options})
