"""Threefry random numbers: the cipher, their distributions, and their dependence on key and position alone."""
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import parallel
from vmamba_jax.attacks import per_image_keys
from vmamba_jax.evaluation import corruptions
from vmamba_jax.evaluation.corruptions import reproducible
from vmamba_jax.evaluation.corruptions import threefry as random

KEYS = per_image_keys(jax.random.key(5), 24)
SHAPE = (128, 128, 3)


@functools.cache
def drawn(name):
    """(24, 128, 128, 3) float64: images, rows, columns, channels."""
    return np.asarray(jax.jit(jax.vmap(lambda key: getattr(random, name)(key, SHAPE)))(KEYS), np.float64)


def threefry(key, count, rounds):
    """The published cipher on Python's integers."""
    mask, schedule = 0xFFFFFFFF, (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    a, b = (count + key[0]) & mask, key[1]
    for i in range(rounds):
        a, turn = (a + b) & mask, (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        b = ((b << turn | b >> 32 - turn) & mask) ^ a
        if i % 4 == 3:
            a, b = (a + schedule[(i // 4 + 1) % 3]) & mask, (b + schedule[(i // 4 + 2) % 3] + i // 4 + 1) & mask
    return a, b


def test_words_are_threefry():
    assert threefry((0, 0), 0, 20) == (0x6B200159, 0x99BA4EFE)  # Random123's known answers
    assert threefry((0x13198A2E, 0x03707344), 0x243F6A88, 20)[0] != threefry((0x13198A2E, 0x03707344), 0x243F6A89, 20)[0]
    words = np.stack(random.words(KEYS[0], (5, 2)), -1).reshape(-1, 2).tolist()
    seed = jax.random.bits(KEYS[0], (2,)).tolist()
    assert [tuple(pair) for pair in words] == [threefry(seed, count, random.ROUNDS) for count in range(10)]


@pytest.mark.parametrize("name", ["normals", "uniforms"])
def test_distribution(name):
    x = drawn(name)
    n, deviation = x.size, 1 if name == "normals" else 3**-0.5
    kurtosis, sixth = (3, 15) if name == "normals" else (9 / 5, 27 / 7)
    assert x.min() >= (-5.8 if name == "normals" else -1) and x.max() < (5.8 if name == "normals" else 1)
    z = x / deviation
    assert abs(z.mean()) < 4.5 / n**0.5 and abs((z**3).mean()) < 4.5 * (sixth / n) ** 0.5
    assert abs((z**2).mean() - 1) < 4.5 * ((kurtosis - 1) / n) ** 0.5
    assert abs((z**4).mean() - kurtosis) < 4.5 * ((105 if name == "normals" else 9) / n) ** 0.5
    cdf = lambda t: 0.5 * math.erfc(-t / 2**0.5) if name == "normals" else (t + 1) / 2
    grid = np.linspace(-3.5, 3.5, 141) if name == "normals" else np.linspace(-1, 1, 141)
    share = np.searchsorted(np.sort(x, None), grid) / n  # Kolmogorov and Smirnov's distance, on a grid
    assert np.abs(share - [cdf(t) for t in grid]).max() < 2 / n**0.5


@pytest.mark.parametrize("name", ["normals", "uniforms"])
def test_independence(name):
    x = drawn(name)
    x = (x - x.mean()) / x.std()
    pairs = {"rows": (x[:, 1:], x[:, :-1]), "columns": (x[:, :, 1:], x[:, :, :-1]), "channels": (x[..., 1:], x[..., :-1]),
             "images": (x[1:], x[:-1]), "far": (x[:, 64:], x[:, :64])}
    for where, (a, b) in pairs.items():
        for power in (1, 2):  # squares too: magnitudes can be correlated if signs are not
            p, q = a**power - (a**power).mean(), b**power - (b**power).mean()
            assert abs((p * q).mean() / (p.std() * q.std())) < 4.5 / p.size**0.5, (where, power)


def test_bits_are_uniform():
    a, b = (np.asarray(word) for word in random.words(KEYS[1], (1 << 18,)))
    for word in (a, b, a ^ b, a[1:] ^ a[:-1]):
        ones = (word[:, None] >> np.arange(32, dtype=np.uint32) & 1).mean(0)
        assert np.abs(ones - 0.5).max() < 4.5 * 0.5 / len(word) ** 0.5


@pytest.mark.parametrize("reach", [1, 3])
def test_offsets(reach):
    moves = np.stack(random.offsets(KEYS[2], (300, 200), reach), -1)
    assert moves.shape == (300, 200, 2) and (moves.min(), moves.max()) == (-reach, reach - 1)
    counts, cells = np.unique(moves.reshape(-1, 2), axis=0, return_counts=True)[1], (2 * reach) ** 2
    assert len(counts) == cells and np.square(counts * cells / 60_000 - 1).sum() * 60_000 / cells < cells + 4.5 * (2 * cells) ** 0.5


def test_vmap_shard_map_and_raw_keys_agree():
    draw = lambda key: random.normals(key, (6, 5))
    alone = np.stack([draw(key) for key in KEYS[:4]])
    mapped = parallel.map_batch(lambda tree, keys, key: jax.vmap(draw)(keys), parallel.data_mesh(jax.devices()[:2]))
    raw = np.asarray(jax.random.key_data(KEYS[:4]))
    np.testing.assert_allclose(jax.vmap(draw)(KEYS[:4]), alone, rtol=1e-6)
    np.testing.assert_allclose(mapped((), raw, ()), alone, rtol=1e-6)
    other = np.asarray(draw(jax.random.key(5, impl="rbg")))
    assert np.isfinite(other).all() and (other != alone[0]).any()


def test_barrier_is_identity():
    for x in (jnp.array([[-1.5, jnp.nan], [2.0, 0.0]]), jnp.array([[7, -3], [0, 1]]), jnp.array([[1 << 31, 5], [0, 1]], jnp.uint32)):
        y, z = jax.jit(lambda x: reproducible.barrier(x, x + 1))(x)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(z, x + 1)
        np.testing.assert_array_equal(jax.vmap(reproducible.barrier)(x), x)


@pytest.mark.parametrize("name", ["shot_noise", "motion_blur"])
def test_batched_equals_one_by_one(name):
    images = jnp.round(jax.random.uniform(jax.random.key(8), (3, 16, 16, 3)) * 255) / 255
    alone = corruptions.corrupt(name, 3, images, KEYS[:3])
    together = jax.jit(jax.vmap(lambda image, key: corruptions.corrupt(name, 3, image[None], key[None])[0]))(images, KEYS[:3])
    np.testing.assert_allclose(together, alone, atol=1.01 / 255)
    assert (np.abs(together - alone) > 1e-6).mean() < 0.005


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_cpus_loop_over_images(platform):
    run = jax.jit(lambda x, keys: corruptions.corrupt("gaussian_blur", 3, x, keys))
    text = run.trace(jnp.zeros((4, 16, 16, 3)), KEYS[:4]).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == (platform == "cpu") != ("stablehlo.optimization_barrier" in text)
