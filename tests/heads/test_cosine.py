"""Cosine, t-vMF and margin heads against the specification's worked numbers and their formulas."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fixed_head_jax.heads.cosine import TVMF, ArcFace, CosFace, Cosine, t_vmf
from fixed_head_jax.heads.linear import Linear
from fixed_head_jax.layers.pooling import Mean
from fixed_head_jax.model import Classifier
from fixed_head_jax.tasks import get_task

RNG = jax.random.key(0)
H = jnp.array([[3.0, 4, 0, 0], [1, 2, 2, 4]])
KERNEL = jnp.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [2, -1, 2, 0]]).T
COSINES = np.array([[0.6, 0.7, 2 / 15], [0.2, 0.9, 4 / 15]])
LABELS = jnp.array([1, 2])
BIAS = jnp.array([0.1, -0.2, 0.3])
SHALEV = dict(kernel_init="random_integers", scale_form="constant", bias_form="outside")
KAPPAS = (-0.499, -0.3, 0.0, 4.0, 16.0, 64.0)
EDGE_KAPPAS = (-0.5 + 1e-15, *KAPPAS, 1e6)  # anything above -1/2

# Every head and option that changes what is computed, learned and fixed.
KINDS = [
    (Cosine, {}),
    (Cosine, SHALEV | dict(init_scale=10.0)),
    (Cosine, dict(scale_form="learned", init_scale=16.0, bias_form="inside")),
    (TVMF, {}),
    (TVMF, dict(kappa=-0.3, bias_form="outside")),
    (CosFace, {}),
    (ArcFace, {}),
    (ArcFace, dict(easy_margin=True)),
]
LEARNED = [(kind, options | {"fixed": False}) for kind, options in KINDS]
FIXED = [(kind, options | {"fixed": True}) for kind, options in KINDS]
VARIANTS = LEARNED + FIXED


def cross_entropy(logits, labels=LABELS):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def given(head, **params):
    """Returns the head's logits of `H` with the class vectors `KERNEL` and other `params`."""
    vectors = {"kernel": KERNEL}
    variables = {"fixed": vectors} if head.fixed else {"params": {**vectors, **params}}
    return head.apply(variables, H)


def build(kind, options, num_classes=5, dim=8):
    """Returns the head, asymmetric features [3, dim], and the variables by params and the rest."""
    head = kind(num_classes, **options)
    features = jax.random.normal(jax.random.key(1), (3, dim)) + 0.3
    rest = dict(head.init(RNG, features))
    return head, features, rest.pop("params", {}), rest


def training_loss(params, head, rest, features):
    logits = head.apply({"params": params, **rest}, features)
    labels = jnp.arange(len(features)) % head.num_classes
    if hasattr(head, "training_logits"):
        logits = head.training_logits(logits, labels)
    return cross_entropy(logits, labels).mean()


loss_and_grads = jax.jit(jax.value_and_grad(training_loss, (0, 3)), static_argnums=1)


def assert_finite(tree):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# Worked numbers.


@pytest.mark.parametrize(
    "scale, losses",
    [
        (1.0, [1.14959362, 1.06765782]),
        (10.0, [0.40698985, 5.83748392]),
        (20.0, [0.16780271, 12.16667299]),
    ],
)
def test_shalev_learned(scale, losses):
    logits = given(Cosine(3, init_scale=scale, **SHALEV), bias=BIAS)
    np.testing.assert_allclose(logits, scale * COSINES + BIAS[None], atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits), losses, atol=2e-5)


def test_shalev_fixed():
    logits = given(Cosine(3, fixed=True, init_scale=10.0, **SHALEV))
    np.testing.assert_allclose(logits, 10 * COSINES + 0.01, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits).mean(), 3.32590261, atol=1e-5)


