"""Self-Classifier's task: what is counted, normalised, replaced and evaluated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fixed_head_jax.devices import parallel
from fixed_head_jax.losses.self_classifier import self_classifier_loss
from fixed_head_jax.model import get_model
from fixed_head_jax.tasks import get_task, neighbor_queue
from tests.tasks.self_classifier_models import BATCH, HEAD, make_batch, make_model

pytestmark = pytest.mark.usefixtures("tiny_backbone")


def on_devices(function, devices, out_spec):
    """Returns `function(state, batch)` over a mesh, the state as tasks mark it."""

    def mapped(state, batch):
        step = parallel.pmap_step(
            lambda state, _, batch: function(state, batch), parallel.make_mesh(devices),
            parallel.SPLIT, donate=False, state_spec=parallel.state_specs(state),
            out_spec=out_spec(state),
        )  # fmt: skip
        return step(state, {}, batch)

    return mapped


def loss_and_grads(task, devices=1):
    """Returns `(state, batch) -> (loss, grads, state, metrics)`, averaged as the step does."""

    def run(state, batch):
        def loss(params):
            return task.loss(params, state[1], state[2], batch, None)

        (value, (model_state, task_state, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
            state[0]
        )
        averaged = jax.lax.pmean((value, grads, metrics), parallel.AXIS)
        return *averaged[:2], (state[0], model_state, task_state), averaged[2]

    def out_spec(state):
        return (
            parallel.REPLICATED,
            parallel.REPLICATED,
            parallel.state_specs(state),
            parallel.REPLICATED,
        )

    return on_devices(run, devices, out_spec)


def make_state(task, filled=False):
    params, model_state, queue = jax.jit(task.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    if filled:
        random = np.random.default_rng(5)
        rows = random.normal(size=(8, 6)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        queue = neighbor_queue.push(
            queue, jnp.asarray(rows), jnp.arange(8, dtype=jnp.int32),
            jnp.arange(100, 108, dtype=jnp.int32),
        )  # fmt: skip
    return params, model_state, queue


@pytest.mark.slow
def test_batch_norm_sees_each_size_by_itself_and_the_mlp_all():
    model = make_model()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    plain = get_model(10, "tiny", "projection", head_options=HEAD)

    @partial(jax.jit, static_argnums=2)
    def embed(large, small, method):
        if method == "features":
            out, updates = plain.apply(variables, large, train=True, mutable=["batch_stats"])
            return out["features"], updates
        return plain.apply(
            variables, [large, small], train=True, mutable=["batch_stats"], method="embed"
        )

    first, second = make_batch(0), make_batch(1)
    large = jnp.concatenate(first["global"])
    small, other = (jnp.concatenate(batch["local"]) for batch in (first, second))
    embeddings, updates = embed(large, small, "embed")
    others, _ = embed(large, other, "embed")
    assert np.abs(embeddings[: len(large)] - others[: len(large)]).max() > 1e-3
    # Two updates of the backbone's statistics, of the large views first.
    _, once = embed(large, small, "features")
    stats = variables["batch_stats"]["backbone"]["bn1"]["mean"]
    once, twice = (x["batch_stats"]["backbone"]["bn1"]["mean"] for x in (once, updates))
    _, by_itself = embed(small, small, "features")
    of_small = (by_itself["batch_stats"]["backbone"]["bn1"]["mean"] - 0.9 * stats) / 0.1
    np.testing.assert_allclose(twice, 0.9 * once + 0.1 * of_small, atol=1e-6)


def test_without_batch_norm_in_the_mlp_views_of_another_size_do_not_matter():
    model = get_model(10, "tiny", "projection", head_options={**HEAD, "use_batch_norm": False})
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)

    @jax.jit
    def embed(large, small):
        return model.apply(
            variables, [large, small], train=True, mutable=["batch_stats"], method="embed"
        )[0]

    large = jnp.concatenate(make_batch(0)["global"])
    small, other = (jnp.concatenate(make_batch(seed)["local"]) for seed in (0, 1))
    np.testing.assert_allclose(
        embed(large, small)[: len(large)], embed(large, other)[: len(large)], atol=1e-6
    )


@pytest.fixture(scope="module")
def task():
    return get_task("self_classifier", make_model(), queue_size=8)


@pytest.fixture(scope="module")
def run(task):
    return loss_and_grads(task)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_classifiers(task, run):
    state, batch = make_state(task), make_batch()
    value, _, (_, model_state, queue), metrics = run(state, batch)
    model = get_model(10, "tiny", "projection", head_options=HEAD)

    @jax.jit
    def expected(params, model_state):
        variables = {"params": params, **model_state}
        batches = [jnp.concatenate(batch["global"]), jnp.concatenate(batch["local"])]
        embeddings, _ = model.apply(
            variables, batches, train=True, mutable=["batch_stats"], method="embed"
        )
        logits = model.apply(variables, embeddings, method="classify")
        views = [x.reshape(4, BATCH, -1) for x in logits]
        return embeddings, views, sum(map(self_classifier_loss, views)) / 2

    embeddings, views, loss = expected(state[0], state[1])
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    assert metrics["loss"] == value
    classes = np.asarray(views[0][1].argmax(1))
    assert metrics["used_classes"] == len(np.unique(classes))
    share = np.bincount(classes, minlength=3) / BATCH
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum() / np.log(3)
    np.testing.assert_allclose(metrics["class_entropy"], entropy, atol=1e-6)
    # The first view's own embeddings go into the queue.
    rows = queue.rows.value
    np.testing.assert_allclose(rows["embedding"][:BATCH], embeddings[:BATCH], atol=1e-5)
    np.testing.assert_array_equal(rows["label"][:BATCH], batch["label"])
    np.testing.assert_array_equal(rows["index"][:BATCH], batch["index"])
    assert queue.pointer == BATCH and not queue.is_full and metrics["neighbor_accuracy"] == 0


@pytest.mark.slow
def test_the_classifier_with_the_smallest_loss_is_evaluated():
    model = make_model(num_clusters=(4, 4, 4), evaluated=-1)
    task, batch = get_task("self_classifier", model, queue_size=8), make_batch()
    state = make_state(task)
    _, _, state, _ = loss_and_grads(task)(state, batch)
    losses = state[1]["batch_stats"]["head"]["losses"]
    expected = []
    for number in range(3):
        alone = get_task("self_classifier", make_model(num_clusters=(4,)), queue_size=8)
        own = {**make_state(task)[0]}
        own["head"] = {"mlp_head": own["head"]["mlp_head"], "cls_0": own["head"][f"cls_{number}"]}
        value, *_ = loss_and_grads(alone)((own, *make_state(alone)[1:]), batch)
        expected.append(0.1 * value)  # the running mean starts at zero
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    images = batch["global"][0]
    logits = model.apply({"params": state[0], **state[1]}, images, train=False)["logits"]
    best = int(np.argmin(losses))
    chosen = make_model(num_clusters=(4, 4, 4), evaluated=best)
    rest = {**state[1], "batch_stats": {**state[1]["batch_stats"]}}
    head = {k: v for k, v in rest["batch_stats"]["head"].items() if k != "losses"}
    rest["batch_stats"]["head"] = head
    np.testing.assert_array_equal(
        logits, chosen.apply({"params": state[0], **rest}, images, train=False)["logits"]
    )


@pytest.mark.slow
def test_a_full_queue_replaces_the_first_view(task, run):
    state, batch = make_state(task, filled=True), make_batch(num_local=0)
    _, grads, (_, _, queue), _ = run(state, batch)
    # Not the neighbours but the embeddings themselves are pushed.
    before, after = (np.asarray(x.rows.value["embedding"]) for x in (state[2], queue))
    assert all(np.abs(before - row).max(1).min() > 1e-3 for row in after[:BATCH])
    np.testing.assert_array_equal(after[BATCH:], before[BATCH:])
    # With the first view replaced, all gradient of the MLP comes through the second.
    monitoring = get_task("self_classifier", make_model(), queue_size=8, uses_neighbors=False)
    _, own, (_, _, other), metrics = loss_and_grads(monitoring)(state, batch)
    np.testing.assert_allclose(other.rows.value["embedding"], after, atol=1e-5)
    assert 0 <= metrics["neighbor_accuracy"] <= 100
    for name in ("cls_0", "cls_1"):
        assert np.abs(grads["head"][name]["weight_v"]).max() > 1e-4
    last = [g["head"]["mlp_head"]["mlp.3"]["kernel"] for g in (grads, own)]
    assert np.abs(last[0] - last[1]).max() > 1e-4


def test_no_gradient_reaches_the_backbone_through_a_neighbour():
    """Where both views are replaced or ignored, only the classifiers would learn."""
    queue = neighbor_queue.create(8, 6)

    def replaced(embeddings):
        found, _ = neighbor_queue.look_up(queue, embeddings, jnp.arange(4))
        return found.sum()

    assert not jax.grad(replaced)(jnp.ones((4, 6))).any()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_devices_give_the_same_loss_gradient_and_queue(task, run, devices):
    state, batch = make_state(task, filled=True), make_batch(count=8)
    alone = run(state, batch)
    together = loss_and_grads(task, devices)(state, batch)
    for ours, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(queue_size=-8), "queue_size must be at least 0"),
        (dict(row_temperature=0.0), "row_temperature must be positive"),
        (dict(column_temperature=-0.1), "column_temperature must be positive"),
    ],
)
def test_the_task_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        get_task("self_classifier", make_model(), **options)


def test_the_task_needs_its_head_and_others_refuse_it():
    with pytest.raises(ValueError, match="needs a head that embeds; set model.head"):
        get_task("self_classifier", get_model(10, "tiny"))
    with pytest.raises(ValueError, match="trains no head that embeds; set model.head"):
        get_task("supervised", make_model())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(batch_size=16), "queue_size=8 must be between batch_size=16"),
        (dict(num_examples=7), "the number of training images, 7, or 0"),
        (dict(num_devices=3), "queue_size=8 is not divisible by 3 devices"),
        (dict(accumulation_steps=2), "set accumulation_steps=1"),
    ],
)
def test_sizes_that_do_not_go_together(task, sizes, message):
    with pytest.raises(ValueError, match=message):
        task.check(
            **dict(batch_size=8, num_examples=50, num_devices=1, accumulation_steps=1) | sizes
        )
