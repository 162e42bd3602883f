"""The objectives that train for certificates: Gaussian noise, and interval bounds."""
import jax
import numpy as np
import pytest

from tests.helpers.toy_training import SHAPE, Classifier, batch, close
from vmamba_jax import training
from vmamba_jax.training.objectives import losses

KEY, CLASSIFIER = jax.random.key(3), Classifier()


def start(optimizer):
    return training.create_state(CLASSIFIER, optimizer, jax.random.key(0), SHAPE)


def test_noise_is_standard_training_on_noisy_images():
    optimizer, data = training.optimizer.create("sgd", learning_rate=0.1), batch()
    state = start(optimizer)
    keys = losses.step_keys(KEY, len(data["image"]))
    noisy = data["image"] + 0.25 * np.stack([jax.random.normal(key, SHAPE) for key in keys.attack])
    expected = jax.jit(training.objectives.create("standard", CLASSIFIER, optimizer))(state, {**data, "image": noisy}, KEY)
    close(jax.jit(training.objectives.create("noise", CLASSIFIER, optimizer, sigma=0.25))(state, data, KEY), expected)
    assert training.objectives.cost("noise", sigma=0.25) == training.objectives.cost("standard")
    with pytest.raises(ValueError, match="sigma=-1"):
        training.objectives.create("noise", CLASSIFIER, optimizer, sigma=-1)


def test_interval_bounds_the_loss_from_above():
    """At radius 0 the worst logits are the logits; at a radius their loss is above that of every sampled image, and the schedule scales both."""
    optimizer, data = training.optimizer.create("sgd", learning_rate=0.1), batch()
    state = start(optimizer)
    step = lambda eps, **options: jax.jit(training.objectives.create("interval", CLASSIFIER, optimizer, eps=eps, share=0.25, **options))(state, data, KEY)
    standard = jax.jit(training.objectives.create("standard", CLASSIFIER, optimizer))(state, data, KEY)
    new, metrics = step(0.0)
    np.testing.assert_allclose([metrics["clean_loss"], metrics["worst_loss"]], 2 * [standard[1]["loss"]], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.params, standard[0].params)
    _, metrics = step(0.04, eps_schedule=lambda step: 0.5)
    np.testing.assert_allclose(metrics["loss"], 0.875 * metrics["clean_loss"] + 0.125 * metrics["worst_loss"], rtol=1e-5)
    images = data["image"] + np.random.default_rng(0).choice([-0.02, 0.02], (50, *data["image"].shape))
    loss = jax.jit(jax.vmap(lambda x: losses.cross_entropy(CLASSIFIER(state.variables(), x), data["label"])))
    assert loss(np.clip(images, 0, 1)).max() < metrics["worst_loss"] and metrics["eps_scale"] == 0.5 and 0 <= metrics["certified"] <= metrics["accuracy"]
    with pytest.raises(ValueError, match="share=2"):
        training.objectives.create("interval", CLASSIFIER, optimizer, eps=0.1, share=2)
    with pytest.raises(TypeError, match="eps_schedule=3"):
        training.objectives.create("interval", CLASSIFIER, optimizer, eps=0.1, eps_schedule=3)
