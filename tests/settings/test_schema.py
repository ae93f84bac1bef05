"""The table of the config's keys: every value is right or refused by name, before anything else."""

import inspect
import math
import re

import numpy as np
import pytest

from fixed_head_jax import augment, data, heads, optim, tasks
from fixed_head_jax.configs import common
from fixed_head_jax.data.crops import METHODS, RANDOM_METHODS
from fixed_head_jax.heads import cosine, linear
from fixed_head_jax.heads.fixed import Identity, Orthogonal
from fixed_head_jax.layers import pooling
from fixed_head_jax.optim.strengths import Strengths
from fixed_head_jax.optim.transfer import Dials
from fixed_head_jax.settings import kinds, schema
from fixed_head_jax.settings.kinds import (
    ascending,
    choice,
    each,
    either,
    number,
    whole,
)
from fixed_head_jax.tasks.supervised import PENALTIES

RIGHT_AND_WRONG = [
    (number(), (0, -1.5, np.float32(2), 1e30), (math.inf, -math.inf, math.nan, None, "1", True)),
    (number("[0, 1)"), (0, 0.0, 0.999), (1, 1.0, 1 - 1e-9, -1e-9, math.nan)),
    (number("(0, 1]"), (1, 1e-9), (0, 1.0001)),
    (number("(0, inf)"), (1e-30, 1e30), (0, 1e-300, 1e39, 1e300, 10**400, math.inf)),
    (whole("[1, 3]"), (1, 3, np.int64(2)), (0, 4, 2.0, True, None, 2**63)),
    (choice("a", "b"), ("a", "b"), ("", "c", None, ("a",), 1)),
    (each(number("[0, 1]")), ((), (0.5,), [0, 1]), (0.5, "ab", None, (2,), (None,), ((0.5,),))),
    (each(number("[0, 1]"), 2), ((0, 1), (1, 0)), ((), (0,), (0, 1, 1))),
    (each(choice("a", "b"), distinct=True), ((), ("b", "a")), ("ab", ("a", "a"), ("c",))),
    (ascending(number("(0, 1]"), 2), ((0.1, 1), (1, 1)), ((1, 0.1), (0, 1), (1,), (None, 1))),
    (ascending(number(), strictly=True), ((), (1, 2)), ((1, 1), (2, 1), (math.nan, 1))),
    (either((), each(number(), 1)), ((), (1,)), ((1, 2), None, 0)),
    (either(0, number("[1, 2]")), (0, 0.0, 1.5), (0.5, 3)),
    (kinds.FLAG, (True, False), (0, 1, None, "True")),
    (kinds.TEXT, ("", "a b", "ä"), (None, 1, "a\nb", "a\x00", "\x7f")),
    (kinds.PATTERNS, ((), ("^head/", "a|b")), ("head", ("(",), (None,), (("a", "b"),))),
    (
        kinds.FACTORS,
        ((), (("^head/", 10.0), ("a", 0))),
        (("a", 1), (("a",),), (("a", -1),), (("(", 1),), (("a", math.nan),), (("a", "1"),), None),
    ),
]


@pytest.mark.parametrize("kind_and_values", RIGHT_AND_WRONG, ids=lambda x: x[0].words[:40])
def test_a_kind_holds_its_values_and_no_others(kind_and_values):
    kind, right, wrong = kind_and_values
    keys = {"group.key": schema.Key(right[0], kind, "")}
    for value in right:
        schema.check(keys, {"group.key": value})
    for value in wrong:
        with pytest.raises(ValueError, match="^group.key=.* must be ") as error:
            schema.check(keys, {"group.key": value})
        assert "\n" not in str(error.value)


def test_every_default_is_right_and_every_key_has_a_meaning():
    defaults = {name: key.default for name, key in common.KEYS.items()}
    assert common.flatten(common.get_config()) == defaults
    common.check(common.get_config())
    for name, key in common.KEYS.items():
        assert key.meaning and "\n" not in key.meaning, name
        assert isinstance(key.default, key.kind.type | type(None)), name


WRONG = (
    None, "", "x", "(", -1, -0.5, 0, 1.5, 2**63, 10**12, math.nan, math.inf, True, (), ("(",),
    (None,), (1, 2, 3, 4, 5), ("a", 2), (("a",),), {}, object(),
)  # fmt: skip


