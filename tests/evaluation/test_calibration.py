"""Calibration error against a loop over images and bins."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import evaluation, parallel
from vmamba_jax.evaluation import calibration


def drawn(n=203):
    rng = np.random.default_rng(0)
    confidence = np.round(rng.random(n), 2)
    confidence[:3] = 0, 1, 0.2
    return confidence, rng.random(n) < confidence**2


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_equal_widths(bins):
    confidence, correct = drawn()
    found, error = calibration.reliability(confidence, correct, bins), 0
    for k in range(bins):
        low, high = np.linspace(0, 1, bins + 1)[k:k + 2]
        inside = [i for i in range(len(confidence)) if low < confidence[i] <= high or (k == 0 and confidence[i] == 0)]
        assert found[k]["examples"] == len(inside)
        if inside:
            np.testing.assert_allclose([found[k]["confidence"], found[k]["accuracy"]], [confidence[inside].mean(), correct[inside].mean()])
            error += len(inside) / len(confidence) * abs(confidence[inside].mean() - correct[inside].mean())
    np.testing.assert_allclose(calibration.expected_error(found), error)
    assert sum(each["examples"] for each in found) == len(confidence) and error > 0.05


def test_adaptive():
    confidence, correct = drawn(50)
    found = calibration.reliability(confidence, correct, 15, adaptive=True)
    assert [each["examples"] for each in found] == [4] * 5 + [3] * 10
    order = sorted(range(50), key=lambda i: (confidence[i], i))
    assert found[0]["confidence"] == np.mean(confidence[order[:4]]) and found[-1]["accuracy"] == np.mean(correct[order[-3:]])
    assert all(each["low"] <= each["confidence"] <= each["high"] for each in found)
    assert len(calibration.reliability(confidence[:4], correct[:4], 15, adaptive=True)) == 4


def test_over_a_set():
    weights = 8 * jax.random.normal(jax.random.key(0), (12, 3))
    logits_fn = Partial(lambda w, x: x.reshape(len(x), -1) @ w, weights)
    images, labels = np.random.default_rng(0).random((41, 2, 2, 3), np.float32), np.arange(41) % 3
    results = [evaluation.calibration_error(logits_fn, (images, labels), batch_size=size, mesh=parallel.data_mesh(jax.devices()[:devices]))
               for size, devices in ((41, 1), (9, 8))]
    probabilities = np.asarray(jax.nn.softmax(logits_fn(images)))
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    for result in results:
        np.testing.assert_allclose(result["ece"], calibration.expected_error(calibration.reliability(confidence, correct)), atol=1e-5)
        adaptive = calibration.expected_error(calibration.reliability(confidence, correct, adaptive=True))
        np.testing.assert_allclose(result["adaptive_ece"], adaptive, atol=1e-5)
        assert result["accuracy"] == correct.mean() and abs(result["confidence"] - confidence.mean()) < 1e-5 and len(result["bins"]) == 15
        assert json.loads(json.dumps(result)) == result and result["ece"] > 0.2


def test_non_finite_logits():
    result = evaluation.calibration_error(lambda x: jnp.full((len(x), 3), jnp.nan), (np.zeros((4, 2, 2, 3), np.float32), np.zeros(4, int)))
    assert result["accuracy"] == 0 and result["confidence"] == result["ece"] == 1


@pytest.mark.parametrize(("arguments", "text"), [(([0.5], [True], 0), "bins=0"), (([0.5, 1.5], [True, True]), "[0.5, 1.5]"),
                                                 (([0.5], [True, False]), "(1,)"), (([], []), "(0,)")], ids=str)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match="expected") as raised:
        calibration.reliability(*arguments)
    assert text in str(raised.value)
