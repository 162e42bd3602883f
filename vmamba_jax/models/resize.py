"""Bicubic resizing with PyTorch's kernel (a = -0.75, align_corners False, no antialiasing), which `jax.image.resize` does not have."""
import functools

import jax.numpy as jnp
import numpy as np


@functools.lru_cache(maxsize=32)
def bicubic_matrix(source, target):
    """(target, source) weights of one axis; borders replicate."""
    positions = (np.arange(target) + 0.5) * source / target - 0.5
    base = np.floor(positions).astype(int)
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        d, a = np.abs(positions - (base + tap)), -0.75
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = a * (((d - 5) * d + 8) * d - 4)
        np.add.at(weights, (np.arange(target), np.clip(base + tap, 0, source - 1)), np.where(d <= 1, near, np.where(d < 2, far, 0)))
    return weights


def resize_grid(x, height, width):
    """Resize a (1, H, W, C) embedding to (1, height, width, C); unchanged where the size already fits."""
    if x.shape[1:3] == (height, width):
        return x
    rows, columns = bicubic_matrix(x.shape[1], height), bicubic_matrix(x.shape[2], width)
    return jnp.einsum("hH,wW,bHWc->bhwc", jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype), x)
