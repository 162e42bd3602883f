"""A grid of cells over an image: which cell each pixel lies in, masks and sums of cells, random order within them.

Pixel (i, j) of H x W lies in cell (i * rows // H, j * columns // W), as in `attacks.masks`: cells of equal size where the grid divides the sides.
"""
import jax
import jax.numpy as jnp
import numpy as np


def check(name, value, height, width):
    """Raise a ValueError where a grid (rows, columns) has more cells a side than there are pixels."""
    if value[0] > height or value[1] > width:
        raise ValueError(f"{name}={value} on images of {height} x {width} pixels: expected no more cells a side than pixels")


def numbers(height, width, rows, columns):
    """The cell of each pixel, counted row by row: (H, W) int."""
    check("grid", (rows, columns), height, width)
    return (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width


def pixels(chosen, height, width):
    """A mask of cells (b, rows, columns) as one of pixels, (b, H, W, 1)."""
    rows, columns = chosen.shape[1:]
    check("grid", (rows, columns), height, width)
    return chosen[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width][..., None]


def sums(values, rows, columns):
    """Sums of a map (b, h, w) over the cells of a grid: (b, rows, columns)."""
    height, width = values.shape[1:]
    check("grid", (rows, columns), height, width)
    down, across = (np.arange(side) * n // side == np.arange(n)[:, None] for side, n in ((height, rows), (width, columns)))
    return jnp.einsum("rh,bhw,cw->brc", down.astype(np.float32), values, across.astype(np.float32), precision="highest")


def places(key, cell):
    """Each pixel's place in a random order of its own cell's pixels, from 0; `cell` is `numbers(...)`, the result (H, W)."""
    flat = cell.ravel()
    order = jnp.lexsort((jax.random.uniform(key, flat.shape), flat))     # cell after cell, each at random
    size = np.bincount(flat)
    within = np.arange(len(flat)) - np.repeat(np.cumsum(size) - size, size)
    return jnp.zeros(flat.shape, int).at[order].set(within).reshape(cell.shape)


def mixed(key, image, cell, mask):
    """`image` (H, W, C) with the pixels of `mask` (H, W) exchanged at random, each within its own cell."""
    flat, count = cell.ravel(), cell.size
    group = jnp.where(mask.ravel(), flat, count + np.arange(count))     # a pixel outside the mask is a group of its own
    there = jnp.argsort(group, stable=True)
    here = jnp.lexsort((jax.random.uniform(key, flat.shape), group))
    values = image.reshape(count, -1)
    return values.at[there].set(values[here]).reshape(image.shape)
