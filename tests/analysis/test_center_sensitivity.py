"""Center sensitivity against a loop over the window's positions, and its slope against NumPy's and SciPy's least squares."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import analysis, evaluation, parallel

N = 60


def net(weights, images):
    return images.reshape(len(images), -1) @ weights


def setting(height=8, width=8):
    """A linear classifier whose weights grow towards the center, and images it classifies correctly except for five."""
    y, x = np.meshgrid(*(np.arange(side) - (side - 1) / 2 for side in (height, width)), indexing="ij")
    near = np.exp(-(y**2 + x**2) / 8)[..., None] * np.ones(2)
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((near.size, 4)) * near.reshape(-1, 1), jnp.float32)
    images = np.random.default_rng(1).random((N, height, width, 2), np.float32)
    labels = np.array(net(weights, images).argmax(1))
    labels[:5] = (labels[:5] + 1) % 4
    return Partial(net, weights), images, labels


@pytest.mark.parametrize(("shape", "stride", "tops", "lefts"), [
    ((8, 8), 2, [0, 2, 4, 6], [0, 2, 4, 6]), ((8, 9), 3, [0, 3, 6], [0, 3, 6])], ids=str)
def test_as_a_loop(shape, stride, tops, lefts):
    logits_fn, images, labels = setting(*shape)
    mesh = parallel.data_mesh(jax.devices()[:3])
    result = analysis.center_sensitivity(logits_fn, (images, labels), 2, stride, batch_size=25, mesh=mesh)
    assert (result["tops"], result["lefts"]) == (tops, lefts) and result["accuracy"] == 55 / N and json.loads(json.dumps(result)) == result
    rings, radii, drops, marks = {}, [], [], []
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            black = images.copy()
            black[:, top:top + 2, left:left + 2] = 0
            right = np.asarray(logits_fn(black)).argmax(1) == labels
            drop = 55 / N - right.mean()
            np.testing.assert_allclose(result["drop"][i][j], drop, atol=1e-9)
            away = max(abs(i - (len(tops) - 1) / 2), abs(j - (len(lefts) - 1) / 2))
            rings.setdefault(int(away), []).append(drop)
            radii.append(away * stride)
            drops.append(drop)
            marks.append((np.arange(N) >= 5) * 1.0 - right)
    for ring, (k, each) in zip(result["rings"], sorted(rings.items()), strict=True):
        assert ring["ring"] == k and ring["positions"] == len(each)
        np.testing.assert_allclose(ring["drop"], np.mean(each), atol=1e-9)
    (slope, intercept), covariance = np.polyfit(radii, drops, 1, cov=True)
    np.testing.assert_allclose([result[name] for name in ("slope", "intercept", "slope_error")], [slope, intercept, covariance[0, 0]**0.5],
                               atol=1e-9)
    slopes = [np.polyfit(radii, own, 1)[0] for own in np.array(marks).T]
    np.testing.assert_allclose(result["slope_error_images"], np.std(slopes, ddof=1) / N**0.5, atol=1e-9)
    assert result["slope"] < -0.01


def test_contents_and_one_position():
    logits_fn, images, labels = setting()
    result = analysis.center_sensitivity(logits_fn, (images, labels), 8, 1, content=("mean", 0.5))
    grey = evaluation.accuracy(logits_fn, (np.full_like(images, 0.5), labels))
    assert result["slope"] is None and result["slope_error_images"] is None
    np.testing.assert_allclose(result["drop"], [[55 / N - grey["accuracy"]]], atol=1e-9)
    noisy = [analysis.center_sensitivity(logits_fn, (images, labels), 4, 4, content=("noise", 0.5), key=jax.random.key(0), batch_size=size)
             for size in (60, 24)]
    assert noisy[0] == noisy[1]


@pytest.mark.parametrize(("options", "text"), [({"window": 9}, "window=9"), ({"stride": 0}, "stride=0"), ({"content": "noise"}, "key=None"),
                                               ({"content": "blur"}, "content='blur'")], ids=str)
def test_errors(options, text):
    logits_fn, images, labels = setting()
    with pytest.raises(ValueError, match="expected") as raised:
        analysis.center_sensitivity(logits_fn, (images, labels), **{"window": 2, "stride": 2} | options)
    assert text in str(raised.value)
