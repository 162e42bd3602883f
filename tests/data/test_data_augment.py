"""Augmentation on the device: every result is one of the crops of an image padded by NumPy, independent of its batch."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import data

FILLS = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def images(n=64, h=5, w=6, c=2):
    return jax.random.uniform(jax.random.key(0), (n, h, w, c))


def draws(before, after, pad, fill):
    """(top, left, flipped) of every image; an assertion fails unless exactly one crop equals it."""
    found = []
    for x, y in zip(np.asarray(before), np.asarray(after), strict=True):
        padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode=FILLS[fill])
        h, w, _ = x.shape
        ways = [(i, j, f) for i in range(2 * pad + 1) for j in range(2 * pad + 1) for f in (0, 1)
                if (padded[i:i + h, j:j + w][:, ::-1 if f else 1] == y).all()]
        assert len(ways) == 1
        found.append(ways[0])
    return np.array(found)


@pytest.mark.parametrize("name, options, pad, flips", [
    ("crop_flip", {"pad": 1}, 1, True), ("crop_flip", {"fill": "zeros", "pad": 2}, 2, True), ("crop_flip", {"pad": 0}, 0, True),
    ("crop_flip", {"fill": "edge", "pad": 1, "flip": 1.0}, 1, True), ("crop", {}, 2, False),
    ("crop", {"pad": 1, "fill": "reflect"}, 1, False),
])
def test_results_are_crops(name, options, pad, flips):
    fill = options.get("fill", "reflect" if name == "crop_flip" else "zeros")
    x = images(200)
    y = jax.jit(data.augment.create(name, **options))(x, jax.random.key(1))
    assert y.shape == x.shape and y.dtype == x.dtype
    found = draws(x, y, pad, fill)
    for axis in (0, 1):
        assert set(found[:, axis]) == set(range(2 * pad + 1))
    share = found[:, 2].mean()
    assert share == 1 if options.get("flip") == 1.0 else abs(share - 0.5) < 0.15 if flips else share == 0


def test_crop_flip_defaults():
    x = images(40, 32, 32, 3)
    found = draws(x, jax.jit(data.augment.create("crop_flip"))(x, jax.random.key(0)), 4, "reflect")
    assert found[:, :2].min() == 0 and found[:, :2].max() == 8


def test_none_is_the_identity():
    assert (data.augment.create("none")(images(), jax.random.key(0)) == images()).all()


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_draws_are_independent_of_the_batch(make):
    x, augment = images(6), jax.jit(data.augment.create("crop_flip", pad=2))
    whole = augment(x, make(3))
    keys = jnp.stack([jax.random.fold_in(make(3), i) for i in range(6)])
    assert (augment(x, keys) == whole).all()
    assert (jnp.concatenate([augment(x[:3], keys[:3]), augment(x[3:], keys[3:])]) == whole).all()
    assert not (augment(x, make(4)) == whole).all()


@pytest.mark.parametrize("call, error, message", [
    (lambda: data.augment.create("mixup"), ValueError, "augmentation='mixup': expected one of 'none', 'crop', 'crop_flip', 'erase'"),
    (lambda: data.augment.create("crop", flip=0.5), TypeError, r"flip=0.5: expected an option of augmentation 'crop', one of 'pad', 'fill'$"),
    (lambda: data.augment.create("crop_flip", pad=-1), ValueError, "pad"),
    (lambda: data.augment.create("crop_flip", pad=1.5), TypeError, "pad"),
    (lambda: data.augment.create("crop_flip", fill="wrap"), ValueError, "'wrap'"),
    (lambda: data.augment.create("crop_flip", flip=1.5), ValueError, "flip=1.5: expected"),
    (lambda: data.augment.create("crop_flip", pad=5)(images(), jax.random.key(0)), ValueError, "pad=5: expected less than the sides 5x6"),
    (lambda: data.augment.create("crop")(images()[0], jax.random.key(0)), ValueError, r"images of shape \(5, 6, 2\): expected \(B, H, W, C\)"),
    (lambda: data.augment.create("crop")(images(4), jax.random.split(jax.random.key(0), 3)), ValueError, "expected one key, or one"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
