"""Bicubic resizing with PyTorch's kernels, align_corners False: a = -0.75 as it is, a = -0.5 with antialiasing (Pillow's own)."""
import functools

import jax.numpy as jnp
import numpy as np


def _cubic(d, a):
    """The cubic convolution kernel (Keys 1981) at distances d."""
    d = np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


@functools.lru_cache(maxsize=32)
def bicubic_matrix(source, target, antialias=False):
    """(target, source) weights of one axis. Borders replicate; with antialias the kernel widens when shrinking, and is cut at the borders."""
    positions = (np.arange(target) + 0.5) * source / target - 0.5
    if antialias:
        weights = _cubic((np.arange(source) - positions[:, None]) / max(source / target, 1), -0.5)
        return weights / weights.sum(1, keepdims=True)
    base = np.floor(positions).astype(int)
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        np.add.at(weights, (np.arange(target), np.clip(base + tap, 0, source - 1)), _cubic(positions - (base + tap), -0.75))
    return weights


def resize_grid(x, height, width, antialias=False):
    """Resize a (1, H, W, C) embedding to (1, height, width, C); unchanged where the size already fits."""
    if x.shape[1:3] == (height, width):
        return x
    rows, columns = bicubic_matrix(x.shape[1], height, antialias), bicubic_matrix(x.shape[2], width, antialias)
    return jnp.einsum("hH,wW,bHWc->bhwc", jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype), x)