PHI = {
    -0.3: [[0.81818182, 0.86813187, 0.53153153], [0.57894737, 0.95876289, 0.62393162]],
    0.0: COSINES,
    4.0: [[-0.38461538, -0.22727273, -0.74626866], [-0.71428571, 0.35714286, -0.67796610]],
    16.0: [[-0.78378378, -0.70689655, -0.92376682], [-0.91304348, -0.26923077, -0.90052356]],
    64.0: [[-0.93984962, -0.91584158, -0.97992916], [-0.97701149, -0.74324324, -0.97357441]],
}
LOSSES = {
    -0.3: [0.91006294, 1.30548825],
    0.0: [0.80081104, 1.57182559],
    4.0: [0.77998368, 2.04250458],
    16.0: [0.94414397, 1.58742064],
    64.0: [1.04988977, 1.24448751],
}


@pytest.mark.parametrize("kappa", PHI)
def test_kobayashi(kappa):
    logits = given(TVMF(3, kappa=kappa), raw_scale=0.0)
    np.testing.assert_allclose(logits, 1.69314718 * np.array(PHI[kappa]), atol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits), LOSSES[kappa], atol=1e-5)


def test_kobayashi_defaults_and_bias():
    np.testing.assert_array_equal(
        given(TVMF(3), raw_scale=0.0), given(TVMF(3, kappa=16.0), raw_scale=0.0)
    )
    np.testing.assert_array_equal(
        given(Cosine(3), raw_scale=0.0), given(TVMF(3, kappa=0.0), raw_scale=0.0)
    )
    logits = given(TVMF(3, bias_form="inside"), raw_scale=0.0, bias=BIAS)
    np.testing.assert_allclose(cross_entropy(logits).mean(), 1.24267348, atol=1e-5)


@pytest.mark.parametrize("raw, scale", [(-2.0, 1.12692801), (0.0, 1.69314718), (3.0, 4.04858735)])
def test_softplus_scale(raw, scale):
    np.testing.assert_allclose(given(Cosine(3), raw_scale=raw), scale * COSINES, atol=1e-5)


TABLE = {
    -0.3: [-1, -0.09090909, 0.42857143, 0.76470588, 0.95876289, 1],
    4.0: [-1, -0.92857143, -0.8, -0.5, 0.35714286, 1],
    16.0: [-1, -0.98, -0.94117647, -0.83333333, -0.26923077, 1],
    64.0: [-1, -0.99484536, -0.98461538, -0.95454545, -0.74324324, 1],
}
SLOPES = {-0.3: (0.4, 2.5), 4.0: (9, 0.11111111), 16.0: (33, 0.03030303), 64.0: (129, 0.00775194)}


@pytest.mark.parametrize("kappa", TABLE)
def test_t_vmf_table(kappa):
    cosines = jnp.array([-1, -0.5, 0, 0.5, 0.9, 1])
    np.testing.assert_allclose(t_vmf(cosines, kappa), TABLE[kappa], atol=1e-5)
    slopes = [jax.grad(t_vmf)(cosine, kappa) for cosine in (1.0, -1.0)]
    np.testing.assert_allclose(slopes, SLOPES[kappa], rtol=1e-5)


def test_t_vmf_slope():
    assert jax.grad(t_vmf)(0.7, 16.0) == pytest.approx(0.98097503, abs=1e-5)


MARGINS = [
    (CosFace, 0.0, [0.7, 4 / 15], 5.15869177),
    (CosFace, 0.35, [0.35, -0.08333333], 9.87602924),
    (ArcFace, 0.0, [0.7, 4 / 15], 5.15869177),
    (ArcFace, 0.5, [0.27192948, -0.22804296], 11.65181821),
]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind, margin, targets, loss", MARGINS)
def test_margins(kind, margin, targets, loss, fixed):
    head = kind(3, fixed=fixed, scale=16.0, margin=margin)
    logits = given(head)
    np.testing.assert_allclose(logits, 16 * COSINES, atol=1e-5)
    in_training = head.training_logits(logits, LABELS)
    expected = np.array(logits) / 16
    expected[[0, 1], LABELS] = targets
    np.testing.assert_allclose(in_training / 16, expected, atol=1e-5)
    np.testing.assert_allclose(cross_entropy(in_training).mean(), loss, atol=2e-5)


@pytest.mark.parametrize("form", ["learned", "constant"])
def test_normface(form):
    head = Cosine(3, scale_form=form, init_scale=16.0)
    scale = head.init(RNG, H)["params"].get("scale", 16.0)
    logits = given(head, **({"scale": scale} if form == "learned" else {}))
    np.testing.assert_allclose(cross_entropy(logits).mean(), 5.15869177, atol=2e-5)


