"""Bit flips: which bits, how many, in which numbers; accuracy with flipped weights and activations."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import evaluation, models
from vmamba_jax.evaluation.disturbances import bit_flips

KEY = jax.random.key(4)


def words(x):
    x = np.asarray(x)
    return x.view({2: np.uint16, 4: np.uint32}[x.dtype.itemsize])


class Net(nn.Module):
    in_channels: int = 2

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16, name="first")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="second")(x)


@pytest.fixture(scope="module")
def subject():
    """(classifier, variables, images, labels): the classifier's own predictions."""
    classifier = models.Classifier(Net(), (0.5,), (0.5,))
    images = np.asarray(jax.random.uniform(jax.random.key(0), (64, 3, 3, 2)))
    variables = jax.jit(classifier.model.init)(jax.random.key(1), images)
    return classifier, variables, images, np.asarray(jax.jit(classifier)(variables, images).argmax(1))


@pytest.mark.parametrize("dtype,parts", [(jnp.float32, {"mantissa": range(23), "exponent": range(23, 31), "sign": [31], "all": range(32)}),
                                         (jnp.bfloat16, {"mantissa": range(7), "exponent": range(7, 15), "sign": [15], "all": range(16)})])
def test_bits(dtype, parts):
    """At rate 1 exactly the bits of the part flip; at rate 0 none; twice the same flips restore the numbers."""
    x = jax.random.normal(KEY, (5, 7)).astype(dtype)
    for part, bits in parts.items():
        flipped = bit_flips.flip_bits(x, KEY, 1.0, part)
        assert flipped.dtype == dtype and set(np.unique(words(flipped) ^ words(x))) == {sum(1 << b for b in bits)}
    assert (words(bit_flips.flip_bits(x, KEY, 0.0)) == words(x)).all()
    again = bit_flips.flip_bits(bit_flips.flip_bits(x, KEY, 0.3), KEY, 0.3)
    assert (words(again) == words(x)).all()


def test_rate():
    """Every bit flips at the rate, independently: counts over 20,000 numbers within five standard deviations."""
    x, rate = jnp.zeros(20_000), 0.01
    flipped = words(jax.jit(bit_flips.flip_bits, static_argnames="bits")(x, KEY, rate))
    counts = np.array([int((flipped >> b & 1).sum()) for b in range(32)])
    assert (np.abs(counts - 200) < 5 * 200**0.5).all()
    both = ((flipped & 1) & (flipped >> 31)).sum()
    assert both < 15 and len(set(counts.tolist())) > 10


def test_weights(subject):
    """Only the named collections; every leaf has its own faults; integers stay."""
    variables = {"params": {"a": jnp.ones(500), "b": jnp.ones(500), "n": jnp.arange(5)}, "batch_stats": {"mean": jnp.ones(500)}}
    flipped = bit_flips.flip_weight_bits(variables, KEY, 0.1)
    a, b = words(flipped["params"]["a"]), words(flipped["params"]["b"])
    assert (a != b).any() and (flipped["params"]["n"] == jnp.arange(5)).all() and (flipped["batch_stats"]["mean"] == 1).all()
    both = bit_flips.flip_weight_bits(variables, KEY, 0.1, collections=("params", "batch_stats"))
    assert (words(both["batch_stats"]["mean"]) != words(jnp.ones(500))).any() and (words(both["params"]["a"]) == a).all()
    with pytest.raises(ValueError, match="collections='stats': expected one of 'params', 'batch_stats'"):
        bit_flips.flip_weight_bits(variables, KEY, 0.1, collections=("stats",))


def test_activations_by_hand(subject):
    """Sign flips at rate 1 negate the output of each layer with weights, the last too; the same places for all images."""
    classifier, variables, images, _ = subject
    faulty = bit_flips.flip_activation_bits(lambda x: classifier(variables, x), KEY, 1.0, "sign")(images)
    first, second = variables["params"]["first"], variables["params"]["second"]
    x = (images.reshape(64, -1) - 0.5) / 0.5
    hidden = np.maximum(-(x @ first["kernel"] + first["bias"]), 0)
    np.testing.assert_allclose(faulty, -(hidden @ second["kernel"] + second["bias"]), atol=1e-5)
    once = bit_flips.flip_activation_bits(lambda x: classifier(variables, x), KEY, 0.3, "sign")
    np.testing.assert_allclose(once(images)[5:6], once(images[5:6]), atol=1e-5)
    with pytest.raises(ValueError, match="without a call of a Flax module"):
        bit_flips.flip_activation_bits(lambda x: x, KEY, 0.1)(images)


def test_accuracy(subject):
    classifier, variables, images, labels = subject
    run = lambda where, rate, **options: evaluation.bit_flip_accuracy(classifier, variables, (images, labels), rate=rate, key=KEY, where=where,
                                                                      **{"draws": 3, "batch_size": 64} | options)
    for where in bit_flips.PLACES:
        none, many = run(where, 0.0, draws=1), run(where, 0.02)
        assert none["accuracy"] == none["disturbed_accuracy"]["mean"] == 1 and none["drop"] == {"n": 1, "mean": 0, "sd": None, "low": None, "high": None}
        found = many["disturbed_accuracy"]
        assert found["low"] < found["mean"] < min(0.9, found["high"]) and len(many["rows"]) == found["n"] == 3
        assert many["drop"]["mean"] == pytest.approx(1 - found["mean"])
    assert len({row["disturbed_accuracy"] for row in many["rows"]}) > 1


@pytest.mark.parametrize("options,error,words", [
    (dict(rate=1.5), ValueError, "rate=1.5"), (dict(rate=0.1, where="inputs"), ValueError, "where='inputs': expected one of 'weights', 'activations'"),
    (dict(rate=0.1, draws=0), ValueError, "draws=0"), (dict(rate=0.1, eps=3), TypeError, "bit_flip_accuracy got 'eps'")])
def test_errors(subject, options, error, words):
    with pytest.raises(error, match=words):
        evaluation.bit_flip_accuracy(*subject[:2], subject[2:], key=KEY, clean=np.ones(64, bool), **options)
    with pytest.raises(TypeError, match="x.dtype=int32"):
        bit_flips.flip_bits(jnp.arange(3), KEY, 0.1)
    with pytest.raises(ValueError, match="bits='high'"):
        bit_flips.flip_bits(jnp.ones(3), KEY, 0.1, "high")
