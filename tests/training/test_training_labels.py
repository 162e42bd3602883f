"""Labels that are no classes, where they enter training: an error in an eager step and in a run, no finite loss inside jit."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.toy_training import CLASSES, SHAPE, Classifier, Net, Toy
from vmamba_jax import attacks, data, training
from vmamba_jax.training.objectives import losses

KEY = jax.random.key(5)
CLASSIFIER = Classifier(Net())
OPTIMIZER = training.optimizer.create("sgd", learning_rate=0.1)
ATTACK = attacks.pgd(0.05, steps=1, step_size=0.03)
OBJECTIVES = {"standard": {}, "pgd_at": {"attack": ATTACK}, "trades": {"attack": ATTACK}, "mart": {"attack": ATTACK}, "free": {"eps": 0.05, "replays": 2},
              "fast": {"eps": 0.05}, "awp": {"objective": "pgd_at", "attack": ATTACK}, "light": {"eps_schedule": lambda done: 1.0}, "singh": {}, "ares": {}}
BATCH = Toy()[0]
LABELS = BATCH["label"]
WRONG = {"ignored": (np.where(np.arange(16) == 3, 255, LABELS), r"labels\[3\]=255"), "-1": (np.where(np.arange(16) == 5, -1, LABELS), r"labels\[5\]=-1"),
         "a column": (LABELS[:, None], r"labels.shape=\(16, 1\)"), "floats": (LABELS * 1.0, "labels.dtype=float"),
         "other distributions": (np.full((16, CLASSES + 1), 0.25), r"labels.shape=\(16, 4\)"), "no distributions": (np.ones((16, CLASSES)), r"labels\[0\]=\[1.0")}


@pytest.fixture(scope="module")
def state():
    return training.create_state(CLASSIFIER, OPTIMIZER, jax.random.key(0), SHAPE)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_refuses_them(name, state):
    step = training.objectives.create(name, Sized(CLASSIFIER), OPTIMIZER, **OBJECTIVES[name])
    state = step.begin(state, SHAPE, 16)
    for labels, message in WRONG.values():
        with pytest.raises((ValueError, TypeError), match=message):
            step(state, BATCH | {"label": labels}, KEY)
    for labels, message in (WRONG["a column"], WRONG["floats"]):
        with pytest.raises((ValueError, TypeError), match=message):
            jax.eval_shape(step, state, BATCH | {"label": labels}, KEY)
    with pytest.raises(ValueError, match="at least one image"):
        step(state, {name: x[:0] for name, x in BATCH.items()}, KEY)


class Sized:
    """The toy classifier with a model that has `num_classes`, as the catalog's have."""
    model = type("Model", (), {"num_classes": CLASSES})

    def __init__(self, classifier):
        self.call = classifier

    def __call__(self, *args, **kwargs):
        return self.call(*args, **kwargs)


def test_inside_jit_the_loss_is_not_finite(state):
    """The one-hot vector of such a label is 0, so its image would have no loss."""
    step = jax.jit(training.objectives.standard(CLASSIFIER, OPTIMIZER))
    assert np.isfinite(step(state, BATCH, KEY)[1]["loss"])
    for name in ("ignored", "-1"):
        assert np.isnan(step(state, BATCH | {"label": WRONG[name][0]}, KEY)[1]["loss"])
    soft = np.eye(CLASSES, dtype=np.float32)[LABELS]
    np.testing.assert_allclose(step(state, BATCH | {"label": soft}, KEY)[1]["loss"], step(state, BATCH, KEY)[1]["loss"], rtol=1e-6)


class Wrong(Toy):
    """The toy task with a label of 3 in batch 2, at position 40 of the set."""

    def __getitem__(self, t):
        batch = super().__getitem__(t)
        return batch | {"label": np.where(np.arange(16) == 8, CLASSES, batch["label"]) if t == 2 else batch["label"], "index": np.arange(16) + 16 * t}


def test_a_run_names_the_example(state):
    step = training.objectives.standard(Sized(CLASSIFIER), OPTIMIZER)
    train = functools.partial(training.train, steps=4, key=KEY, monitoring=training.Monitoring(progress=False))
    with pytest.raises(ValueError, match=r"labels\[40\]=3: expected a class from 0 to 2"):
        train(step, state, Wrong())


def test_mix():
    """Mixup takes classes and the distributions that it documents."""
    mix = data.mix.create(mixup=1.0, cutmix=0.0)
    images = jnp.asarray(BATCH["image"])
    assert mix(images, jnp.asarray(LABELS), KEY, CLASSES)[1].shape == (16, CLASSES)
    for name in ("ignored", "-1", "a column", "floats"):
        with pytest.raises((ValueError, TypeError), match="labels"):
            mix(images, jnp.asarray(WRONG[name][0]), KEY, CLASSES)


def test_distributions():
    np.testing.assert_array_equal(losses.distributions(jnp.array([1, 0]), jnp.zeros((2, 3))), [[0, 1, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match=r"labels\[1\]=3"):
        losses.distributions(jnp.array([1, 3]), jnp.zeros((2, 3)))
