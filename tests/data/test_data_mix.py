"""Mixup and CutMix against timm 0.4.12: exactly on given draws, in distribution on their own."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vmamba_jax import data
from vmamba_jax.data.augment.mix import blend, boxes

N, H, W, CLASSES = 6, 8, 10, 4


@pytest.mark.parametrize("case", range(5))
@pytest.mark.often(3)
def test_given_draws(golden, case):
    r = golden("image_recipe")
    lam, cuts, centers = (jnp.asarray(r[f"mix_{case}_{name}"]) for name in ("lam", "cuts", "centres"))
    images, targets = blend(jnp.asarray(r["mix_before"]), jnp.asarray(r["mix_labels"]), lam, cuts, centers, 5)
    np.testing.assert_allclose(images, r[f"mix_{case}_images"], rtol=0, atol=1.2e-7)
    np.testing.assert_allclose(targets, r[f"mix_{case}_targets"], rtol=0, atol=1.2e-7)


def test_boxes_against_a_loop():
    rng = np.random.default_rng(0)
    lam, centers = rng.uniform(0, 1, 200).astype(np.float32), np.stack([rng.integers(0, 32, 200), rng.integers(0, 24, 200)], 1)
    found = np.stack(boxes(jnp.asarray(lam), jnp.asarray(centers), 32, 24), 1)
    for share, (y, x), row in zip(lam, centers, found, strict=True):
        h, w = int(32 * np.sqrt(1 - share)) // 2, int(24 * np.sqrt(1 - share)) // 2
        assert row.tolist() == [max(y - h, 0), max(x - w, 0), min(y + h, 32), min(x + w, 24)]


@functools.cache
def mixer(**options):
    return jax.jit(data.mix.create(**options), static_argnums=3)


def batch(n=N):
    images = jax.random.uniform(jax.random.key(9), (n, H, W, 1))
    return images, jnp.arange(n) % CLASSES


def test_weights_in_distribution(golden):
    """lam is read off the targets of pairs with unlike labels."""
    recipe, n = golden("image_recipe"), 3000
    images, labels = jnp.zeros((n, 32, 24, 1)), jnp.arange(n) >= n // 2
    targets = np.asarray(mixer(mode="elem", label_smoothing=0.0)(images, labels.astype(jnp.int32), jax.random.key(0), 2)[1])
    lam = np.where(labels, targets[:, 1], targets[:, 0])
    assert stats.ks_2samp(lam, recipe["mix_lam_sample"]).pvalue > 1e-3
    assert abs(recipe["mix_cut_sample"].mean() - 0.5) < 0.05


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.often(1)
def test_modes(mode):
    images, labels = batch()
    mixed, targets = mixer(mode=mode, mixup=0.8, cutmix=0.0, label_smoothing=0.0)(images, labels, jax.random.key(1), CLASSES)
    lam = np.asarray(((mixed - images[::-1]) * (images - images[::-1])).sum((1, 2, 3)) / ((images - images[::-1]) ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(mixed, lam[:, None, None, None] * images + (1 - lam[:, None, None, None]) * images[::-1], atol=1e-5)
    one_hot = np.eye(CLASSES)[np.asarray(labels)]
    np.testing.assert_allclose(targets, lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[::-1], atol=1e-5)
    assert len(np.unique(lam.round(4))) == {"batch": 1, "pair": N // 2, "elem": N}[mode]
    if mode != "elem":
        np.testing.assert_allclose(lam, lam[::-1], atol=1e-4)


def test_cutmix_targets():
    images, labels = batch()
    mixed, targets = mixer(mode="elem", mixup=0.0, label_smoothing=0.1)(images, labels, jax.random.key(4), CLASSES)
    own = np.asarray((mixed == images).all(-1))
    assert ((mixed == images) | (mixed == images[::-1])).all()
    one_hot = 0.9 * np.eye(CLASSES)[np.asarray(labels)] + 0.1 / CLASSES
    lam = own.mean((1, 2))[:, None]
    np.testing.assert_allclose(targets, lam * one_hot + (1 - lam) * one_hot[::-1], atol=1e-6)
    assert len(np.unique(lam)) > 2


def test_probability_switch_and_correction():
    images, labels = batch()
    for without in ({"probability": 0.0}, {"mixup": 0.0, "cutmix": 0.0, "mode": "pair"}):
        untouched, targets = mixer(**without)(images, labels, jax.random.key(0), CLASSES)
        assert (untouched == images).all()
        np.testing.assert_allclose(targets, 0.9 * np.eye(CLASSES)[np.asarray(labels)] + 0.025, atol=1e-6)
    mixed = jax.jit(jax.vmap(lambda key: data.mix.create()(images, labels, key, CLASSES)[0]))(jax.random.split(jax.random.key(1), 200))
    cut = np.asarray(((mixed == images) | (mixed == images[::-1])).all((1, 2, 3, 4))).mean()
    assert 0.4 < cut < 0.6


def test_clipped_boxes():
    weight = jax.jit(lambda correct_lam: blend(
        jnp.zeros((2, 8, 8, 1)), jnp.array([0, 1]), jnp.full(2, 0.75), jnp.ones(2, bool), jnp.zeros((2, 2), int), 2, correct_lam=correct_lam,
        label_smoothing=0.0)[1][0, 0], static_argnums=0)
    assert (weight(True), weight(False)) == (1 - 4 / 64, 0.75)


def test_soft_labels_and_dtypes():
    images, labels = batch()
    draws = jnp.linspace(0.1, 0.9, N), jnp.arange(N) % 2 == 0, jnp.full((N, 2), 4)
    mixed = jax.jit(lambda images, labels: blend(images, labels, *draws, CLASSES))
    a, b = mixed(images, labels), mixed(images, jax.nn.one_hot(labels, CLASSES))
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all()
    low = mixed(images.astype(jnp.bfloat16), labels)
    assert low[0].dtype == jnp.bfloat16 and low[1].dtype == jnp.float32


def test_one_key_per_image():
    images, labels = batch()
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(N))
    for mode in ("batch", "elem"):
        mix = mixer(mode=mode, mixup=0.8, cutmix=0.0, label_smoothing=0.0)
        one, many = (mix(images, labels, key, CLASSES)[1] for key in (jax.random.key(3), keys))
        assert (one == many).all()
        assert not (mix(images, labels, jax.random.key(5), CLASSES)[1] == one).all()


@pytest.mark.parametrize("call, error, message", [
    (lambda: data.mix.create(mixup=-1.0), ValueError, "mixup=-1.0: expected a finite number >= 0"),
    (lambda: data.mix.create(mixup="0.8"), TypeError, "mixup='0.8': expected a finite number"),
    (lambda: data.mix.create(mode="half"), ValueError, "mode='half': expected one of"),
    (lambda: data.mix.create(switch_probability=1.1), ValueError, "switch_probability"),
    (lambda: data.mix.create(label_smoothing=1), ValueError, "label_smoothing=1: expected less than 1"),
    (lambda: data.mix.create()(*(x[:5] for x in batch()), jax.random.key(0), CLASSES), ValueError, r"images of shape \(5, 8, 10, 1\) .* even B"),
    (lambda: jax.eval_shape(lambda: data.mix.create()(batch()[0], jnp.zeros((N, 3)), jax.random.key(0), CLASSES)), ValueError, r"labels of shape \(6, 3\): expected \(6,\) integers or \(6, 4\)"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