# The t-vMF similarity.


@pytest.mark.parametrize("kappa", KAPPAS)
def test_t_vmf_values_and_slopes(kappa):
    cosines = np.linspace(-1, 1, 201)
    ours, slopes = jax.vmap(jax.value_and_grad(t_vmf), (0, None))(jnp.float32(cosines), kappa)
    denominator = 1 + kappa * (1 - cosines)
    np.testing.assert_allclose(ours, (1 + cosines) / denominator - 1, atol=2e-5)
    np.testing.assert_allclose(slopes, (1 + 2 * kappa) / denominator**2, rtol=1e-3, atol=1e-6)
    zero = jnp.float32(kappa / (1 + kappa))
    assert t_vmf(zero, kappa) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kappa", EDGE_KAPPAS)
def test_t_vmf_ends_and_order(kappa):
    values = t_vmf(jnp.linspace(-1, 1, 201), kappa)
    assert values[0] == -1 and values[-1] == 1 and (jnp.diff(values) >= 0).all()
    slopes = [float(jax.grad(t_vmf)(cosine, kappa)) for cosine in (1.0, -1.0)]
    assert slopes == pytest.approx([1 + 2 * kappa, 1 / (1 + 2 * kappa)], rel=1e-5)


@pytest.mark.parametrize("kappa", [EDGE_KAPPAS[0], -0.3, 64.0, EDGE_KAPPAS[-1]])
def test_t_vmf_head_is_finite_along_and_against_the_class_vectors(kappa):
    vectors = jax.random.normal(RNG, (20, 64))
    features = jnp.concatenate([vectors, -vectors, 1e6 * vectors, jnp.zeros((1, 64))])
    head, params = TVMF(20, kappa=kappa), {"kernel": vectors.T, "raw_scale": jnp.float32(0)}
    assert_finite(loss_and_grads(params, head, {}, features))
    # Some of these cosines are beyond -1 and 1 by a rounding error.
    assert jnp.abs(head.apply({"params": params}, features)).max() == pytest.approx(1.69314718)


# Margins.


def target_logits(head, cosines):
    """Returns the training logit of label 0 at each of its cosines."""
    logits = jnp.stack([cosines, jnp.zeros_like(cosines)], 1) * head.scale
    return head.training_logits(logits, jnp.zeros(len(cosines), jnp.int32))[:, 0]


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.0, math.pi / 2])
def test_arcface_is_monotone_and_equals_arccos(margin):
    head = ArcFace(2, margin=margin, scale=30.0)
    cosines = np.linspace(-1, 1, 4001)
    ours = target_logits(head, jnp.array(cosines, jnp.float32)) / 30
    theta = np.arccos(cosines)
    past = cosines - margin * np.sin(margin)
    exact = np.where(theta > np.pi - margin, past, np.cos(theta + margin))
    away = np.abs(theta - (np.pi - margin)) > 1e-3  # rounding decides the case at the seam
    np.testing.assert_allclose(ours[away], exact[away], atol=5e-4)  # sqrt(1 - c^2) at the ends
    np.testing.assert_allclose(ours[away][50:-50], exact[away][50:-50], atol=5e-6)
    assert (jnp.diff(ours) >= -1e-6).all()
    assert (ours <= cosines + 1e-6).all()


def test_an_easy_margin_ends_at_90_degrees():
    cosines = jnp.array([-1.0, -0.9, 0.0, 0.1, 0.8, 1.0])
    head = ArcFace(2, easy_margin=True)
    expected = np.where(cosines > 0, np.cos(np.arccos(cosines) + 0.5), cosines)
    np.testing.assert_allclose(target_logits(head, cosines) / 64, expected, atol=5e-4)
    slopes = jax.grad(lambda c: target_logits(head, c).sum())(cosines) / 64
    np.testing.assert_allclose(slopes[:3], 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [CosFace, ArcFace])
