"""Each sign of gradient masking appears for a model that has it and for no other."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import evaluation

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).random((16, 4, 4, 3), np.float32)
WEIGHTS = jax.random.normal(jax.random.key(0), (48, 12))


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


def signs(f, labels=None, **options):
    labels = np.asarray(f(IMAGES)).argmax(1) if labels is None else labels
    found = evaluation.gradient_masking_signs(f, IMAGES, labels, **({"eps": 0.1, "key": KEY} | options))
    assert all(set(warning) == {"sign", "measured", "meaning"} for warning in found)
    return [warning["sign"] for warning in found]


def test_old_name():
    with pytest.warns(DeprecationWarning, match="gradient_masking_signs"):
        assert evaluation.suspicions is evaluation.gradient_masking_signs


def test_no_signs():
    assert signs(Partial(linear, WEIGHTS)) == []
    assert signs(Partial(linear, WEIGHTS), norm="l2", surrogate=Partial(linear, WEIGHTS)) == []


def test_randomized():
    rng = np.random.default_rng(0)

    def noisy(images):
        noise = jax.pure_callback(lambda: rng.random((), np.float32), jax.ShapeDtypeStruct((), jnp.float32))
        return linear(WEIGHTS, images) + jax.lax.stop_gradient(noise) * jnp.arange(12) * 1e-2
    assert "randomised" in signs(noisy)


def test_probabilities():
    assert "probabilities" in signs(Partial(lambda w, x: jax.nn.softmax(linear(w, x)), WEIGHTS))


@pytest.mark.parametrize(("classes", "expected"), [(3, True), (9, True), (10, False)])
def test_few_classes(classes, expected):
    assert ("few_classes" in signs(Partial(linear, WEIGHTS[:, :classes]))) == expected


def test_masked_gradients():
    """Rounding the input removes all gradients; a steep wave makes them misleading, so another model's gradients attack better."""
    plain = Partial(linear, WEIGHTS)
    rounded = Partial(lambda w, x: linear(w, jnp.round(x * 64) / 64), WEIGHTS)
    found = signs(rounded, surrogate=plain)
    assert found.count("zero_gradient") == 2 and "transfer" in found
    wave = Partial(lambda w, x: linear(w, x + 0.01 * jnp.sin(3000 * x)), WEIGHTS)
    assert "transfer" in signs(wave, surrogate=plain) and "zero_gradient" not in signs(wave)


def test_single_step():
    """Correct gradients at the image itself and reversed ones elsewhere: one step succeeds, twenty do not."""
    center = jnp.asarray(IMAGES)

    @jax.custom_vjp
    def reversed_gradient(x):
        return x
    reversed_gradient.defvjp(lambda x: (x, jnp.abs(x - center).max()), lambda distance, g: (jnp.where(distance > 1e-6, -g, g),))
    assert "single_step" in signs(lambda x: linear(WEIGHTS, reversed_gradient(x)), eps=0.02)


def test_square():
    stages = [{"name": "apgd-ce", "broken": 500}, {"name": "square", "broken": 30}]
    assert "square" in signs(Partial(linear, WEIGHTS), result={"stages": stages, "examples": 10_000})
    assert "square" not in signs(Partial(linear, WEIGHTS), result={"stages": stages, "examples": 20_000})


def test_not_finite_logits_come_first():
    """NaN for some images; NaN only under attack; and the correctness of an image whose logits are NaN, of which argmax is 0."""
    broken = lambda x: jnp.where(x[:, :1, 0, 0] > np.median(IMAGES[:, 0, 0, 0]), jnp.nan, linear(WEIGHTS, x)[:, :5])
    found = evaluation.gradient_masking_signs(broken, IMAGES, np.zeros(16, int), eps=0.0, key=KEY)
    assert [each["sign"] for each in found[:2]] == ["not_finite", "few_classes"] and found[0]["measured"] == 0.5 and "not finite" in found[0]["meaning"]
    everywhere = lambda x: jnp.full((len(x), 12), jnp.nan) + 0 * x.sum()
    assert signs(everywhere, labels=np.zeros(16, int)) == ["not_finite"]
    fragile = lambda x: jnp.where((x == IMAGES).all((1, 2, 3))[:, None], linear(WEIGHTS, x), jnp.inf)
    assert signs(fragile)[0] == "not_finite"


def test_refused_inputs():
    f = Partial(linear, WEIGHTS)
    for images, labels, message in ((IMAGES[:0], np.zeros(0, int), "at least one image"), (IMAGES, np.full(16, 12), r"labels\[0\]=12"),
                                    (IMAGES, np.zeros((16, 1), int), r"labels.shape=\(16, 1\)"), (2 * IMAGES, np.zeros(16, int), "in \\[0, 1\\]")):
        with pytest.raises(ValueError, match=message):
            evaluation.gradient_masking_signs(f, images, labels, eps=0.1, key=KEY)
