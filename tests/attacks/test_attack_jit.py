"""The compiled form of attacks: any callable, equal to the call, and never weights of an earlier call."""
import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import attacks, evaluation

KEY = jax.random.key(5)
RNG = np.random.default_rng(2)
IMAGES = RNG.random((4, 3, 3, 2), np.float32)
LABELS = np.array([0, 1, 2, 3])
WEIGHTS = RNG.normal(size=(18, 4)).astype(np.float32)
PGD = attacks.pgd(0.1, 3)
GLOBAL = WEIGHTS


def reads_a_global(x):
    return x.reshape(len(x), -1) @ GLOBAL


def linear(weights, x):
    return x.reshape(len(x), -1) @ weights


def _cell():
    weights = WEIGHTS

    def fn(x):
        return linear(weights, x)

    def change():
        nonlocal weights
        weights = -WEIGHTS
    return fn, change


def _attribute():
    holder = types.SimpleNamespace(weights=jnp.asarray(WEIGHTS))
    return (lambda x: linear(holder.weights, x)), lambda: setattr(holder, "weights", jnp.asarray(-WEIGHTS))


def _in_place():
    weights = WEIGHTS.copy()
    return (lambda x: linear(weights, x)), lambda: np.negative(weights, out=weights)


def _global():
    return reads_a_global, lambda: globals().update(GLOBAL=-WEIGHTS)


def _method():
    class Model:
        scale = 1.0

        def predict(self, x):
            return linear(WEIGHTS * self.scale, x)
    model = Model()
    return model.predict, lambda: setattr(model, "scale", -1.0)


@pytest.mark.parametrize("make", [_cell, _attribute, _in_place, _global, _method], ids=lambda make: make.__name__)
def test_weights_that_change(make, monkeypatch):
    """One compiled program while nothing changes, another when the weights do; evaluations of the function too."""
    monkeypatch.setitem(globals(), "GLOBAL", WEIGHTS)
    fn, change = make()
    lowered, lower = [], jax.stages.Traced.lower
    monkeypatch.setattr(jax.stages.Traced, "lower", lambda *args, **options: lowered.append(args) or lower(*args, **options))
    attack = PGD.jit(fn)
    before, again = attack(IMAGES, LABELS, KEY), attack(IMAGES, LABELS, KEY)
    accuracy = evaluation.accuracy(fn, (IMAGES, LABELS))["correct"]
    assert len(lowered) == 2
    change()
    after, expected = attack(IMAGES, LABELS, KEY), jax.jit(PGD)(Partial(linear, -WEIGHTS), IMAGES, LABELS, KEY)
    np.testing.assert_array_equal(before, again)
    np.testing.assert_allclose(after, expected, atol=1e-6)
    assert np.abs(after - before).max() > 0.05
    np.testing.assert_array_equal(evaluation.accuracy(fn, (IMAGES, LABELS))["correct"], linear(-WEIGHTS, IMAGES).argmax(-1) == LABELS)
    np.testing.assert_array_equal(accuracy, linear(WEIGHTS, IMAGES).argmax(-1) == LABELS)


def counted(weights, x):
    TRACES.append(x.shape)
    return linear(weights, x)


TRACES = []


def test_weights_that_are_arguments():
    """One trace for all weights of a Partial."""
    attack = PGD.jit(Partial(counted, jnp.asarray(WEIGHTS)))
    first = attack(IMAGES, LABELS, KEY)
    n = len(TRACES)
    attack.logits_fn = Partial(counted, jnp.asarray(-WEIGHTS))
    assert np.abs(attack(IMAGES, LABELS, KEY) - first).max() > 0.05 and len(TRACES) == n
    np.testing.assert_allclose(first, PGD.jit(lambda x: linear(WEIGHTS, x))(IMAGES, LABELS, KEY), atol=1e-6)


def test_every_attack_has_the_form():
    for make in attacks.ATTACKS.values():
        known = inspect.signature(make).parameters
        made = make(**{name: value for name, value in (("eps", 0.1), ("steps", 2)) if name in known}, **{"mask": np.ones((3, 3, 1))} if make is attacks.masked_pgd else {})
        assert made.jit(reads_a_global).attack is made


def test_options_of_the_call():
    attack = attacks.patch_fool(patch_size=1, steps=2, selection="given", mean=0.5, std=0.25)
    found = attack.jit(lambda x: linear(WEIGHTS, x))(IMAGES, LABELS, KEY, given=np.full((4, 1), 3))
    assert (np.abs(np.asarray(found) - IMAGES).max((0, 3)).reshape(-1) > 0).tolist() == [i == 3 for i in range(9)]


def test_inside_transformations():
    """It is the attack itself there: no program of its own, gradients and batching as for the call."""
    def loss(weights):
        return linear(weights, attacks.fgsm(0.1).jit(lambda x: linear(weights, x))(jnp.asarray(IMAGES), LABELS)).sum()
    np.testing.assert_allclose(jax.jit(loss)(WEIGHTS), linear(WEIGHTS, attacks.fgsm(0.1)(Partial(linear, WEIGHTS), IMAGES, LABELS)).sum(), rtol=1e-5)


def test_errors():
    attack = attacks.fgsm(0.1).jit(lambda x: linear(WEIGHTS, x))
    with pytest.raises(ValueError, match=r"labels\[3\]=4: expected a class from 0 to 3"):
        attack(IMAGES, LABELS + 1)
    with pytest.raises(ValueError, match=r"images=\[.*expected values in \[0, 1\]"):
        attack(IMAGES * 2, LABELS)
    with pytest.raises(ValueError, match="key=None: expected a random key"):
        PGD.jit(reads_a_global)(IMAGES, LABELS)
    with pytest.raises(TypeError, match="logits_fn=3: expected a function of images"):
        PGD.jit(3)
    assert attack(IMAGES[:0], LABELS[:0]).shape == (0, 3, 3, 2) and "FGSM" in repr(attack).upper()
