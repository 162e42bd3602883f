"""Patches of an image in another order: random, or that of another scan."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.core import grids, scan_orders
from vmamba_jax.core.records import record
from vmamba_jax.evaluation.disturbances.base import Disturbance

GRIDS = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (14, 14), (16, 16))


@record()
class PatchShuffle(Disturbance):
    """Patches in random order. `grid`: patches per side, or (rows, columns); `GRIDS` are those of Malik et al. (arXiv 2406.09407)."""
    grid: int | tuple = 4

    name, draws = "patch_shuffle", True

    def __post_init__(self):
        super().__post_init__()
        self._set(grid=grids.sides("grid", self.grid))

    def run(self, images, keys, logits_fn, labels):
        order = jax.vmap(lambda key: jax.random.permutation(key, self.grid[0] * self.grid[1]))(keys)
        return rearranged(images, self.grid, order)


@record()
class PatchReorder(Disturbance):
    """Patches rearranged row by row into `order` (see `scan_orders.Order`): a model that scans rows reads them in that order."""
    grid: int | tuple = 14
    _: dataclasses.KW_ONLY
    order: object = "reversed"

    name = "patch_reorder"

    def __post_init__(self):
        super().__post_init__()
        self._set(grid=grids.sides("grid", self.grid), order=scan_orders.get(self.order))

    def run(self, images, keys, logits_fn, labels):
        return rearranged(images, self.grid, jnp.asarray(self.order(*self.grid))[None])


def rearranged(images, grid, order):
    """Images whose l-th patch, row by row, is patch order[l] of the input; order: (b or 1, rows * columns); the grid divides the sides."""
    b, height, width, channels = images.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(f"grid={tuple(grid)} on images of {height} x {width} pixels: expected a grid that divides both sides")
    patches = images.reshape(b, rows, height // rows, columns, width // columns, channels).swapaxes(2, 3)
    flat = patches.reshape(b, rows * columns, -1)
    index = jnp.broadcast_to(order, flat.shape[:2])
    moved = jnp.take_along_axis(flat, index[..., None], 1)
    return moved.reshape(patches.shape).swapaxes(2, 3).reshape(images.shape)
