"""Noise on every value independently: Gaussian, shot, impulse and speckle."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.reproducible import barrier


def gaussian_noise(image, normals, sigma):
    """image + sigma * normals; normals: (H, W, C) standard normals."""
    return image + sigma * normals


def speckle_noise(image, normals, sigma):
    """image * (1 + sigma * normals)."""
    return image + image * (sigma * normals)


def draw_normals(key, image, sigma):
    """Standard normals of the shape of the image."""
    del sigma
    return threefry.normals(key, image.shape)


def shot_noise(image, photons, rate):
    """photons / rate; photons: (H, W, C), Poisson with mean image * rate."""
    del image
    return photons / rate


def draw_photons(key, image, rate):
    """Poisson numbers with mean image * rate. An image of gray levels has 256 means, whose distributions are constant tables."""
    cells, width = _alias_table(rate)
    bits = width.bit_length() - 1
    cell, coin = threefry.words(key, image.shape)
    level = jnp.round(image * 255).astype(jnp.int32)
    place, coin = barrier(level << bits | (cell >> (32 - bits)).astype(jnp.int32), coin)
    found = jnp.asarray(cells).at[place].get(mode="promise_in_bounds")
    photons = jnp.where(coin >> bits < found >> bits, place, lax.bitcast_convert_type(found, jnp.int32)) & (width - 1)
    return photons.astype(jnp.float32)


@functools.lru_cache(maxsize=16)
def _alias_table(rate):
    """Walker's alias method (1977) for the 256 levels: cells (256 * width,) uint32 and the power of two `width`.

    A count k is drawn uniformly below `width` and accepted with the probability in the high bits of cell k, in units of `width` 2 ** -32;
    if it is rejected, the result is the alias in the low bits of the cell. Built as in Vose (1991), for all levels at once.
    """
    width = 1 << int(np.ceil(np.log2(rate + 8 * np.sqrt(rate) + 8)))
    left, rows = _poisson(rate, width) * width, np.arange(256)
    accept, alias = np.ones((256, width)), np.tile(np.arange(width), (256, 1))
    open_ = np.ones((256, width), bool)
    for _ in range(width - 1):
        least, most = np.where(open_, left, np.inf).argmin(1), np.where(open_, left, -np.inf).argmax(1)
        accept[rows, least], alias[rows, least], open_[rows, least] = left[rows, least], most, False
        left[rows, most] -= 1 - left[rows, least]
    top = (1 << 32) // width
    return (np.minimum(np.round(accept * top), top - 1).astype(np.uint32) * width + alias.astype(np.uint32)).ravel(), width


def _poisson(rate, width):
    """P(photons = k) for the mean of each level, (256, width)."""
    mean, k = np.arange(256)[:, None] / 255 * rate, np.arange(width)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, width)))])
    mass = np.exp(k * np.log(np.maximum(mean, 1e-300)) - mean - log_factorial)
    mass[0] = k == 0
    return mass / mass.sum(1, keepdims=True)


def impulse_noise(image, draws, amount):
    """1 where draws["flip"] and draws["salt"], 0 where draws["flip"] alone; both (H, W, C) bool."""
    del amount
    return jnp.where(draws["flip"], draws["salt"].astype(image.dtype), image)


def draw_impulses(key, image, amount):
    """A fraction `amount` of the values flips, half of them to white."""
    flip, salt = threefry.words(key, image.shape)
    return {"flip": flip < np.uint32(amount * 2**32), "salt": salt >> 31 > 0}
