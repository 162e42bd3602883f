"""Proposals of Square: new images from given random numbers.

Random numbers are arguments: `corner` and `other` (batch, 2) int are the upper left corners of two windows, `signs` (batch, channels) are
+-1, `flip` (batch,) bool transposes the window's pattern.

Source: Andriushchenko et al. 2020, algorithms 2 and 3; in l1 the reference AutoAttack.
"""
import math

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.attacks import norms
from vmamba_jax.attacks.norms import per_image

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


def sides(queries, shape, norm, p_init, rescale):
    """The side of the window at each query, (queries,) int: a square of the fraction p of the image's pixels, odd and >= 3 in l2 and l1.

    p begins at `p_init` and halves after the queries `HALVINGS`, or with `rescale` after the same fractions of all queries.
    """
    def side(i):
        if rescale:
            i = int(i / queries * 10_000)
        p = p_init / 2 ** sum(i > step for step in HALVINGS)
        s = round(math.sqrt(p * shape[0] * shape[1]))
        s = max(s, 1) if norm == "linf" else max(s, 3) // 2 * 2 + 1
        return min(s, *shape)
    return np.array([side(i) for i in range(queries)], np.int32)


def window(corner, side, shape):
    """The mask (batch, H, W, 1) of the windows of `side` pixels at `corner`."""
    rows, columns = (jnp.arange(n) - corner[:, axis, None] for axis, n in enumerate(shape))
    rows, columns = ((0 <= x) & (x < side) for x in (rows, columns))
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def stripes(images, eps, signs):
    """The start in linf: vertical stripes of +-eps; `signs` (batch, W, channels)."""
    return images + eps * signs[:, None]


def square(threat, images, best, side, corner, signs):
    """linf: the window of the best image changes by +-2 eps, per channel."""
    change = 2 * jnp.asarray(threat.eps, images.dtype) * signs[:, None, None]
    return threat.project(images, best + jnp.where(window(corner, side, images.shape[1:3]), change, 0))


def bump(side, norm):
    """The pattern of a window (side, side), of norm 1: a positive bump above a negative one, each decreasing from its center."""
    def half(rows):
        x, top, left, power = np.zeros((rows, side)), rows // 2, side // 2, {"l2": 2, "l1": 4}[norm]
        for distance in range(max(rows // 2, side // 2) + 1):
            x[max(top - distance, 0):top + distance + 1, max(left - distance, 0):left + distance + 1] += 1 / (distance + 1) ** power
        return x / size(x)

    def size(x):
        return max(np.sqrt((x ** 2).sum()) if norm == "l2" else np.abs(x).sum(), np.finfo(float).tiny)
    x = np.concatenate([half(side // 2), -half(side - side // 2)])
    return x / size(x)


def bumps(queries_sides, shape, norm):
    """(index of each query's pattern (queries,), the patterns (sizes, largest, largest), padded with zeros)."""
    sizes, index = np.unique(queries_sides, return_inverse=True)
    table = np.zeros((len(sizes), *(sizes.max(),) * 2))
    for row, side in zip(table, sizes, strict=True):
        row[:side, :side] = bump(side, norm)
    return index.astype(np.int32), table


def tiling(shape):
    """(side of a tile, margin before the first, rows and columns of tiles): about five by five."""
    side = max(min(shape) // 5, 1)
    return side, max((min(shape) - 5 * side) // 2, 0), [n // side for n in shape]


def tiles(threat, images, signs, flips):
    """The start in l2 and l1: bumps side by side; `signs` (batch, rows, columns, channels), `flips` (batch, rows, columns)."""
    side, margin, counts = tiling(images.shape[1:3])
    pattern = jnp.asarray(bump(side, threat.norm), images.dtype)
    pixel = [np.arange(n) - margin for n in images.shape[1:3]]
    tile = [np.clip(x // side, 0, count - 1) for x, count in zip(pixel, counts, strict=True)]
    inside = [(x >= 0) & (x < count * side) for x, count in zip(pixel, counts, strict=True)]
    i, j = np.ix_(*(x % side for x in pixel))
    row, column = np.ix_(*tile)
    values = jnp.where(flips[:, row, column], pattern[j, i], pattern[i, j]) * np.outer(*inside)
    return into_ball(threat, images, values[..., None] * signs[:, row, column])


def into_ball(threat, images, delta):
    """images + delta of length eps, clipped, in l2; the nearest such point of ball and box in l1."""
    eps = jnp.asarray(threat.eps, images.dtype)
    if threat.norm == "l1":
        return images + norms.l1_in_box(images, delta, eps * (1 - 1e-6), threat.lower, threat.upper)
    return jnp.clip(images + delta / (per_image(norms.length(delta, "l2"), delta) + 1e-12) * eps, threat.lower, threat.upper)


def shift(threat, images, best, side, pattern, corner, other, signs, flip):
    """l2 and l1: the window at `other` is cleared, and its mass moves to the window at `corner`, whose perturbation moves towards a bump.

    `pattern` (largest, largest) is the bump of this `side`, padded with zeros.
    """
    h, w, c = images.shape[1:]
    eps, delta = jnp.asarray(threat.eps, images.dtype), best - images
    here, there = window(corner, side, (h, w)), window(other, side, (h, w))

    def size(x):  # per image and channel
        return jnp.sqrt((x * x).sum((1, 2), keepdims=True)) if threat.norm == "l2" else jnp.abs(x).sum((1, 2), keepdims=True)

    def place(corner, flip):
        rows, columns = (jnp.clip(jnp.arange(n) - at, 0, len(pattern) - 1) for n, at in ((h, corner[0]), (w, corner[1])))
        return jnp.where(flip, pattern[columns[None], rows[:, None]], pattern[rows[:, None], columns[None]])
    placed = jnp.where(here, jax.vmap(place)(corner, flip)[..., None], 0)
    content = jnp.where(here, delta, 0)
    mass = size(jnp.where(here | there, delta, 0))
    moved = placed * signs[:, None, None] + content / (1e-12 + size(content))
    total = per_image(norms.length(delta, threat.norm), delta)
    if threat.norm == "l2":
        scale = jnp.sqrt(jnp.maximum(eps ** 2 - total ** 2, 0) / c + mass ** 2)
    else:
        scale = (jnp.maximum(eps - total, 0) / c + mass) * c
    delta = jnp.where(here, moved / (1e-12 + size(moved)) * scale, jnp.where(there, 0, delta))
    return into_ball(threat, images, delta)