def test_margin_gradients(kind):
    head = kind(2)
    cosines = jnp.array([-1.0, -0.95, -0.5, 0.2, 0.9, 1.0])
    slopes = jax.grad(lambda c: target_logits(head, c).sum())(cosines) / head.scale
    assert_finite(slopes)
    theta = np.arccos(cosines[2:-1])
    shift = np.sin(theta + 0.5) / np.sin(theta)  # not 1: the margin's own gradient flows
    np.testing.assert_allclose(slopes[:2], 1, rtol=1e-5)
    np.testing.assert_allclose(slopes[2:-1], shift if kind is ArcFace else 1, rtol=1e-4)


@pytest.mark.parametrize("kind", [CosFace, ArcFace])
def test_margin_heads_are_finite_along_and_against_their_class_vectors(kind):
    features = jnp.concatenate([KERNEL.T, -KERNEL.T])
    assert_finite(loss_and_grads({"kernel": KERNEL}, kind(3), {}, features))


# Features, class vectors and initial values.


@pytest.mark.parametrize("kind, options", LEARNED)
def test_lengths_of_features_and_class_vectors_do_not_matter(kind, options):
    head, features, params, rest = build(kind, options)
    logits = head.apply({"params": params}, features)
    lengths = jnp.array([0.01, 1, 3, 50, 1000])
    scaled = {**params, "kernel": params["kernel"] * lengths[None]}
    again = head.apply({"params": scaled}, features * jnp.array([[7.0], [0.02], [300]]))
    np.testing.assert_allclose(again, logits, atol=1e-4 * max(1, jnp.abs(logits).max()))
    grads = loss_and_grads(params, head, rest, features)[1][0]["kernel"]
    along = (grads * params["kernel"]).sum(0)  # the normalisation is differentiated, too
    np.testing.assert_allclose(along, 0, atol=2e-6 * max(1, jnp.abs(grads).max()))


def test_fixed_class_vectors_are_normalised_too():
    options = dict(scale_form="constant", fixed=True)
    np.testing.assert_allclose(given(Cosine(3, **options)), COSINES, atol=1e-6)


def test_initial_values():
    _, _, params, rest = build(Cosine, {}, num_classes=300, dim=400)
    assert set(params) == {"kernel", "raw_scale"} and params["raw_scale"] == 0 and not rest
    assert 0.045 < jnp.abs(params["kernel"]).max() <= 0.05
    _, _, params, _ = build(Cosine, dict(bias_form="inside"), num_classes=300, dim=400)
    assert 0.045 < jnp.abs(params["bias"]).max() <= 0.05
    _, _, params, _ = build(Cosine, SHALEV, num_classes=300, dim=400)
    assert set(params) == {"kernel", "bias"} and (params["bias"] == 0.01).all()
    np.testing.assert_allclose(jnp.linalg.norm(params["kernel"], axis=0), 1, atol=1e-6)
    _, _, params, rest = build(Cosine, SHALEV | {"fixed": True})
    assert not params and set(rest["fixed"]) == {"kernel"}


@pytest.mark.parametrize("fixed", [False, True])
def test_random_integers_are_those_of_the_frame(fixed, monkeypatch):
    options = dict(kernel_init="random_integers", fixed=fixed)
    draw = partial(jax.random.randint, minval=1, maxval=2)
    monkeypatch.setattr(jax.random, "randint", lambda rng, shape, *_: draw(rng, shape))
    _, _, params, rest = build(CosFace, options)
    kernel = rest["fixed"]["kernel"] if fixed else params["kernel"]
    np.testing.assert_allclose(kernel, 8**-0.5, atol=1e-6)


@pytest.mark.parametrize("form", ["softplus", "learned", "constant"])
@pytest.mark.parametrize("scale", [1.0001, 1.5, 20.0, 2000.0])
def test_init_scale(form, scale):
    head, features, params, _ = build(Cosine, dict(scale_form=form, init_scale=scale))
    unit = Cosine(5, scale_form="constant").apply({"params": params}, features)
    np.testing.assert_allclose(head.apply({"params": params}, features), scale * unit, rtol=1e-5)
    assert set(params) - {"kernel"} == {"softplus": {"raw_scale"}, "learned": {"scale"}}.get(
        form, set()
    )


