"""The steps of the adversarial objectives on the toy classifier, with the options that their tests share."""
import functools

import jax

from tests.helpers.toy_training import SHAPE, Classifier
from vmamba_jax import attacks, training
from vmamba_jax.training import objectives

KEY = jax.random.key(5)
PLAIN = Classifier()
PGD = attacks.pgd(0.1, steps=2, step_size=0.06)
GAUSSIAN = attacks.pgd(0.1, steps=2, step_size=0.06, start="gaussian")
OPTIONS = {
    "trades": {"beta": 2.0, "attack": GAUSSIAN},
    "mart": {"beta": 2.0, "attack": GAUSSIAN, "attack_mode": "train"},
    "free": {"eps": 0.1, "step_size": 0.06, "replays": 2},
    "fast": {"eps": 0.1, "watch_every": 2, "watch_stride": 2, "watch_steps": 3},
    "yopo": {"eps": 0.1, "step_size": 0.05, "passes": 2, "inner_steps": 3},
    "awp": {"objective": "pgd_at", "attack": PGD, "gamma": 0.05},
    "singh": {"eps": 0.1},
}


@functools.cache
def sgd():
    return training.optimizer.create("sgd", learning_rate=0.1, momentum=0.0)


@functools.cache
def start(classifier=PLAIN, **options):
    return training.create_state(classifier, sgd(), jax.random.key(0), SHAPE, **options)


def make(name, classifier=PLAIN, **options):
    """A step without augmentation and its initial state, for 16 images; the perturbation of free is that of a later step."""
    step = objectives.create(name, classifier, sgd(), **{**OPTIONS[name], **options})
    state = step.begin(start(Classifier(classifier.model)), SHAPE, 16)
    if name == "free":
        assert state.carry.shape == (16, *SHAPE) and not state.carry.any()
        state = state.replace(carry=jax.random.uniform(KEY, state.carry.shape, minval=-0.1, maxval=0.1))
    return step, state
