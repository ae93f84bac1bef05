"""Self-Classifier's loss against the specification's numbers, and what holds of any logits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy.special import log_softmax, softmax

from fixed_head_jax.devices import parallel
from fixed_head_jax.losses.self_classifier import pair_losses, self_classifier_loss, view_pairs

V0 = [[0.6, -0.2, 0.1], [-0.3, 0.5, 0.2], [0.0, 0.1, 0.7], [0.4, 0.3, -0.5]]
V1 = [[0.5, 0.0, -0.1], [-0.1, 0.4, 0.3], [0.2, -0.2, 0.6], [0.1, 0.45, -0.3]]
V2 = [[0.3, 0.1, 0.2], [0.0, 0.2, 0.25], [-0.1, 0.3, 0.35], [0.45, 0.15, -0.2]]
V3 = [[0.25, -0.05, 0.0], [0.1, 0.35, 0.1], [0.05, 0.0, 0.5], [0.2, 0.6, -0.1]]
W0 = [[0.2, -0.1, 0.3, 0.0], [0.5, 0.1, -0.2, 0.1], [-0.4, 0.3, 0.2, 0.6], [0.1, 0.0, 0.4, -0.3]]
W1 = [[0.1, 0.0, 0.35, -0.1], [0.4, 0.2, -0.1, 0.0], [-0.2, 0.1, 0.3, 0.5], [0.15, -0.1, 0.3, -0.2]]
A, B, C, D = (jnp.array(views) for views in ([V0, V1], [V0, V1, V2], [W0, W1], [V0, V1, V2, V3]))
FORMS = pytest.mark.parametrize("eps", [1e-12, 0.0], ids=["eps", "stable"])
# jitted: each form is compiled once for each shape.
OPTIONS = ("num_global", "row_temperature", "column_temperature", "eps")
loss_of = jax.jit(self_classifier_loss, static_argnames=OPTIONS)


def reference(logits, num_global=2, row=0.1, column=0.05, eps=1e-12):
    """Computes the loss pair by pair, in float64, as the specification writes it."""
    views, (num_images, num_classes) = np.asarray(logits, np.float64), logits.shape[1:]
    losses = []
    for i, target in enumerate(views):
        columns = softmax(target / column, axis=0)
        targets = columns / np.maximum(columns.sum(1, keepdims=True), eps)
        for j, predicted in enumerate(views):
            if i != j and (i < num_global or j < num_global):
                rows = softmax(predicted / row, axis=1)
                rows = rows / np.maximum(rows.sum(0, keepdims=True), eps)
                predictions = np.log(num_images / num_classes * rows + eps)
                losses.append(-(targets * predictions).sum() / num_images)
    return np.mean(losses)


@FORMS
@pytest.mark.parametrize(
    ("logits", "expected"),
    [(A, 0.4166093222), (B, 1.2593178879), (C, 0.7961990761), (D, 1.1531246545)],
    ids="ABCD",
)
def test_worked_numbers(logits, expected, eps):
    np.testing.assert_allclose(loss_of(logits, eps=eps), expected, rtol=1e-6)


def test_other_worked_numbers():
    np.testing.assert_allclose(loss_of(A, eps=1e-8), 0.4166092856, rtol=1e-6)
    both_one = loss_of(A, row_temperature=1.0, column_temperature=1.0)
    np.testing.assert_allclose(both_one, 1.0672796079, rtol=1e-6)
    heads = (loss_of(A) + loss_of(C)) / 2
    np.testing.assert_allclose(heads, 0.6064041992, rtol=1e-6)
    random = np.random.RandomState(0)
    views = np.stack([np.clip(random.randn(8, 5) * 0.3, -1, 1) for _ in range(4)])
    np.testing.assert_allclose(views[0, 0, 0], 0.5292157038, atol=1e-10)
    np.testing.assert_allclose(loss_of(jnp.asarray(views)), 3.01762372, rtol=1e-6)


def test_terms_of_every_pair():
    terms = np.asarray(pair_losses(B, 0.1, 0.05, 1e-12))
    targets, predicted = [1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]
    expected = [
        0.3165416350, 2.0011133826, 0.5166770094, 2.7991063902, 0.8130956534, 1.1093732567
    ]  # fmt: skip
    np.testing.assert_allclose(terms[targets, predicted], expected, rtol=1e-6)


@FORMS
def test_gradients_of_example_a(eps):
    expected = [
        [
            [-1.8589417186, 0.0007501518, 0.0115851077],
            [-0.0000332351, 1.8292008772, 0.0102482645],
            [-0.0023369232, 0.0125986143, -0.0029394053],
            [2.5030452056, -2.5033004755, 0.0001235366],
        ],
        [
            [-0.0506447851, 0.0054679945, 0.0011234397],
            [0.0101331245, -0.3711848168, 0.3777396995],
            [0.0826860106, 0.0000544693, -0.1008450509],
            [-0.5694051042, 0.6142696625, 0.0006053564],
        ],
    ]
    grads = jax.jit(jax.grad(partial(self_classifier_loss, eps=eps)))(A)
    np.testing.assert_allclose(grads, expected, atol=1e-6)


def test_gradient_norms_of_example_b():
    grads = jax.jit(jax.grad(self_classifier_loss))(B)
    norms = np.linalg.norm(np.asarray(grads), axis=(1, 2))
    np.testing.assert_allclose(norms, [0.6091863001, 0.9037418929, 5.5970363937], rtol=1e-6)


@FORMS
def test_equals_the_reference_on_random_logits(eps):
    random = np.random.default_rng(0)
    logits = 0.4 * random.normal(size=(5, 7, 6)) + 0.2 * random.normal(size=(7, 6))
    ours = loss_of(jnp.asarray(logits, jnp.float32), num_global=3, eps=eps)
    np.testing.assert_allclose(ours, reference(logits, num_global=3), rtol=2e-6)


@pytest.mark.parametrize(("num_local", "count"), [(0, 2), (1, 6), (2, 10), (6, 26)])
def test_number_of_pairs(num_local, count):
    pairs = view_pairs(2 + num_local)
    assert pairs.sum() == count and not pairs[2:, 2:].any() and not pairs.diagonal().any()
    assert pairs[2:, :2].all()  # local views are targets, too


@pytest.mark.parametrize("devices", [2, 4])
@FORMS
def test_devices_give_the_loss_and_gradient_of_the_whole_batch(devices, eps):
    mesh = parallel.make_mesh(devices)
    loss = partial(self_classifier_loss, eps=eps)

    def shard(logits):
        value, grads = jax.value_and_grad(partial(loss, axis_name=parallel.AXIS))(logits)
        return value[None], grads / devices  # the step averages over devices

    by_images = P(None, parallel.AXIS)
    mapped = jax.shard_map(
        shard, mesh=mesh, in_specs=by_images, out_specs=(P(parallel.AXIS), by_images),
        check_vma=False,
    )  # fmt: skip
    values, grads = jax.jit(mapped)(D)
    np.testing.assert_allclose(values.mean(), 1.1531246545, rtol=1e-6)
    np.testing.assert_allclose(grads, jax.grad(loss)(D), rtol=1e-5, atol=1e-6)
    if devices == 2:
        values, _ = jax.jit(mapped)(A)
        np.testing.assert_allclose(values, [0.1456102290, 0.6876084154], rtol=1e-5)


# What holds of any logits: the specification's section 1.5.


@FORMS
def test_collapse_costs_the_logarithm_of_the_number_of_classes(eps):
    same = jnp.broadcast_to(jnp.array([0.5, -0.1, 0.03]), (2, 4, 3))
    np.testing.assert_allclose(loss_of(same, eps=eps), np.log(3), rtol=1e-5)
    np.testing.assert_allclose(loss_of(jnp.zeros((2, 4, 3)), eps=eps), np.log(3), rtol=1e-6)


def test_guards_are_those_of_the_reference():
    rows = jnp.broadcast_to(jnp.array([5.0, -1.0, 0.3]), (2, 4, 3))
    # exp(-60) in float32: 60 has an error of 4e-6.
    np.testing.assert_allclose(loss_of(rows), 15.93304297, rtol=4e-6)
    np.testing.assert_allclose(loss_of(rows, eps=0.0), np.log(3), rtol=1e-5)


@FORMS
def test_balanced_and_unbalanced_assignments(eps):
    def assigned(classes):
        return jnp.broadcast_to(10.0 * jax.nn.one_hot(jnp.array(classes), 3), (2, 6, 3))

    np.testing.assert_allclose(loss_of(assigned([0, 1, 2, 0, 1, 2]), eps=eps), 0, atol=1e-6)
    unbalanced = loss_of(assigned([0, 0, 0, 0, 1, 2]), eps=eps)
    np.testing.assert_allclose(unbalanced, 0.23104906, rtol=1e-5)


@FORMS
def test_lower_bound(eps):
    random = np.random.default_rng(1)
    for scale in (0.1, 0.4):
        logits = scale * random.normal(size=(2, 6, 9))
        columns = log_softmax(logits / 0.05, axis=1)
        targets = softmax(columns, axis=2)
        mean = targets.mean(1)
        entropy = -(targets * np.log(targets)).sum(2).mean(1)
        bound = np.log(9) + (mean * np.log(mean)).sum(1) + entropy
        terms = pair_losses(jnp.asarray(logits, jnp.float32), 0.1, 0.05, eps)
        assert terms[0, 1] >= bound[0] and terms[1, 0] >= bound[1] >= np.log(9 / 6)


def test_targets_and_predictions_ignore_what_they_normalise():
    constants = jnp.array([0.3, -0.2, 0.5])[None, None]
    targets = jnp.stack([A[0] + constants[0], A[1]])
    np.testing.assert_allclose(
        pair_losses(targets, 0.1, 0.05, 1e-12)[0, 1],
        pair_losses(A, 0.1, 0.05, 1e-12)[0, 1],
        rtol=1e-5,
    )
    offsets = jnp.array([0.3, -0.2, 0.5, 0.1])[:, None]
    predicted = jnp.stack([A[0], A[1] + offsets])
    np.testing.assert_allclose(
        pair_losses(predicted, 0.1, 0.05, 1e-12)[0, 1],
        pair_losses(A, 0.1, 0.05, 1e-12)[0, 1],
        rtol=1e-5,
    )


@FORMS
def test_order_of_images_and_classes_does_not_matter(eps):
    images, classes = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    for other in (D[:, images], D[:, :, classes]):
        np.testing.assert_allclose(loss_of(other, eps=eps), loss_of(D, eps=eps), rtol=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
    half = D.astype(jnp.bfloat16)
    assert loss_of(half).dtype == jnp.float32
    np.testing.assert_allclose(loss_of(half), loss_of(half.astype(jnp.float32)), rtol=1e-6)


@FORMS
def test_gradients_are_finite_at_the_edges(eps):
    for logits in (100 * D, jnp.zeros((2, 4, 3)), jnp.broadcast_to(100 * D[:1, :1], (2, 4, 3))):
        grads = jax.jit(jax.grad(partial(self_classifier_loss, eps=eps)))(logits)
        assert jnp.isfinite(grads).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(row_temperature=0.0), "row_temperature must be positive, got 0.0"),
        (dict(column_temperature=-1.0), "column_temperature must be positive, got -1.0"),
        (dict(eps=-1e-9), "eps must be at least 0"),
        (dict(num_global=3), "num_global=3 of 2 views"),
        (dict(num_global=0), "num_global=0 of 2 views"),
        (dict(logits=A[:1], num_global=1), "num_global=1 of 1 views"),
        (dict(logits=A[..., :1]), "logits must be of at least 2 classes, got 1"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        self_classifier_loss(**{"logits": A, **arguments})
