"""Random erasing against timm 0.4.12: rectangles on recorded draws, their distribution, and what fills them."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vmamba_jax import data
from vmamba_jax.data.augment.erase import box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("h, w", [(24, 20), (12, 60)])
def test_rectangles_on_recorded_draws(golden, h, w):
    recipe = golden("image_recipe")
    boxes = jax.jit(jax.vmap(functools.partial(box, h=h, w=w)))(recipe[f"erase_{h}x{w}_draws"])
    np.testing.assert_array_equal(boxes, recipe[f"erase_{h}x{w}_boxes"])


def test_no_rectangle_fits():
    assert (box(jnp.full((10, 4), 0.5), 24, 20, area=(1.0, 1.0)) == 0).all()


@functools.cache
def erased(**options):
    return jax.jit(data.augment.create("erase", **options))


def test_rectangles_in_distribution(golden):
    images = jnp.full((2000, 64, 48, 1), 0.5)
    y = np.asarray(erased(probability=1.0, mode="constant", mean=(0.0,), std=(1.0,))(images, jax.random.key(0)))[..., 0] == 0
    top, left = y.any(2).argmax(1), y.any(1).argmax(1)
    height, width = y.any(2).sum(1), y.any(1).sum(1)
    assert (y.sum((1, 2)) == height * width).all()
    expected = golden("image_recipe")["erase_sample"].astype(float).T
    for a, b in ((top, expected[0]), (left, expected[1]), (height * width, expected[2] * expected[3]), (height / width, expected[2] / expected[3])):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_pixel_fill_is_normal():
    images = jnp.full((400, 16, 16, 3), 2.0)
    y = np.asarray(erased(mean=MEAN, std=STD)(images, jax.random.key(1)))
    hit = (y != 2.0).all(-1)
    assert abs(hit.any((1, 2)).mean() - 0.25) < 0.07
    noise = (y[hit] - np.array(MEAN)) / np.array(STD)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3 and abs(np.corrcoef(noise.T)[0, 1]) < 0.1


def test_fills():
    images, key = jnp.full((8, 12, 12, 3), 2.0), jax.random.key(2)
    color = np.asarray(erased(probability=1.0, mode="color")(images, key))
    constant = np.asarray(erased(probability=1.0, mode="constant")(images, key))
    cut = np.asarray(erased(probability=1.0, clip=True)(images, key))
    for i in range(8):
        hit = color[i, ..., 0] != 2
        assert (np.unique(color[i][hit], axis=0).shape == (1, 3)) and not np.allclose(color[i][hit][0], MEAN)
        np.testing.assert_allclose(constant[i][hit], np.broadcast_to(MEAN, (hit.sum(), 3)), rtol=1e-6)
        assert cut[i][hit].min() >= 0 and cut[i][hit].max() <= 1 and (cut[i][~hit] == 2).all()


def test_draws_are_independent_of_the_batch():
    x, augment = jax.random.uniform(jax.random.key(0), (6, 8, 8, 3), jnp.bfloat16), erased(probability=0.7)
    whole = augment(x, jax.random.key(3))
    keys = jnp.stack([jax.random.fold_in(jax.random.key(3), i) for i in range(6)])
    assert whole.dtype == x.dtype and (augment(x[3:], keys[3:]) == whole[3:]).all() and (whole != x).any()


@pytest.mark.parametrize("call, error, message", [
    (lambda: data.augment.create("erase", probability=2), ValueError, "probability=2.0: expected a finite number >= 0 and <= 1"),
    (lambda: data.augment.create("erase", mode="noise"), ValueError, "mode='noise': expected one of"),
    (lambda: data.augment.create("erase", area=(0.0, 0.5)), ValueError, r"area\[0\]=0.0: expected a finite number > 0"),
    (lambda: data.augment.create("erase", aspect=3), TypeError, "aspect=3: expected a pair"),
    (lambda: data.augment.create("erase", std=("a",)), TypeError, "std='a': expected a finite number"),
    (lambda: data.augment.create("erase")(jnp.zeros((2, 4, 4, 3), jnp.uint8), jax.random.key(0)), ValueError, "uint8: expected .B, H, W, C. of a floating type"),
    (lambda: data.augment.create("erase")(jnp.zeros((2, 4, 4, 1)), jax.random.key(0)), ValueError, r"mean=\(.*\): expected one number for each of the 1"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