def test_cosines_take_all_bits_of_float32_on_any_device():
    head, features, params, _ = build(Cosine, {})
    program = jax.make_jaxpr(head.apply)({"params": params}, features)
    products = [each for each in program.jaxpr.eqns if each.primitive.name == "dot_general"]
    assert {each.params["precision"] for each in products} == {(jax.lax.Precision.HIGHEST,) * 2}


# The contract.


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_contract(kind, options):
    head, features, params, rest = build(kind, options)
    variables = {"params": params, **rest}
    logits = head.apply(variables, features)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    tolerance = 2e-6 * max(1, jnp.abs(logits).max())
    np.testing.assert_allclose(jax.jit(head.apply)(variables, features), logits, atol=tolerance)
    if hasattr(head, "training_logits"):
        labels = jnp.array([4, 0, 2])
        in_training = head.training_logits(logits, labels)
        has_margin = logits[jnp.arange(3), labels] > 0 if "easy_margin" in options else True
        assert (in_training <= logits).all()
        assert ((in_training < logits).sum(1) == has_margin).all()
        jitted = jax.jit(head.training_logits)(logits, labels)
        np.testing.assert_allclose(jitted, in_training, atol=tolerance)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert ("kernel" in params) != options["fixed"]
    assert ("kernel" in rest.get("fixed", {})) == options["fixed"]
    head.check_capacity(1)


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_class_vectors(kind, options):
    """Without a bias the logits are in the order of the cosines with the class vectors."""
    head, features, params, rest = build(kind, options)
    variables = {"params": params, **rest}
    vectors = head.class_vectors(variables, 8)
    stored = rest["fixed"] if options["fixed"] else params
    np.testing.assert_array_equal(vectors, stored["kernel"])
    jitted = jax.jit(head.class_vectors, static_argnums=1)(variables, 8)
    np.testing.assert_array_equal(jitted, vectors)
    if options.get("bias_form"):
        head = head.clone(bias_form="none")
    logits = head.apply(variables, features)
    x, y = np.asarray(features, np.float64), np.asarray(vectors, np.float64)
    cosines = x @ y / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=0)[None]
    np.testing.assert_array_equal(np.argsort(logits, axis=None), np.argsort(cosines, axis=None))


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_zero_features_and_class_vectors_give_finite_logits_and_gradients(kind, options):
    head, features, params, rest = build(kind, options)
    assert_finite(loss_and_grads(params, head, rest, jnp.zeros_like(features)))
    zeros = jax.tree.map(jnp.zeros_like, (params, rest))
    assert_finite(loss_and_grads(zeros[0], head, zeros[1], features))


@pytest.mark.parametrize("kind", [TVMF, ArcFace])
def test_one_class(kind):
    head, features, params, rest = build(kind, {}, num_classes=1)
    assert head.apply({"params": params}, features).shape == (3, 1)
    value, grads = loss_and_grads(params, head, rest, features)
    for leaf in jax.tree.leaves((value, grads)):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


@pytest.mark.parametrize("kind, options", FIXED)
def test_fixed_class_vectors_survive_adamw_with_decay(kind, options):
    head, features, params, rest = build(kind, options)
    before, start = np.array(rest["fixed"]["kernel"]), params
    tx = optax.adamw(0.1, weight_decay=0.5)
    state = tx.init(params)
    for _ in range(2):
        _, (grads, _) = loss_and_grads(params, head, rest, features)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert "kernel" not in grads and set(grads) == set(start)
    _, updated = head.apply({"params": params, **rest}, features, mutable=["fixed"])
    np.testing.assert_array_equal(updated["fixed"]["kernel"], before)
    other = head.init(jax.random.key(9), features)["fixed"]["kernel"]
    assert not np.array_equal(other, before)
    assert all((params[key] != start[key]).any() for key in start)


# Training: the margin is in the loss alone.

ARCFACE_TARGETS = [0.27192948, math.cos(math.acos(0.9) + 0.5)]


class Function(nn.Module):
    """A backbone without variables."""

    function: Callable

    def __call__(self, images, train):
        return self.function(images)


def classifier(head):
    return Classifier(Function(lambda images: images), Mean(), head)


