"""Classifiers on the host: values, gradients and shapes equal those of the same network in JAX, on one and on several devices."""
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks, bridges, evaluation

RNG = np.random.default_rng(4)
WEIGHTS = RNG.normal(size=(12, 4)).astype(np.float32)
IMAGES, LABELS = RNG.random((16, 2, 2, 3), np.float32), RNG.integers(0, 4, 16)
KEY = jax.random.key(0)


class Host:
    """tanh(x) @ W in NumPy, which notes the batches it gets."""

    def __init__(self, weights):
        self.weights, self.seen = weights, []

    def forward(self, images):
        self.seen.append(images.shape)
        return np.tanh(images.reshape(len(images), -1)) @ self.weights

    def vjp(self, images, cotangents):
        self.seen.append(cotangents.shape)
        return ((cotangents @ self.weights.T) / np.cosh(images.reshape(len(images), -1))**2).reshape(images.shape)


def in_jax(x):
    return jnp.tanh(x.reshape(len(x), -1)) @ WEIGHTS


def test_values_and_gradients():
    """In batches: one call of the host for one call of the program, also under vmap."""
    host = Host(WEIGHTS)
    fn = bridges.HostFunction(host.forward, host.vjp)
    total = lambda f: lambda x: jax.nn.logsumexp(f(x), -1).sum()
    np.testing.assert_allclose(jax.jit(fn)(IMAGES), in_jax(IMAGES), atol=1e-5)
    assert host.seen == [(1, 2, 2, 3), (16, 2, 2, 3)]
    np.testing.assert_allclose(jax.jit(jax.grad(total(fn)))(IMAGES), jax.grad(total(in_jax))(IMAGES), atol=1e-6)
    assert host.seen[2:] == [(16, 2, 2, 3), (16, 4)]
    folded = IMAGES.reshape(4, 4, 2, 2, 3)
    np.testing.assert_allclose(jax.vmap(jax.grad(total(fn)))(folded), jax.grad(total(in_jax))(IMAGES).reshape(folded.shape), atol=1e-6)
    assert host.seen[4:] == [(16, 2, 2, 3), (16, 4)]
    half = jnp.asarray(IMAGES, jnp.bfloat16)
    assert fn(half).dtype == jnp.float32 and jax.grad(total(fn))(half).dtype == jnp.bfloat16


def test_attack_over_all_devices_with_weights_that_change():
    host, attack = Host(WEIGHTS), attacks.pgd(0.1, 3)
    fn = bridges.HostFunction(host.forward, host.vjp)
    found = evaluation.robust_accuracy(fn, (IMAGES, LABELS), attack, key=KEY)
    expected = evaluation.robust_accuracy(in_jax, (IMAGES, LABELS), attack, key=KEY)
    np.testing.assert_array_equal(found["robust"], expected["robust"])
    assert (2, 2, 2, 3) in host.seen and 0 < found["accuracy"] < 1
    host.weights = -WEIGHTS
    changed = evaluation.robust_accuracy(fn, (IMAGES, LABELS), attack, key=KEY)
    np.testing.assert_array_equal(changed["correct"], np.asarray(in_jax(IMAGES)).argmin(-1) == LABELS)


def test_what_the_host_returns_is_checked():
    for forward, message in ((lambda x: x @ np.ones((3, 2)), "forward returned"), (lambda x: np.ones((len(x) + 1, 2), np.float32), "expected float32 of 2 axes")):
        with pytest.raises(Exception, match=message):
            bridges.HostFunction(forward, None)(IMAGES)


def test_torch_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        bridges.torch.logits_fn(None)
