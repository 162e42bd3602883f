"""Grids of patches over an image: the patch of each pixel, masks and sums of patches, random orders within them.

A grid has (rows, columns) patches, numbered row by row from 0 at the top left. Pixel (i, j) of an image of H x W pixels lies in the patch
of row i * rows // H and column j * columns // W; the patches have equal sizes if the grid divides both sides.
"""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks


def sides(name, value):
    """A grid as (rows, columns), from one integer or a pair, each >= 1; `name` is the argument's name in the error."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}={value!r}: expected the number of patches per side, or (rows, columns)")
    return tuple(checks.count(name, side) for side in pair)


def of_patch_size(shape, size):
    """(rows, columns) of patches of `size` pixels per side in images of `shape` (b, H, W, C); ValueError unless they tile the image."""
    height, width = shape[1:3]
    if height % size or width % size:
        raise ValueError(f"patch_size={size} on images of {height} x {width}: expected a size that divides both sides")
    return height // size, width // size


def patch_of_pixels(height, width, rows, columns):
    """The number of each pixel's patch: (H, W) int."""
    down, across = _lines(height, width, rows, columns)
    return down[:, None] * columns + across


def pixel_mask(chosen, height, width):
    """A mask of patches (b, rows, columns) as a mask of pixels, (b, H, W, 1)."""
    down, across = _lines(height, width, *chosen.shape[1:])
    return chosen[:, down][:, :, across][..., None]


def chosen_patches(index, rows, columns):
    """A mask of the patches numbered `index` (b, k): (b, rows, columns) bool."""
    return (index[:, :, None] == jnp.arange(rows * columns)).any(1).reshape(-1, rows, columns)


def patch_sums(values, rows, columns):
    """Sums of a map (b, h, w) over the patches of a grid: (b, rows, columns)."""
    lines = _lines(*values.shape[1:], rows, columns)
    down, across = (line == np.arange(n)[:, None] for line, n in zip(lines, (rows, columns), strict=True))
    return jnp.einsum("rh,bhw,cw->brc", down.astype(np.float32), values, across.astype(np.float32), precision="highest")


def random_ranks(key, patch):
    """Each pixel's rank, from 0, in a random order of its own patch's pixels: (H, W) int. `patch`: of `patch_of_pixels`."""
    flat = patch.ravel()
    order = jnp.lexsort((jax.random.uniform(key, flat.shape), flat))     # patch after patch, the pixels of each in random order
    size = np.bincount(flat)
    within = np.arange(len(flat)) - np.repeat(np.cumsum(size) - size, size)
    return jnp.zeros(flat.shape, int).at[order].set(within).reshape(patch.shape)


def shuffled_within(key, image, patch, mask):
    """`image` (H, W, C) with the pixels of `mask` (H, W) randomly permuted, each within its own patch. `patch`: of `patch_of_pixels`."""
    flat, count = patch.ravel(), patch.size
    group = jnp.where(mask.ravel(), flat, count + np.arange(count))     # a pixel outside the mask is a group of its own
    there = jnp.argsort(group, stable=True)
    here = jnp.lexsort((jax.random.uniform(key, flat.shape), group))
    values = image.reshape(count, -1)
    return values.at[there].set(values[here]).reshape(image.shape)


def _lines(height, width, rows, columns):
    """Row of patches of each pixel row (H,), column of patches of each pixel column (W,)."""
    if rows > height or columns > width:
        grid = rows if rows == columns else (rows, columns)
        raise ValueError(f"grid={grid} on images of {height} x {width} pixels: expected at most one patch per pixel along each side")
    return np.arange(height) * rows // height, np.arange(width) * columns // width
