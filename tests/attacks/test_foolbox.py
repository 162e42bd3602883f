"""Attacks against foolbox on one JAX model."""
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # foolbox imports a scipy name that moved
    import foolbox

EPS = {"linf": 0.03, "l2": 0.3, "l1": 2.0}
THEIRS = {
    "fgsm-linf": (lambda: foolbox.attacks.FGSM(random_start=False), attacks.fgsm(EPS["linf"])),
    "fgm-l2": (lambda: foolbox.attacks.L2FastGradientAttack(random_start=False), attacks.fgsm(EPS["l2"], "l2")),
    "pgd-linf": (lambda: foolbox.attacks.LinfPGD(abs_stepsize=0.01, steps=7, random_start=False), attacks.pgd(EPS["linf"], 7, 0.01, random_start=False)),
    "pgd-l2": (lambda: foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=7, random_start=False), attacks.pgd(EPS["l2"], 7, 0.1, "l2", random_start=False)),
    "pgd-l1": (lambda: foolbox.attacks.L1PGD(abs_stepsize=0.5, steps=7, random_start=False),
               attacks.pgd(EPS["l1"], 7, 0.5, "l1", l1_fraction=None, projection="radial", random_start=False)),
}


@pytest.mark.parametrize("name", THEIRS)
def test_same_images(tiny, name):
    """The same adversarial images to float32 rounding, and the same misclassifications."""
    make, ours = THEIRS[name]
    net, images, labels = tiny
    model = foolbox.models.JAXModel(jax.jit(net), bounds=(0, 1), data_format="channels_last")
    _, theirs, fooled = make()(model, images, labels, epsilons=EPS[name.split("-")[1]])
    adversarial = jax.jit(ours)(net, images, labels, jax.random.key(0))
    np.testing.assert_allclose(adversarial, theirs, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(net(adversarial)).argmax(1) != labels, fooled)
    assert (jnp.abs(adversarial - images).max((1, 2, 3)) > 1e-3).all()