@pytest.mark.parametrize("name", common.KEYS)
def test_no_value_of_a_key_gets_past_unless_it_is_right(name):
    key = common.KEYS[name]
    for value in WRONG:
        right = value is None and key.default is None or key.kind.holds(value)
        if right:
            schema.check(common.KEYS, {name: value})
            continue
        with pytest.raises(ValueError, match=f"^{name}=.* must be ") as error:
            common.override(common.get_config(), {name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.b1": 1.0, "optim.momentum": 1.5}, "optim.b1=1.0 .*; optim.momentum=1.5 must be"),
        ({"optim.frozen": ("(",)}, "optim.frozen.*a regular expression"),
        ({"seed": 2**32}, r"seed=4294967296 must be a whole number in \[0, 4294967295\]"),
        ({"evaluators": ("knn", "knn")}, "evaluators.*none twice"),
        ({"model.head": "identiti"}, "model.head='identiti'.*did you mean 'identity'"),
        ({"lr": 3}, r"there is no key lr \(did you mean optim.lr\?\)"),
        ({"optim": 3}, r"no key optim \(did you mean optim.name, .*, \.\.\.\?\)"),
        ({"optim.lrr": 3}, r"no key optim.lrr \(did you mean 'optim.lr'\?\)"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(overrides, message):
    with pytest.raises(ValueError, match=message):
        common.override(common.get_config(), overrides)


def test_an_optional_key_goes_back_to_none():
    config = common.override(common.get_config(), {"model.head_options.kappa": 4.0})
    assert config.model.head_options.kappa == 4.0
    config = common.override(config, {"model.head_options.kappa": None})
    assert config.model.head_options.kappa is None and config.is_locked


def test_values_are_stored_in_the_types_of_their_keys():
    overrides = {"seed": np.int64(3), "optim.lr": np.float32(0.5), "evaluators": ["knn"]}
    config = common.override(common.get_config(), overrides)
    assert (config.seed, config.optim.lr, config.evaluators) == (3, 0.5, ("knn",))
    assert type(config.seed) is int and type(config.optim.lr) is float


def names(key):
    return set(common.KEYS[key].kind.names)


def test_choices_are_those_that_the_package_knows():
    assert names("model.pool") == set(pooling.POOLINGS)
    assert names("task.name") == set(tasks.TASKS)
    assert names("data.interpolation") == set(METHODS)
    assert names("data.crop_interpolation") == set(RANDOM_METHODS)
    assert names("task.options.orthogonality") == set(PENALTIES)
    assert names("model.head_options.scale_form") == set(cosine.SCALE_FORMS)
    assert names("model.head_options.bias_form") == set(cosine.BIAS_FORMS)
    inits = set(linear.KERNEL_INITS) | set(cosine.KERNEL_INITS)
    assert names("model.head_options.kernel_init") == inits
    for name in names("optim.name"):
        optim.make_optimizer({"w": np.zeros(2)}, 0.1, optim.Rule(name))
    for name in names("model.head_options.bias_init"):
        Orthogonal(2, bias_init=name)
    for name in names("model.head_options.take"):
        Identity(2, take=name)


def test_every_option_of_every_head_is_a_key():
    every = {**heads.HEADS, **heads.EMBEDDING_HEADS}
    not_ours = {"num_classes", "parent", "name", "axis_name"}
    options = {o for head in every.values() for o in inspect.signature(head).parameters} - not_ours
    assert {f"model.head_options.{o}" for o in options} == {
        key for key in common.KEYS if key.startswith("model.head_options.")
    }


def test_listing_says_all_of_a_key():
    lines = schema.listing(common.KEYS, "ema").splitlines()
    assert lines == [
        "ema_decay = 0.0",
        "    averages of parameters and batch statistics; 0: none",
        "    a number in [0, 1)",
        "model.backbone_options.remat = None",
        "    computes blocks again, to save memory",
        "    True or False or None",
    ]


GROUPS = (
    augment.Options, augment.ViewSet, data.Options, optim.Rule, optim.Schedule, optim.Plateau,
    Strengths, Dials,
)  # fmt: skip


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.__module__}.{group.__name__}")
def test_a_group_is_made_of_what_its_keys_may_be(group):
    assert schema.read(group, common.get_config()) == group()
    for key in schema.keys_of(group):
        name = key.removeprefix(f"{group.group_name}.")
        for wrong in (math.nan, -1, object(), (0.5, "a"), "\n"):
            with pytest.raises(ValueError, match=f"^{re.escape(key)}=.* must be "):
                group(**{name: wrong})


def test_a_group_says_all_that_is_wrong_at_once():
    with pytest.raises(ValueError, match="augment.flip=2 must be.*; augment.hue=0.7 must be"):
        augment.Options(hue=0.7, flip=2)


def test_a_group_stores_its_values_in_the_types_of_its_keys():
    schedule = optim.Schedule(milestones=[np.int64(30), 60], final_lr=0)
    assert repr(schedule.milestones) == "(30.0, 60.0)" and repr(schedule.final_lr) == "0.0"
