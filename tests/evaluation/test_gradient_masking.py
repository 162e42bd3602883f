"""Each sign appears where it should and not elsewhere."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import evaluation

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).random((16, 4, 4, 3), np.float32)
WEIGHTS = jax.random.normal(jax.random.key(0), (48, 12))


def honest(weights, images):
    return images.reshape(len(images), -1) @ weights


def signs(f, labels=None, **options):
    labels = np.asarray(f(IMAGES)).argmax(1) if labels is None else labels
    found = evaluation.gradient_masking_signs(f, IMAGES, labels, **({"eps": 0.1, "key": KEY} | options))
    assert all(set(warning) == {"sign", "measured", "meaning"} for warning in found)
    return [warning["sign"] for warning in found]


def test_nothing_to_warn_of():
    assert signs(Partial(honest, WEIGHTS)) == []
    assert signs(Partial(honest, WEIGHTS), norm="l2", surrogate=Partial(honest, WEIGHTS)) == []


def test_randomised():
    rng = np.random.default_rng(0)

    def noisy(images):
        noise = jax.pure_callback(lambda: rng.random((), np.float32), jax.ShapeDtypeStruct((), jnp.float32))
        return honest(WEIGHTS, images) + jax.lax.stop_gradient(noise) * jnp.arange(12) * 1e-2
    assert "randomised" in signs(noisy)


def test_probabilities():
    assert "probabilities" in signs(Partial(lambda w, x: jax.nn.softmax(honest(w, x)), WEIGHTS))


@pytest.mark.parametrize(("classes", "expected"), [(3, True), (9, True), (10, False)])
def test_few_classes(classes, expected):
    assert ("few_classes" in signs(Partial(honest, WEIGHTS[:, :classes]))) == expected


def test_masked_gradients():
    """A model whose input is rounded has no gradient at all; one behind a steep wave has gradients that mislead: another model's help more."""
    plain = Partial(honest, WEIGHTS)
    rounded = Partial(lambda w, x: honest(w, jnp.round(x * 64) / 64), WEIGHTS)
    found = signs(rounded, surrogate=plain)
    assert found.count("zero_gradient") == 2 and "transfer" in found
    wave = Partial(lambda w, x: honest(w, x + 0.01 * jnp.sin(3000 * x)), WEIGHTS)
    assert "transfer" in signs(wave, surrogate=plain) and "zero_gradient" not in signs(wave)


def test_single_step():
    """Gradients right at the image itself and opposite anywhere else: one step helps, twenty do not."""
    centre = jnp.asarray(IMAGES)

    @jax.custom_vjp
    def turned(x):
        return x
    turned.defvjp(lambda x: (x, jnp.abs(x - centre).max()), lambda distance, g: (jnp.where(distance > 1e-6, -g, g),))
    assert "single_step" in signs(lambda x: honest(WEIGHTS, turned(x)), eps=0.02)


def test_square():
    stages = [{"name": "apgd-ce", "broken": 500}, {"name": "square", "broken": 30}]
    assert "square" in signs(Partial(honest, WEIGHTS), result={"stages": stages, "examples": 10_000})
    assert "square" not in signs(Partial(honest, WEIGHTS), result={"stages": stages, "examples": 20_000})
