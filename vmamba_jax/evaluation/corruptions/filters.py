"""Linear filters along rows and columns: sums of shifted arrays, or constant matrices if a filter is as long as the image; linear zoom."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions.reproducible import barrier

PADDING = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}  # border modes of `fold` as modes of `jnp.pad`
TOGETHER = 9  # arrays added in one pass; more overflow a CPU's registers and first-level cache


def gaussian(image, sigma, truncate=4.0, mode="nearest"):
    """Gaussian filter of scipy and skimage for image (H, W, ...); sigma in pixels, 0 changes nothing; borders as in `fold`."""
    weights, sides = gaussian_weights(sigma, truncate), image.shape[:2]
    if len(weights) >= min(sides):
        return separable(image, *(filter_matrix(n, sigma, truncate, mode) for n in sides))
    return banded(image, weights, mode)


def banded(image, weights, mode="nearest"):
    """Image (H, W, ...) filtered along its columns, then its rows, by an odd number of weights, fewer than pixels."""
    height, width = image.shape[:2]
    reach, depth = len(weights) // 2, int(np.prod(image.shape[2:]))
    x = image.reshape(height, -1)
    for axis, (n, step) in enumerate(((height, 1), (width, depth))):
        if axis:
            x = barrier(x)
        pixels = x.reshape(height, width, depth)
        padded = jnp.pad(pixels, [(reach, reach) if i == axis else (0, 0) for i in range(3)], mode=PADDING[mode])
        padded = barrier(padded.reshape(len(padded), -1))
        x = weighted([lax.slice_in_dim(padded, i * step, (i + n) * step, axis=axis) for i in range(len(weights))], weights)
    return x.reshape(image.shape)


def weighted(arrays, weights):
    """Weighted sum of arrays, `TOGETHER` of them in one pass."""
    total = 0
    for first in range(0, len(weights), TOGETHER):
        some = slice(first, first + TOGETHER)
        total = total + functools.reduce(jnp.add, (weight * x for x, weight in zip(arrays[some], weights[some], strict=True)))
        if first + TOGETHER < len(weights):
            total = barrier(total)
    return total


def separable(image, rows, cols=None):
    """rows (h, H) @ image (H, W, ...) @ cols (w, W) transposed: (h, w, ...); cols None: the same as rows."""
    cols = rows if cols is None else cols
    x = jnp.tensordot(jnp.asarray(rows), image, 1, precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(jnp.tensordot(jnp.asarray(cols), x, ((1,), (1,)), precision=lax.Precision.HIGHEST), 0, 1)


def fold(index, n, mode):
    """Integer positions folded into [0, n): "nearest" aaa|abc|ccc, "reflect" cba|abc|cba, "mirror" cb|abc|ba (OpenCV's 101)."""
    if mode == "nearest":
        return index.clip(0, n - 1)
    period = 2 * n if mode == "reflect" else max(2 * n - 2, 1)
    index = index % period
    return np.minimum(index, period - (mode == "reflect") - index)


@functools.lru_cache(maxsize=64)
def gaussian_weights(sigma, truncate):
    """(2 radius + 1,) float32 of sum 1."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    return np.float32(weights / weights.sum())


@functools.lru_cache(maxsize=64)
def filter_matrix(n, sigma, truncate, mode):
    """(n, n) float32: the Gaussian filter of n values as a matrix."""
    weights, places, matrix = gaussian_weights(sigma, truncate), np.arange(n), np.zeros((n, n))
    for i, weight in enumerate(weights):
        matrix[places, fold(places + i - len(weights) // 2, n, mode)] += weight
    return matrix.astype(np.float32)


def zoomed(image, factor):
    """The center of image (H, W, ...) enlarged `factor` >= 1 times as by scipy's `zoom(order=1)`, cropped to the size of the image."""
    for axis in (0, 1):
        n = image.shape[axis]
        kept = int(np.ceil(n / factor))
        out = round(kept * factor)
        at = (np.arange(n) + (out - n) // 2) * ((kept - 1) / (out - 1))
        low = np.minimum(at.astype(int), kept - 2)
        part = np.float32(at - low).reshape(-1, *(1,) * (image.ndim - 1 - axis))
        low = low + (n - kept) // 2
        near, far = jnp.take(image, low, axis), jnp.take(image, low + 1, axis)
        image = barrier(near * (1 - part) + far * part)
    return image


@functools.lru_cache(maxsize=64)
def box_taps(n, m):
    """Pillow's BOX filter from n values to m: positions and float32 weights, (taps, m). A value counts if its center is inside the box."""
    scale = n / m
    support = 0.5 * max(scale, 1.0)
    found = []
    for i in range(m):
        center = (i + 0.5) * scale
        near = np.arange(max(int(center - support + 0.5), 0), min(int(center + support + 0.5), n))
        offsets = (near + 0.5 - center) / max(scale, 1.0)
        found.append(near[(-0.5 < offsets) & (offsets <= 0.5)])
    counts = np.array([len(near) for near in found])
    places = np.stack([np.resize(near, counts.max()) for near in found], 1)
    return places, np.float32((np.arange(counts.max())[:, None] < counts) / counts)
