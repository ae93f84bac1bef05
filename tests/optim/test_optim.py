"""Oracle tests of the optimizers; freezing, groups, L2-SP, clipping and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fixed_head_jax import optim
from fixed_head_jax.settings import paths
from tests.optim.parameters import PLATEAU, make_gradients, make_optimizer, make_params, trained


def run(params, gradients, schedule=lambda step: 0.1, **options):
    tx = make_optimizer(jax.eval_shape(lambda: params), schedule, **options)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for grads in gradients:
        params, state = step(params, state, grads)
    return params, state


def by_path(tree):
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x, np.float64)
        for p, x in paths
    }


def oracle(params, gradients, rule):
    """Runs `rule(p, g, memory, step) -> p` on every leaf in float64."""
    params, memories = by_path(params), {}
    for step, grads in enumerate(gradients):
        for path, g in by_path(grads).items():
            params[path] = rule(params[path], g, memories.setdefault(path, {}), step)
    return params


def assert_close(tree, expected):
    for path, value in by_path(tree).items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-5, atol=2e-6, err_msg=path)


def torch_sgd(lr, momentum=0.9, nesterov=False, weight_decay=0.0):
    def rule(p, g, memory, step):
        g = g + weight_decay * p
        memory["buffer"] = momentum * memory["buffer"] + g if "buffer" in memory else g
        g = g + momentum * memory["buffer"] if nesterov else memory["buffer"]
        return p - lr(step) * g

    return rule


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_sgd_is_torchs(nesterov, weight_decay):
    params = make_params()
    gradients = make_gradients(params, 6)
    options = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": weight_decay}
    out, _ = run(params, gradients, lambda step: 0.1 / (step + 1), **options)
    assert_close(out, oracle(params, gradients, torch_sgd(lambda s: 0.1 / (s + 1), **options)))


def test_sgd_without_momentum_has_no_slots():
    params = make_params()
    gradients = make_gradients(params, 3)
    out, state = run(params, gradients, momentum=0.0)
    assert_close(out, oracle(params, gradients, torch_sgd(lambda s: 0.1, 0.0)))
    assert all(leaf.ndim == 0 for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_rmsprop_is_torchs(eps):
    def rule(p, g, memory, step):
        g = g + 0.05 * p
        memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * g**2
        memory["b"] = 0.8 * memory.get("b", 0.0) + g / (np.sqrt(memory["v"]) + eps)
        return p - 0.01 * memory["b"]

    params = make_params()
    gradients = make_gradients(params, 6)
    options = {"momentum": 0.8, "weight_decay": 0.05, "rms_decay": 0.95, "eps": eps}
    out, _ = run(params, gradients, lambda step: 0.01, name="rmsprop", **options)
    assert_close(out, oracle(params, gradients, rule))


def test_adamw():
    def rule(p, g, memory, step):
        memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * g
        memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * g**2
        m, v = memory["m"] / (1 - 0.8 ** (step + 1)), memory["v"] / (1 - 0.95 ** (step + 1))
        return p - 0.01 * 0.05 * p - 0.01 * m / (np.sqrt(v) + 1e-8)

    params = make_params()
    gradients = make_gradients(params, 6)
    options = {"weight_decay": 0.05, "b1": 0.8, "b2": 0.95}
    out, _ = run(params, gradients, lambda step: 0.01, name="adamw", **options)
    assert_close(out, oracle(params, gradients, rule))


def test_decay_by_parameter():
    params = make_params()
    gradients = make_gradients(params, 4)
    out, _ = run(params, gradients, weight_decay=by_kernel(params, kernels=0.1, others=0.0))
    for path, value in by_path(out).items():
        decay = 0.1 if path.endswith("kernel") else 0.0
        expected = oracle(params, gradients, torch_sgd(lambda s: 0.1, weight_decay=decay))
        np.testing.assert_allclose(value, expected[path], rtol=2e-5, atol=2e-6, err_msg=path)


def test_the_first_matching_multiplier_counts():
    pairs = [("^head/bias", 3.0), ("^head", 10.0), ("bn1", 0.0)]
    factors = paths.multipliers(make_params(), "optim.lr_multipliers", pairs)
    assert factors == {
        "backbone": {"conv1": {"kernel": 1.0}, "bn1": {"scale": 0.0, "bias": 0.0}},
        "head": {"kernel": 10.0, "bias": 3.0},
    }
    for pairs, message in (
        ([("haed", 2.0)], "optim.lr_multipliers pattern 'haed' matches no parameter"),
        ([("head", -2.0)], "optim.lr_multipliers has the factor -2.0 for 'head'; use 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            paths.multipliers(make_params(), "optim.lr_multipliers", pairs)


def by_kernel(params, kernels, others):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: kernels if path[-1].key == "kernel" else others, params
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_schedule_of_every_parameter(name):
    params, options = make_params(), {"name": name, "weight_decay": 0.05}
    gradients = make_gradients(params, 3)
    fast, slow = lambda step: 0.1 / (1 + step), lambda step: 0.01
    out, _ = run(params, gradients, by_kernel(params, fast, slow), **options)
    for expected, kernels in ((run(params, gradients, fast, **options), True),
                              (run(params, gradients, slow, **options), False)):  # fmt: skip
        expected = by_path(expected[0])
        for path, value in by_path(out).items():
            if path.endswith("kernel") == kernels:
                np.testing.assert_array_equal(value, expected[path])


def test_nesterov_sgd_of_the_transfer_work():
    """Worked numbers of its specification, 12.4."""
    w, state = {"w": jnp.float32(1.0)}, None
    tx = make_optimizer(w, lambda step: 0.1, nesterov=True, weight_decay=0.1)
    state, trace = tx.init(w), []
    for _ in range(3):
        updates, state = tx.update({"w": jnp.float32(0.5)}, state, w)
        w = optax.apply_updates(w, updates)
        trace.append(float(w["w"]))
    np.testing.assert_allclose(trace, [0.886, 0.725566, 0.525363646], rtol=3e-7)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_l2_sp_is_the_gradient_of_its_penalty(name):
    """alpha / 2 |w - w0|^2 by group: with SGD in the gradient, with AdamW decoupled, as decay."""
    params = make_params()
    alphas = {
        "backbone": {"conv1": {"kernel": 0.3}, "bn1": {"scale": 0.0, "bias": 0.0}},
        "head": {"kernel": 0.05, "bias": 0.0},
    }
    gradients = make_gradients(params, 5)
    out, _ = run(params, gradients, name=name, momentum=0.0, weight_decay=0.01, l2_sp=alphas)

    def penalty(params, start):
        pairs = zip(*map(jax.tree.leaves, (alphas, params, start)), strict=True)
        return sum(alpha / 2 * jnp.sum((w - w0) ** 2) for alpha, w, w0 in pairs)

    inner = optax.scale_by_adam() if name == "adamw" else optax.identity()
    state, expected = inner.init(params), params
    for grads in gradients:
        direction, state = inner.update(grads, state)
        pull = jax.grad(penalty)(expected, params)
        expected = jax.tree.map(
            lambda w, d, p: w - 0.1 * (d + p + 0.01 * w), expected, direction, pull
        )
    assert_close(by_path(out), by_path(expected))


def test_l2_sp_at_the_start_pulls_nowhere():
    params = make_params()
    zeros = jax.tree.map(jnp.zeros_like, params)
    everywhere = jax.tree.map(lambda _: 0.1, params)
    out, state = run(params, [zeros] * 3, l2_sp=everywhere)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(out), strict=True):
        np.testing.assert_array_equal(before, after)
    moved = jax.tree.map(lambda w: w + 1.0, params)
    tx = make_optimizer(params, lambda step: 0.1, momentum=0.0, l2_sp=everywhere)
    updates, _ = tx.update(zeros, tx.init(params), moved)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -0.01, rtol=1e-5)


def test_l2_sp_keeps_the_start_of_what_it_pulls_alone():
    params = make_params()
    strengths = by_kernel(params, 0.1, 0.0)
    options = {"momentum": 0.0, "l2_sp": strengths, "is_trained": trained(params, "conv1")}
    _, state = run(params, make_gradients(params, 2), **options)
    starts = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    (start,) = starts
    np.testing.assert_array_equal(start, params["head"]["kernel"])


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (
            (3.0, -4.0),
            [(2.99910000, -4.00108571), (3.00383550, -4.02065149), (3.00315637, -4.01961718)],
        ),
        (
            (0.0, 0.0),
            [(-0.18, -0.24), (-2.77063861, -3.69644026), (-3.25679146, -4.34018494)],
        ),
    ],
    ids=["", "from zero"],
)
def test_larc_is_the_vector_of_self_classifier(start, expected):
    rates = jnp.array([0.3, 4.8, 1.0])
    params = {"w": jnp.array(start)}
    tx = make_optimizer(params, lambda step: rates[step], "larc", weight_decay=0.01)
    state = tx.init(params)
    for gradient, after in zip(((0.6, 0.8), (-0.3, 0.1), (0.05, -0.2)), expected, strict=True):
        updates, state = tx.update({"w": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], after, rtol=2e-7, atol=1e-7)


def test_larc_by_parameter():
    """Each has its own norms and decay, none is left out, and what is zero does not turn to NaN."""
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[2.0]]), "c": jnp.zeros(2)}
    grads = {"a": jnp.array([1.0, 0.0]), "b": jnp.zeros((1, 1)), "c": jnp.array([0.5, 0.0])}
    tx = make_optimizer(
        params, lambda step: 2.0, "larc", momentum=0.0, trust_coefficient=0.01,
        weight_decay={"a": 0.1, "b": 0.0, "c": 0.1},
    )  # fmt: skip
    updates, _ = tx.update(grads, tx.init(params), params)
    factor = 0.01 * 5 / (1 + 0.1 * 5)
    np.testing.assert_allclose(updates["a"], [-2 * factor * 1.3, -2 * factor * 0.4], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], jnp.zeros((1, 1)))
    np.testing.assert_allclose(updates["c"], [-1.0, 0.0])


def test_clipping_of_each_parameter_by_itself():
    params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}
    tx = make_optimizer(params, lambda step: 1.0, momentum=0.0, clip_tensor_norm=1.0)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], [-0.5])


def test_clipping_is_by_global_norm():
    params = make_params()
    gradients = make_gradients(params, 1, size=50.0)
    out, _ = run(params, gradients, lambda step: 1.0, clip_norm=0.5, momentum=0.0)
    moved = jax.tree.map(lambda a, b: a - b, params, out)
    np.testing.assert_allclose(float(optax.tree.norm(moved)), 0.5, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_frozen_leaves_keep_every_bit_and_have_no_slots(name):
    params = make_params()
    odd = jnp.asarray([[-0.0, 1e-40, 3.0], [1e30, -1e-39, 0.1]], jnp.float32)
    params["backbone"]["conv1"]["kernel"] = odd
    gradients = make_gradients(params, 5)
    options = {"weight_decay": 0.1, "clip_norm": 1.0, "is_trained": trained(params, "^backbone/")}
    out, state = run(params, gradients, name=name, **options)
    for before, after in zip(
        jax.tree.leaves(params["backbone"]), jax.tree.leaves(out["backbone"]), strict=True
    ):
        assert np.asarray(before).tobytes() == np.asarray(after).tobytes()
    assert not np.array_equal(out["head"]["kernel"], params["head"]["kernel"])
    slots = {"sgd": 1, "rmsprop": 2, "adamw": 2}[name]
    shapes = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(shapes) == sorted([(4,), (3, 4)] * slots)


def test_frozen_gradients_do_not_count_in_clipping():
    params = make_params()
    (grads,) = make_gradients(params, 1)
    huge = {"backbone": jax.tree.map(lambda g: 1e6 * g, grads["backbone"]), "head": grads["head"]}
    options = {"clip_norm": 0.5, "is_trained": trained(params, "backbone")}
    small, _ = run(params, [grads], **options)
    large, _ = run(params, [huge], **options)
    np.testing.assert_array_equal(small["head"]["kernel"], large["head"]["kernel"])
    moved = jax.tree.map(lambda a, b: a - b, params["head"], small["head"])
    np.testing.assert_allclose(float(optax.tree.norm(moved)), 0.1 * 0.5, rtol=1e-5)


def test_state_is_a_pytree_of_arrays():
    params = make_params()
    tx = make_optimizer(
        params, lambda step: 0.1, "adamw", is_trained=trained(params, "bn1"), plateau=PLATEAU
    )
    state = optim.observe(tx.init(params), 1, PLATEAU)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    leaves = list(zip(jax.tree.leaves(state), jax.tree.leaves(tx.init(params)), strict=True))
    assert all(a.dtype == b.dtype and a.weak_type == b.weak_type for a, b in leaves)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "lamb"}, "optim.name='lamb' must be one of sgd, rmsprop, adamw"),
        ({"is_trained": trained(make_params(), ".")}, "all parameters are frozen; leave some"),
        ({"nesterov": True, "name": "adamw"}, "nesterov=True needs optim.name='sgd'"),
        ({"nesterov": True, "momentum": 0.0}, "needs optim.name='sgd' with optim.momentum > 0"),
        ({"clip_norm": -1.0}, r"optim.clip_norm=-1.0 must be a number in \[0, inf\)"),
        ({"momentum": 1.0, "b2": -0.1}, r"momentum=1.0 must be .*; optim.b2=-0.1 must be"),
    ],
)
def test_optimizer_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(make_params(), lambda step: 0.1, **options)


def test_patterns_are_a_sequence():
    with pytest.raises(ValueError, match="frozen='head' is a string; pass a sequence"):
        paths.match(make_params(), "frozen", "head")
