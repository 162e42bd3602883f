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
