"""Drops of patches in layouts of equal area, so that accuracies can be compared between layouts.

Each drops exactly `area` patches of `grid` x `grid`: along a scan, dispersed, in one block, around the center, at the border, or at random.
After Du, Li, Xu (arXiv 2403.10935), whose own layouts are unpublished.
"""
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.attacks import masks
from vmamba_jax.core import checks, grids, scan_orders
from vmamba_jax.core.records import record
from vmamba_jax.evaluation.disturbances.base import Occlusion


@record()
class GridDrop(Occlusion):
    """Some patches of a grid dropped. A subclass defines `chosen(images, keys, logits_fn, labels)` -> (b or 1, grid, grid) bool.

    Attributes:
        grid: patches per side.
        area: number of patches, an integer; or a fraction of them, a float in [0, 1], rounded down to int(area * grid^2) patches.
    """
    grid: int = 14
    area: float | int = 0.5

    def __post_init__(self):
        super().__post_init__()
        count_of(self.area, checks.count("grid", self.grid)**2)

    @property
    def count(self):
        return count_of(self.area, self.grid**2)

    def places(self, images, keys, logits_fn, labels):
        height, width = images.shape[1:3]
        chosen = jnp.asarray(self.chosen(images, keys, logits_fn, labels))
        return grids.pixel_mask(chosen, height, width), grids.patch_of_pixels(height, width, self.grid, self.grid)


@record()
class RandomDrop(GridDrop):
    """Patches drawn uniformly without replacement."""
    name, places_draw = "random_drop", True

    def chosen(self, images, keys, logits_fn, labels):
        place = jax.vmap(lambda key: jax.random.permutation(key, self.grid**2))(keys)
        return (place < self.count).reshape(-1, self.grid, self.grid)


@record()
class ContiguousDrop(GridDrop):
    """The first patches of a scan along `direction`, one of `scan_orders.DIRECTIONS`."""
    direction: str = "rows"

    name = "contiguous_drop"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("direction", self.direction, scan_orders.DIRECTIONS)

    def chosen(self, images, keys, logits_fn, labels):
        if not self.count:
            return np.zeros((1, self.grid, self.grid), bool)
        return masks.scan(self.grid, self.direction, self.count).chosen()[None]


@record()
class DispersedDrop(GridDrop):
    """Patches as far apart as their number allows, in the order of Bayer's dispersed dots (Bayer 1973).

    A quarter of an even grid is every second patch of every second row; half of it is a checkerboard.
    """
    name = "dispersed_drop"

    def chosen(self, images, keys, logits_fn, labels):
        return _first(bayer(self.grid), self.count)


@record()
class DenseDrop(GridDrop):
    """One solid block at a uniformly random position, as square as its area allows; its last row may be shorter."""
    name, places_draw = "dense_drop", True

    def chosen(self, images, keys, logits_fn, labels):
        width = min(math.isqrt(max(self.count - 1, 0)) + 1, self.grid)
        height = -(-self.count // width)
        i, j = np.arange(self.grid)[:, None], np.arange(self.grid)

        def block(key):
            top, left = jax.random.randint(key, (2,), 0, np.array([self.grid - height, self.grid - width]) + 1)
            down, across = i - top, j - left
            return (down >= 0) & (across >= 0) & (across < width) & (down * width + across < self.count)
        return jax.vmap(block)(keys)


@record()
class CenterDrop(GridDrop):
    """The patches nearest the center by Chebyshev distance; a ring that is dropped in part is dropped clockwise from its top left."""
    name = "center_drop"

    def chosen(self, images, keys, logits_fn, labels):
        return _first(outwards(self.grid), self.count)


@record()
class BorderDrop(GridDrop):
    """The patches farthest from the center: the complement of `center_drop` of the remaining area."""
    name = "border_drop"

    def chosen(self, images, keys, logits_fn, labels):
        return ~_first(outwards(self.grid), self.grid**2 - self.count)


@record()
class RingDrop(Occlusion):
    """Rings `first` to `last` (inclusive) of the grid, counted from the center, see `masks.Rings`; last None: the ring `first` only."""
    grid: int = 14
    first: int = 0
    last: int | None = None

    name = "ring_drop"

    def __post_init__(self):
        super().__post_init__()
        self._set(last=masks.rings(self.grid, self.first, self.last).last)

    def places(self, images, keys, logits_fn, labels):
        return masks.rings(self.grid, self.first, self.last)(images), grids.patch_of_pixels(*images.shape[1:3], self.grid, self.grid)


@record()
class WindowDrop(Occlusion):
    """A square window of `size` pixels with its corner at (`top`, `left`); None: centered. For the fill it is one patch."""
    size: int
    top: int | None = dataclasses.field(default=None, kw_only=True)
    left: int | None = dataclasses.field(default=None, kw_only=True)

    name = "window_drop"

    def __post_init__(self):
        super().__post_init__()
        checks.count("size", self.size)

    def places(self, images, keys, logits_fn, labels):
        height, width = images.shape[1:3]
        top, left = ((side - self.size) // 2 if at is None else at for side, at in ((height, self.top), (width, self.left)))
        if not (0 <= top <= height - self.size and 0 <= left <= width - self.size):
            raise ValueError(f"top={top}, left={left}, size={self.size} on images of {height} x {width}: expected a window inside them")
        return window((height, width), self.size, top, left), np.zeros((height, width), int)


def window(shape, size, top, left):
    """Mask (1, H, W, 1) of a square window; its corner may be traced."""
    down, across = jnp.arange(shape[0])[:, None] - top, jnp.arange(shape[1]) - left
    return ((down >= 0) & (down < size) & (across >= 0) & (across < size))[None, :, :, None]


def count_of(area, patches):
    """Number of patches of an `area` of `patches` patches: area itself if an integer, int(area * patches) if a float."""
    whole = isinstance(area, (int, np.integer)) and not isinstance(area, bool)
    if not whole and not isinstance(area, (float, np.floating)):
        raise TypeError(f"area={area!r}: expected an integer number of patches, or a fraction as a float")
    if not 0 <= area <= (patches if whole else 1):
        raise ValueError(f"area={area!r}: expected an integer in 0..{patches}, or a fraction in [0.0, 1.0]")
    return int(area) if whole else int(area * patches)


def bayer(grid):
    """Bayer's order of dispersed dots, (grid, grid) int: the top left part of the matrix of the next power of two."""
    order, side = np.zeros((1, 1), int), 1
    while side < grid:
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
        side *= 2
    return order[:grid, :grid]


def outwards(grid):
    """Rank of each patch from the center outwards, ring by ring, each ring clockwise from its top left: (grid, grid) int."""
    y, x = np.mgrid[:grid, :grid] - (grid - 1) / 2
    angle = (np.arctan2(y, x) + 3 * np.pi / 4 + 1e-9) % (2 * np.pi)
    return np.argsort(np.lexsort((angle.ravel(), np.maximum(abs(y), abs(x)).ravel()))).reshape(grid, grid)


def _first(order, count):
    """The `count` patches of lowest rank, (1, grid, grid) bool."""
    return (np.argsort(np.argsort(order.ravel(), kind="stable")) < count).reshape(1, *order.shape)