def loss_and_accuracy(head, features, labels, **options):
    """Returns the supervised task's loss, its gradient and its accuracy at given features."""
    init, loss, *_ = get_task("supervised", classifier(head), **options)
    batch = {"image": features[:, None, None, :], "label": labels}
    params, model_state, task_state = init(RNG, batch["image"])
    params = {"head": {**params["head"], "kernel": KERNEL}}
    grad_fn = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (_, _, metrics)), grads = grad_fn(params, model_state, task_state, batch, None)
    assert value == metrics["loss"]
    return value, grads, metrics["accuracy"]


@pytest.mark.parametrize("kind, targets", [(CosFace, [0.35, 0.55]), (ArcFace, ARCFACE_TARGETS)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_has_the_margin_and_the_accuracy_has_not(kind, targets, smoothing):
    labels = jnp.array([1, 1])  # both right, though the margin puts the first behind class 0
    logits = 16 * COSINES
    logits[:, 1] = 16 * np.array(targets)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smooth = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    expected = -(smooth * log_probabilities).sum(1).mean()
    head = kind(3, scale=16.0)
    value, grads, accuracy = loss_and_accuracy(head, H, labels, label_smoothing=smoothing)
    assert float(value) == pytest.approx(expected, rel=1e-5) and accuracy == 100
    assert_finite(grads)


def test_evaluation_is_without_margin():
    model = classifier(CosFace(3, scale=16.0))
    variables = {"params": {"head": {"kernel": KERNEL}}}
    logits = model.apply(variables, H[:, None, None, :], train=False)["logits"]
    np.testing.assert_allclose(logits, 16 * COSINES, atol=1e-5)


@pytest.mark.parametrize("head", [Linear(3), Cosine(3), TVMF(3), Cosine(3, fixed=True)])
def test_other_heads_train_on_their_logits(head):
    logits = jnp.ones((2, 3))
    assert classifier(head).training_logits(logits, LABELS) is logits


# Errors.


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (Cosine, dict(kernel_init="x"), "unknown kernel_init 'x'; known: uniform, random_integers"),
        (
            Cosine,
            dict(scale_form="x"),
            "unknown scale_form 'x'; known: softplus, learned, constant",
        ),
        (TVMF, dict(bias_form="x"), "unknown bias_form 'x'; known: none, inside, outside"),
        (Cosine, dict(init_scale=1.0), "init_scale must be finite and > 1 .*'softplus', got 1.0"),
        (
            Cosine,
            dict(scale_form="learned", init_scale=0.0),
            "init_scale must be .* > 0 .* got 0.0",
        ),
        (
            TVMF,
            dict(scale_form="constant", init_scale=-1.0),
            "init_scale must be .* > 0 .* got -1.0",
        ),
        (Cosine, dict(scale_form="constant", init_scale=math.nan), "init_scale must be .* got nan"),
        (TVMF, dict(kappa=-0.5), "kappa must be finite and > -0.5, got -0.5"),
        (Cosine, dict(kappa=-3.0), "kappa must be finite and > -0.5, got -3.0"),
        (TVMF, dict(kappa=math.inf), "kappa must be finite and > -0.5, got inf"),
        (CosFace, dict(kernel_init="x"), "unknown kernel_init 'x'"),
        (CosFace, dict(scale=0.0), "CosFace needs a finite scale > 0, got 0.0"),
        (ArcFace, dict(scale=-64.0), "ArcFace needs a finite scale > 0, got -64.0"),
        (ArcFace, dict(scale=math.inf), "ArcFace needs a finite scale > 0, got inf"),
        (CosFace, dict(margin=-0.1), r"CosFace needs a margin in \[0, 2\], got -0.1"),
        (CosFace, dict(margin=2.1), r"CosFace needs a margin in \[0, 2\], got 2.1"),
        (ArcFace, dict(margin=28.6), r"ArcFace needs a margin in \[0, 1.571\], got 28.6"),
        (ArcFace, dict(margin=math.nan), r"ArcFace needs a margin in \[0, 1.571\], got nan"),
    ],
)
def test_bad_options_raise_at_construction(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(3, **options)
