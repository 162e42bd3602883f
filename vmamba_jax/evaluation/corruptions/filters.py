"""Linear filters along rows and columns as matrices, so that borders, zooms and resizes are products of constants with the image."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax


def separable(image, rows, cols=None):
    """`rows` (h, H) applied to the rows of image (H, W, ...), `cols` (w, W), by default the same, to its columns: (h, w, ...)."""
    cols = rows if cols is None else cols
    x = jnp.tensordot(jnp.asarray(rows), image, 1, precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(jnp.tensordot(jnp.asarray(cols), x, ((1,), (1,)), precision=lax.Precision.HIGHEST), 0, 1)


def fold(index, n, mode):
    """Where integer positions outside [0, n) read: "nearest" aaa|abc|ccc, "reflect" cba|abc|cba, "mirror" cb|abc|ba (OpenCV's 101)."""
    if mode == "nearest":
        return index.clip(0, n - 1)
    period = 2 * n if mode == "reflect" else max(2 * n - 2, 1)
    index = index % period
    xp = jnp if isinstance(index, jnp.ndarray) else np
    return xp.minimum(index, period - (mode == "reflect") - index)


@functools.lru_cache(maxsize=64)
def gaussian_matrix(n, sigma, truncate=4.0, mode="nearest"):
    """(n, n) float32: scipy's and skimage's Gaussian filter of n values; sigma in pixels, 0 leaves all as it is."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / max(sigma, 1e-9)) ** 2)
    matrix, places = np.zeros((n, n)), np.arange(n)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        matrix[places, fold(places + offset, n, mode)] += weight
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def zoom_matrix(n, factor):
    """(n, n) float32: the centre of n values enlarged `factor` >= 1 times by linear interpolation, as scipy's `zoom(order=1)`, and trimmed to n."""
    kept = int(np.ceil(n / factor))
    out = round(kept * factor)
    top, trim = (n - kept) // 2, (out - n) // 2
    at = (np.arange(n) + trim) * ((kept - 1) / (out - 1))
    low = np.minimum(np.floor(at).astype(int), kept - 2)
    matrix, places = np.zeros((n, n)), np.arange(n)
    matrix[places, top + low] = 1 - (at - low)
    matrix[places, top + low + 1] = at - low
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def box_matrix(n, m):
    """(m, n) float32: Pillow's BOX filter from n values to m, every weight that of a pixel whose centre the box holds."""
    scale = n / m
    support = 0.5 * max(scale, 1.0)
    matrix = np.zeros((m, n))
    for i in range(m):
        centre = (i + 0.5) * scale
        low, high = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n)
        places = (np.arange(low, high) + 0.5 - centre) / max(scale, 1.0)
        matrix[i, low:high] = (-0.5 < places) & (places <= 0.5)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
