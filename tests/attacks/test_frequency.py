"""The cosine transform against scipy's, and PGD on low or high frequencies."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from tests.helpers import two_layer_net
from vmamba_jax import attacks
from vmamba_jax.attacks.gradient import frequency

SHAPE = (4, 8, 10, 2)
KEY = jax.random.key(5)


def examples(low=0.3, high=0.7):
    """Images in [low, high], by default away from the box's bounds."""
    return two_layer_net.examples(SHAPE, 0.2, low, high)


@jax.jit
def run(attack, logits_fn, images, labels):
    return attack(logits_fn, images, labels, KEY)


def loss(logits_fn, images, labels):
    return float(attacks.losses.cross_entropy(logits_fn(images), labels).mean())


def outside(x, keep, size):
    """Largest DCT coefficient of x outside the band."""
    c = fft.dctn(np.asarray(x, np.float64), axes=(1, 2), norm="ortho")
    c[:, slice(size) if keep == "low" else slice(size, None), slice(size) if keep == "low" else slice(size, None)] = 0
    return np.abs(c).max()


def test_dct_is_scipys():
    np.testing.assert_allclose(frequency.dct_matrix(7), fft.dct(np.eye(7), axis=0, norm="ortho"), atol=1e-14)


@pytest.mark.parametrize("keep", ["low", "high"])
def test_band_is_what_scipy_keeps(keep):
    x = np.random.default_rng(0).standard_normal(SHAPE)
    c = fft.dctn(x, axes=(1, 2), norm="ortho")
    kept = slice(3) if keep == "low" else slice(3, None)
    masked = np.zeros_like(c)
    masked[:, kept, kept] = c[:, kept, kept]
    found = frequency.band(jnp.asarray(x, jnp.float32), keep, 3)
    assert found.dtype == jnp.float32 and frequency.band(jnp.asarray(x, jnp.bfloat16), keep, 3).dtype == jnp.bfloat16
    np.testing.assert_allclose(found, fft.idctn(masked, axes=(1, 2), norm="ortho"), atol=1e-5)


@pytest.mark.parametrize("keep", ["low", "high"])
def test_after_matches_the_released_program(keep, x64):
    """Plain PGD to before its last clip to the box, the perturbation through an unnormalized DCT, coefficients masked, and back."""
    logits_fn, images, labels = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, examples(0.02, 0.98))
    eps, size = 0.1, 0.03
    gradient = jax.jit(jax.grad(lambda x: attacks.losses.cross_entropy(logits_fn(x), labels).sum()))
    x = images
    for _ in range(5):
        delta = jnp.clip(x + size * jnp.sign(gradient(x)) - images, -eps, eps)
        x = jnp.clip(images + delta, 0, 1)
    assert (x != images + delta).any()  # the box was met
    coefficients = fft.dctn(np.asarray(delta), axes=(1, 2))
    mask = np.zeros(SHAPE)
    mask[:, *[slice(3) if keep == "low" else slice(3, None)] * 2] = 1
    wanted = np.clip(images + fft.idctn(coefficients * mask, axes=(1, 2)), 0, 1)
    found = run(attacks.frequency_pgd(eps, 5, size, random_start=False, keep=keep, size=3), logits_fn, images, labels)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert np.abs(found - images).max() > eps  # filtering may leave the linf ball


@pytest.mark.parametrize(("keep", "norm"), [("low", "linf"), ("high", "linf"), ("low", "l2"), ("high", "l1")])
@pytest.mark.often(2)
def test_inside_band_ball_and_box(keep, norm):
    logits_fn, images, labels = examples()
    eps = {"linf": 0.1, "l2": 0.8, "l1": 6.0}[norm]
    attack = attacks.frequency_pgd(eps, 8, norm=norm, keep=keep, size=4, limit="inside", l1_fraction=0.2)
    x = run(attack, logits_fn, images, labels)
    assert outside(x - images, keep, 4) < 1e-6
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    assert np.linalg.norm(np.asarray(x - images).reshape(4, -1), order, axis=1).max() <= eps * (1 + 1e-5)
    clean, raised = loss(logits_fn, images, labels), loss(logits_fn, x, labels)
    assert raised > clean + 0.05
    if norm == "linf":  # stronger than filtering afterwards and scaling back into the ball
        after = run(attacks.frequency_pgd(eps, 8, keep=keep, size=4), logits_fn, images, labels) - images
        back = images + after * jnp.minimum(1, eps / jnp.abs(after).max((1, 2, 3), keepdims=True))
        assert raised > loss(logits_fn, back, labels)
    extreme = jnp.round(images)  # every pixel on the bounds
    y = run(attack, logits_fn, extreme, labels)
    assert y.min() >= 0 and y.max() <= 1 and (y != extreme).any()


def test_all_frequencies_are_plain_pgd():
    logits_fn, images, labels = examples()
    plain = run(attacks.pgd(0.1, 4), logits_fn, images, labels)
    np.testing.assert_allclose(run(attacks.frequency_pgd(0.1, 4, keep="low"), logits_fn, images, labels), plain, atol=1e-6)
    x = run(attacks.frequency_pgd(0.1, 4, size=1, restarts=2), logits_fn, images, labels)
    assert np.asarray(x - images).std((1, 2)).max() < 1e-6 and np.abs(x - images).max() > 1e-3  # one constant a channel


def test_settings_and_errors():
    attack = attacks.frequency_pgd(0.1, 3, keep="high", size=5, limit="inside")
    assert attacks.create(**json.loads(json.dumps(attack.settings))) == attack
    for options, text in ((dict(keep="middle"), "keep='middle'"), (dict(limit="never"), "limit='never'"), (dict(size=0), "size=0")):
        with pytest.raises(ValueError, match="expected") as raised:
            attacks.frequency_pgd(0.1, 1, **options)
        assert text in str(raised.value)
    with pytest.raises(ValueError, match="size=8 with keep='high' on images of 8 x 10"):
        attacks.frequency_pgd(0.1, 1, keep="high", size=8)(*examples(), KEY)
