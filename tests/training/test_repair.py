"""The repair objective: its losses by hand, gradients with and without the second order, and the same update on one device and on eight."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import probed_net, toy_training
from vmamba_jax import data, training
from vmamba_jax.core import state_correlation as sc
from vmamba_jax.training.objectives import Penalty, repair
from vmamba_jax.training.objectives.losses import cross_entropy

CLASSIFIER, OPTIMIZER = probed_net.classifier(), optax.sgd(0.1)
PLACE = ("s", "")
TEMPLATES = {PLACE: np.random.default_rng(3).integers(0, 2, (3, 1, 5)).astype(np.float32)}
EXTERNAL, INTERNAL = Penalty(("s",), ("",), 50.0), Penalty(("s",), ("",), 300.0, TEMPLATES)
KEY = jax.random.key(5)


def batch(n=16):
    rng = np.random.default_rng(0)
    return {"image": jnp.asarray(rng.random((n, 8, 8, 1)), jnp.float32), "label": jnp.asarray(rng.integers(0, 3, n), jnp.int32),
            "mask": jnp.asarray(rng.random((n, 8, 8)) < 0.5)}


@functools.cache
def start():
    return training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), (8, 8, 1))


def loss_by_hand(params, given, second_order):
    """The loss written from `probed_net.state_and_gradient`, with the gradient's 1 / b."""
    s, g = probed_net.state_and_gradient(params, given["image"], given["label"])
    g = g / len(s)
    g = g if second_order else jax.lax.stop_gradient(g)
    s, g = (x.reshape(-1, 1, 16, 5) for x in (s, g))
    maps = sc.external_maps(sc.external_tokens(s, g), (4, 4), (8, 8))
    external = 50.0 * sc.external_loss(maps, given["mask"].astype(jnp.float32)).mean()
    internal = 300.0 * sc.internal_loss(sc.internal_vectors(s, g), jnp.asarray(TEMPLATES[PLACE])[given["label"]]).mean()
    logits = CLASSIFIER({"params": params}, given["image"])
    return cross_entropy(logits, given["label"], 0.1) + external + internal


@functools.cache
def step(**options):
    made = repair(CLASSIFIER, OPTIMIZER, external=EXTERNAL, internal=INTERNAL, **options)
    return made, made.begin(start(), (8, 8, 1), 16)


@functools.cache
def updated(**options):
    made, state = step(**options)
    return jax.jit(made)(state, batch(), KEY)


@pytest.mark.parametrize("second_order", [False, True])
def test_update_by_hand(second_order):
    state, metrics = updated(second_order=second_order)
    value, grads = jax.jit(jax.value_and_grad(loss_by_hand), static_argnums=2)(start().params, batch(), second_order)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["cross_entropy"] + metrics["external"] + metrics["internal"], metrics["loss"], rtol=1e-6)
    assert metrics["external"] > 0.01 and metrics["internal"] > 0.01
    toy_training.close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, start().params, grads), atol=1e-6)


def test_second_order_differs():
    first, second = (updated(second_order=flag)[0].params["head"]["kernel"] for flag in (False, True))
    assert jnp.abs(first - second).max() > 1e-4


def test_eight_devices_padding_and_microbatches_make_the_same_update():
    state, metrics = updated(second_order=False)
    made, begun = step(second_order=False)
    sharded, other = toy_training.sharded(made, begun, batch(), KEY)
    toy_training.close(jax.device_get(sharded.params), jax.device_get(state.params))
    np.testing.assert_allclose(other["external"], metrics["external"], rtol=1e-5)
    toy_training.close(updated(second_order=False, accumulate=2)[0].params, state.params)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, x[-1:], x[-1:]]), batch()) | {"weight": jnp.array([1.0] * 16 + [0.0] * 2)}
    toy_training.close(jax.jit(made)(begun, padded, KEY)[0].params, state.params)


def test_full_masks_and_full_templates_cost_nothing():
    full = Penalty(("s",), ("",), 300.0, {PLACE: np.ones((3, 1, 5))})
    made = repair(CLASSIFIER, OPTIMIZER, external=EXTERNAL, internal=full)
    metrics = jax.jit(made)(made.begin(start(), (8, 8, 1), 16), {**batch(), "mask": jnp.ones((16, 8, 8), bool)}, KEY)[1]
    assert metrics["external"] == 0 and metrics["internal"] == 0 and metrics["loss"] == metrics["cross_entropy"]


def test_without_penalties_it_is_standard_training():
    """With weights of 0 no state is probed; the control of the same epochs of cross-entropy."""
    made = repair(CLASSIFIER, OPTIMIZER, external=Penalty(("s",), ("",), 0.0))
    plain = training.objectives.standard(CLASSIFIER, OPTIMIZER, label_smoothing=0.1)
    toy_training.same(jax.jit(made)(start(), batch(), KEY)[0].params, jax.jit(plain)(start(), batch(), KEY)[0].params)
    assert made.cost == plain.cost and step(second_order=False)[0].cost.forward_backward == 2


def test_augmentation_acts_on_image_and_mask_alike():
    flip = lambda images, keys: images[:, :, ::-1]
    made, begun = step(second_order=False, augment=flip)
    given = {**batch(), "image": batch()["image"][:, :, ::-1], "mask": batch()["mask"][:, :, ::-1]}
    toy_training.close(jax.jit(made)(begun, given, KEY)[0].params, updated(second_order=False)[0].params)


def test_annotated_batches():
    images, masks = np.zeros((6, 4, 4, 1), np.uint8), np.random.default_rng(0).random((6, 4, 4)) < 0.5
    batches = data.Annotated(data.Batches(data.Arrays(images, np.arange(6) % 2), 4, seed=0), masks)
    found = batches[1]
    np.testing.assert_array_equal(found["mask"], masks[found["index"]])
    assert batches.steps_per_epoch == 1
    with pytest.raises(ValueError, match=r"masks.shape=\(5, 4, 4\): expected 6 masks of 4 x 4"):
        data.Annotated(batches.batches, masks[:5])
    with pytest.raises(ValueError, match="expected .n, H, W. bool"):
        data.Annotated(batches.batches, masks.astype(float))


def test_errors():
    with pytest.raises(ValueError, match=r"internal.templates: expected an entry for \('s', ''\)"):
        repair(CLASSIFIER, OPTIMIZER, internal=Penalty(("s",), ("",), 1.0))
    with pytest.raises(ValueError, match="mix: expected None"):
        repair(CLASSIFIER, OPTIMIZER, mix=lambda *x: x)
    with pytest.raises(ValueError, match="weight=-1.0: expected a finite number >= 0"):
        Penalty(("s",), ("",), -1)
    made, begun = step(second_order=False)
    with pytest.raises(ValueError, match='expected "mask"'):
        made(begun, {name: x for name, x in batch().items() if name != "mask"}, KEY)
    with pytest.raises(ValueError, match="label"):
        made(begun, {**batch(), "label": jnp.full((16, 3), 1 / 3)}, KEY)
    with pytest.raises(ValueError, match="expected one of"):
        training.objectives.create("repair", CLASSIFIER, OPTIMIZER)
