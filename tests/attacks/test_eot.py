"""EOT on randomized classifiers: averages over draws with one key per image."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import attacks
from vmamba_jax.attacks import base
from vmamba_jax.attacks.gradient import eot
from vmamba_jax.core.keys import fold_in

KEY = jax.random.key(6)


def noisy(weights, images, keys):
    """Gaussian noise on the image, from the image's key."""
    a, b = weights
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
    x = images + 0.2 * noise
    return jnp.tanh(x.reshape(len(x), -1) @ a) @ b


def examples(n=8):
    a, b, c = jax.random.split(jax.random.key(0), 3)
    weights = 0.8 * jax.random.normal(a, (18, 16)), jax.random.normal(b, (16, 5))
    images = jax.random.uniform(c, (n, 3, 3, 2))
    return Partial(noisy, weights), images, jnp.arange(n) % 5


@jax.jit
def run(attack, logits_fn, images, labels, keys):
    return attack(logits_fn, images, labels, keys)


def test_gradient_average_over_new_draws():
    logits_fn, images, labels = examples()
    keys = attacks.per_image_keys(KEY, 8)
    loss = lambda x, drawn: attacks.losses.cross_entropy(logits_fn(x, drawn), labels).sum()
    gradient = jax.jit(jax.grad(loss))
    x, searching = images, fold_in(keys, 0)
    for i in range(3):
        drawn = fold_in(searching, i)
        g = sum(gradient(x, fold_in(drawn, j)) for j in range(2))
        x = jnp.clip(jnp.clip(x + 0.05 * jnp.sign(g), images - 0.1, images + 0.1), 0, 1)
    found = run(attacks.eot_pgd(0.1, 3, 0.05, random_start=False), logits_fn, images, labels, keys)
    np.testing.assert_allclose(found, x, atol=1e-6)


@pytest.mark.parametrize("restarts", [1, 2])
def test_without_noise_it_is_pgd(restarts):
    logits_fn, images, labels = examples()
    weights, = logits_fn.args
    still = lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights[0]) @ weights[1]
    found = run(attacks.eot_pgd(0.1, 3, samples=3, restarts=restarts), Partial(lambda x, keys: still(x)), images, labels, KEY)
    np.testing.assert_allclose(found, run(attacks.pgd(0.1, 3, restarts=restarts), Partial(still), images, labels, KEY), atol=1e-6)


def test_independent_of_batching():
    logits_fn, images, labels = examples(12)
    keys = attacks.per_image_keys(KEY, 12)
    attack = attacks.eot_pgd(0.1, 3, samples=2, restarts=2)
    first, second = (run(attack, logits_fn, images[i:i + 8], labels[i:i + 8], keys[i:i + 8]) for i in (0, 4))
    np.testing.assert_allclose(first[4:], second[:4], atol=1e-6)
    expected = lambda i: attacks.expected_logits(logits_fn, keys[i:i + 8], 4)
    first, second = (run(attacks.pgd(0.1, 3), expected(i), images[i:i + 8], labels[i:i + 8], keys[i:i + 8]) for i in (0, 4))
    np.testing.assert_allclose(first[4:], second[:4], atol=1e-6)


def test_expected_logits():
    logits_fn, images, labels = examples()
    keys = attacks.per_image_keys(KEY, 8)
    draw = jax.jit(lambda x: jnp.stack([logits_fn(x, fold_in(keys, j)) for j in range(3)]))
    draws = draw(images)
    apply = jax.jit(lambda f, x: f(x))
    np.testing.assert_allclose(apply(attacks.expected_logits(logits_fn, keys, 3), images), draws.mean(0), atol=1e-6)
    mean = apply(attacks.expected_logits(logits_fn, keys, 3, "probabilities"), images)
    np.testing.assert_allclose(jnp.exp(mean), jax.nn.softmax(draws).mean(0), atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: attacks.expected_logits(logits_fn, keys, 3)(x).sum()))(images)
    wanted = jax.jit(jax.grad(lambda x: draw(x).sum() / 3))(images)
    np.testing.assert_allclose(slope, wanted, atol=1e-5)


def test_more_draws_are_stronger():
    """On draws that the attack did not use."""
    logits_fn, images, labels = examples(64)
    unseen = attacks.per_image_keys(jax.random.key(99), 64)
    loss = lambda x, j: attacks.losses.cross_entropy(logits_fn(x, fold_in(unseen, j)), labels).mean()
    unseen_loss = jax.jit(lambda x: jax.vmap(loss, (None, 0))(x, jnp.arange(20)).mean())
    one, many = (unseen_loss(run(attacks.eot_pgd(0.15, 2, samples=n, random_start=False), logits_fn, images, labels, KEY)) for n in (1, 16))
    assert many > one + 0.02 and one > unseen_loss(images)


@pytest.mark.parametrize(("misclassified", "expected"), [((16,), 0.2), ((16, 17), 0.1)])
def test_restarts_need_most_draws_misclassified(monkeypatch, misclassified, expected):
    """Of two draws, unused by the search, both must misclassify the image; else the higher mean loss is preferred.

    Keys are numbers, 8 * key + data under fold_in: the evaluation draws with keys 16 and 17. Restart 0 has the lower loss.
    """
    for module in (base, eot):
        monkeypatch.setattr(module, "fold_in", lambda keys, data: 8 * keys + data)

    def logits_fn(images, keys):
        first = images.mean((1, 2, 3)) < 0.15
        wrong = first & jnp.isin(keys, jnp.array(misclassified))
        return jnp.stack([0 * first + 10.0, jnp.where(wrong, 20.0, 0.0), jnp.where(first, 1.0, 5.0)], 1)

    def start(images, keys):
        return images + jnp.where(keys == 0, 0.1, 0.2)[:, None, None, None]
    attack = attacks.eot_pgd(0.5, 1, 1e-9, restarts=2, start=start, loss=lambda logits, labels: logits[:, 2])
    found = attack.run(logits_fn, jnp.zeros((3, 2, 2, 1)), jnp.zeros(3, int), jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_settings_and_errors():
    attack = attacks.eot_pgd(0.1, 3, samples=5, norm="l2")
    assert attacks.create(**json.loads(json.dumps(attack.settings))) == attack
    logits_fn, images, labels = examples()
    with pytest.raises(ValueError, match="key=None: expected a random key"):
        attacks.eot_pgd(0.1, 1, random_start=False)(logits_fn, images, labels)
    with pytest.raises(ValueError, match="samples=0: expected"):
        attacks.eot_pgd(0.1, 1, samples=0)
    for key in (KEY, jax.random.PRNGKey(0)):
        with pytest.raises(ValueError, match=r"keys.shape=\(.*expected one random key per image"):
            attacks.expected_logits(logits_fn, key, 2)
    with pytest.raises(ValueError, match="average='loss': expected"):
        attacks.expected_logits(logits_fn, attacks.per_image_keys(KEY, 8), 2, "loss")
