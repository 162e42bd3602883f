"""Noise added to every value by itself: Gaussian, shot, impulse and speckle."""
import functools

import jax
import jax.numpy as jnp
import numpy as np


def gaussian_noise(image, normals, sigma):
    """image + sigma * normals; both (H, W, C), the normals standard."""
    return image + sigma * normals


def speckle_noise(image, normals, sigma):
    """image * (1 + sigma * normals)."""
    return image + image * (sigma * normals)


def draw_normals(key, image, sigma):
    """Standard normals of the image's shape."""
    del sigma
    return jax.random.normal(key, image.shape)


def shot_noise(image, photons, rate):
    """photons / rate: the photons (H, W, C) are Poisson with mean image * rate."""
    del image
    return photons / rate


def draw_photons(key, image, rate):
    """Poisson numbers with mean image * rate by inversion; an image on the uint8 grid has 256 means, whose distributions are a constant."""
    uniform = jax.random.uniform(key, image.shape)
    table = jnp.asarray(_poisson_table(rate))  # (256, 2 ** bits)
    width = table.shape[1]
    start = jnp.round(image * 255).astype(jnp.int32) * width
    table, found, step = table.reshape(-1), jnp.zeros(image.shape, jnp.int32), width // 2
    while step:
        found = jnp.where(table[start + found + step - 1] <= uniform, found + step, found)
        step //= 2
    return found.astype(jnp.float32)


@functools.lru_cache(maxsize=16)
def _poisson_table(rate):
    """P(photons <= k) of the 256 levels, k = 0 .. 2 ** bits - 1, to beyond eight deviations."""
    width = 1 << int(np.ceil(np.log2(rate + 8 * np.sqrt(rate) + 8)))
    mean, k = np.arange(256)[:, None] / 255 * rate, np.arange(width)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, width)))])
    mass = np.exp(k * np.log(np.maximum(mean, 1e-300)) - mean - log_factorial)
    mass[0] = k == 0
    return np.minimum(mass.cumsum(1), 1).astype(np.float32)


def impulse_noise(image, draws, amount):
    """Values where draws["flip"] becomes 1 or 0 as draws["salt"] says; both (H, W, C) bool."""
    del amount
    return jnp.where(draws["flip"], draws["salt"].astype(image.dtype), image)


def draw_impulses(key, image, amount):
    """A share `amount` of the values flips, half of them to white."""
    uniform = jax.random.uniform(key, image.shape)
    return {"flip": uniform < amount, "salt": uniform < amount / 2}
