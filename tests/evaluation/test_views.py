"""Predictions of several views merged: mirrored and resized back, on plain functions."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.evaluation import views
from vmamba_jax.models.dense.detection import Detections


def test_probabilities():
    """A function of each pixel has the same answer in both views; one of the place has the mean of both."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 5, 6, 3)), jnp.float32)
    np.testing.assert_allclose(views.segment(lambda x: 3 * x, images, (1.0,)), jax.nn.softmax(3 * images), atol=1e-6)
    place = lambda x: jnp.stack([jnp.broadcast_to(jnp.arange(x.shape[2], dtype=jnp.float32), x.shape[:3]), jnp.zeros(x.shape[:3])], -1)
    p = np.asarray(jax.nn.sigmoid(jnp.arange(6.0)))
    np.testing.assert_allclose(views.segment(place, images, (1.0,))[0, 0, :, 0], (p + p[::-1]) / 2, atol=1e-6)
    seen = []
    found = views.segment(lambda x: seen.append(x.shape[1:3]) or 3 * x, jnp.full((1, 8, 12, 3), 0.5), (0.5, 1.25), flip=False)
    assert seen == [(4, 6), (10, 15)] and found.shape == (1, 8, 12, 3) and np.allclose(found, 1 / 3)


def bright(images, sizes):
    """Two detections: the box of the bright pixels, with its left half as its mask, and one at the upper left corner, the same in each view."""
    inside = images[..., 0] > 0.5
    rows, columns = (inside.any(axis) for axis in (2, 1))
    first, last = (lambda x: x.argmax(1)), (lambda x: x.shape[1] - x[:, ::-1].argmax(1))
    boxes = jnp.stack([jnp.stack([first(columns), first(rows), last(columns), last(rows)], -1), jnp.tile(jnp.asarray([0, 0, 8, 8]), (len(images), 1))], 1)
    n = len(images)
    masks = jnp.zeros((n, 2, 4, 4)).at[..., :2].set(1)
    return {"boxes": boxes.astype(jnp.float32), "scores": jnp.tile(jnp.asarray([sizes[0, 0] / 100, 0.1]), (n, 1)), "labels": jnp.tile(jnp.asarray([2, 1]), (n, 1)),
            "valid": jnp.ones((n, 2), bool), "masks": masks}


def test_detections():
    """Four views find one object, which is kept once, the best; the corner's detections lie at three places."""
    images = np.zeros((1, 32, 48, 3), np.float32)
    images[0, 8:16, 16:40] = 1
    sizes = []
    fn = lambda x, s: sizes.append((x.shape[1:3], s.tolist())) or bright(x, s)
    found = jax.device_get(jax.jit(lambda x: views.detect(fn, x, (1.0, 2.0), rule=Detections(count=6)))(images))
    assert sizes == [((32, 64), [[32, 48]])] * 2 + [((64, 96), [[64, 96]])] * 2
    assert found["valid"].tolist() == [[True] * 5 + [False]] and found["labels"].tolist() == [[2, 1, 1, 1, 1, -1]]
    np.testing.assert_allclose(found["boxes"][0, 0], [16, 8, 40, 16])
    assert float(found["scores"][0, 0]) == pytest.approx(0.64)
    corners = {tuple(box) for box in np.asarray(found["boxes"][0, 1:5]).tolist()}
    assert corners == {(0, 0, 8, 8), (40, 0, 48, 8), (0, 0, 4, 4), (44, 0, 48, 4)}
    for box, mask in zip(found["boxes"][0], found["masks"][0], strict=True):
        if box[0] >= 40:                                                                              # a mirrored view's mask is mirrored back
            np.testing.assert_array_equal(mask[:, 2:], 1)
            assert mask[:, :2].max() == 0
    assert found["masks"][0, 5].max() == 0 and found["boxes"][0, 5].max() == 0


def test_errors():
    with pytest.raises(ValueError, match=r"scales=\(\): expected at least one"):
        views.segment(lambda x: x, jnp.zeros((1, 4, 4, 3)), ())
    with pytest.raises(ValueError, match=r"scales\[0\]=0"):
        views.detect(bright, jnp.zeros((1, 4, 4, 3)), (0,))
