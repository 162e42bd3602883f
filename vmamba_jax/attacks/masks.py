"""Masks of the pixels an attack may change: arrays, functions of the images, or named parts of a patch grid (see `core.grids`).

A mask called with images (b, H, W, C) returns booleans (b, H, W, 1), or (1, H, W, 1) if all images share it.
"""
import numbers

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks, deprecation, grids, records, scan_orders


class Grid:
    """Base class of masks of whole patches; a subclass has `chosen()` -> bool (grid, grid), the patches that may change."""
    def __call__(self, images):
        return jnp.asarray(grids.pixel_mask(self.chosen()[None], *images.shape[1:3]))

    @property
    def settings(self):
        return [self.name, *(list(value) if isinstance(value, tuple) else value for value in vars(self).values())]

    def __repr__(self):
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@records.record()
class Patches(Grid):
    """Patches of the grid by number, row by row from 0 at the top left.

    Args:
        grid: patches per side.
        numbers: of the patches, in 0..grid^2 - 1.
    """
    grid: int
    numbers: tuple

    name = "patches"

    def __post_init__(self):
        count = checks.count("grid", self.grid)**2
        numbers_ = tuple(int(i) for i in np.ravel(self.numbers))
        if any(not 0 <= i < count for i in numbers_):
            raise ValueError(f"numbers={numbers_}: expected patches in 0..{count - 1}")
        object.__setattr__(self, "numbers", numbers_)

    def chosen(self):
        return np.isin(np.arange(self.grid**2), self.numbers).reshape(self.grid, self.grid)


@records.record()
class Rings(Grid):
    """Rings `first` to `last` of the grid, by Chebyshev distance from the center.

    Args:
        grid: patches per side.
        first, last: rings, both included; last=None: only `first`. Ring 0 is the center patch of an odd grid and the four center patches of
            an even one; ring (grid - 1) // 2 is the border.
    """
    grid: int
    first: int
    last: int | None = None

    name = "rings"

    def __post_init__(self):
        border = (checks.count("grid", self.grid) - 1) // 2
        last = self.first if self.last is None else self.last
        if not all(isinstance(ring, numbers.Integral) for ring in (self.first, last)) or not 0 <= self.first <= last <= border:
            raise ValueError(f"first={self.first!r}, last={self.last!r}: expected 0 <= first <= last <= {border}, the border of "
                             f"grid={self.grid}")
        object.__setattr__(self, "last", last)

    def chosen(self):
        distance = np.abs(np.arange(self.grid) - (self.grid - 1) / 2)
        ring = np.floor(np.maximum(distance[:, None], distance))
        return (ring >= self.first) & (ring <= self.last)


@records.record()
class Scan(Grid):
    """The first `count` patches that a scan visits.

    Args:
        grid: patches per side.
        direction: one of `core.scan_orders.DIRECTIONS`.
        count: number of patches in 1..grid^2.
    """
    grid: int
    direction: str
    count: int

    name = "scan"

    def __post_init__(self):
        patches = checks.count("grid", self.grid)**2
        checks.choice("direction", self.direction, scan_orders.DIRECTIONS)
        if checks.count("count", self.count) > patches:
            raise ValueError(f"count={self.count}: expected at most {patches}, the patches of grid={self.grid}")

    def chosen(self):
        return (scan_orders.ranks(self.direction, self.grid, self.grid) < self.count).reshape(self.grid, self.grid)


@records.record("values")
class ArrayMask:
    """A mask from an array, nonzero at pixels that may change: (H, W), (H, W, 1), or one per image, (b, H, W, 1)."""
    values: jax.Array

    def __call__(self, images):
        values = self.values[..., None] if self.values.ndim == 2 else self.values
        values = values[None] if values.ndim == 3 else values
        _check(values, images, f"mask.shape={self.values.shape}")
        return values != 0

    @property
    def settings(self):
        return f"array{tuple(self.values.shape)}"


@records.record("fn")
class FunctionMask:
    """A mask from a function of the images (b, H, W, C) -> (b or 1, H, W, 1), nonzero at pixels that may change."""
    fn: jax.tree_util.Partial

    def __call__(self, images):
        values = self.fn(images)
        _check(values, images, f"mask returned shape {getattr(values, 'shape', type(values).__name__)}")
        return values != 0

    @property
    def settings(self):
        return getattr(self.fn.func, "__name__", repr(self.fn.func))


MASKS = {mask.name: mask for mask in (Patches, Rings, Scan)}


def get(mask):
    """A mask from an array, a function of the images, or a name with its arguments, such as ("rings", 14, 0, 2)."""
    if isinstance(mask, (Grid, ArrayMask, FunctionMask)):
        return mask
    if isinstance(mask, (tuple, list)) and mask and isinstance(mask[0], str):
        name, *arguments = mask
        return checks.by_name("mask", name, MASKS)(*(tuple(value) if isinstance(value, list) else value for value in arguments))
    if callable(mask):
        return FunctionMask(mask if isinstance(mask, jax.tree_util.Partial) else jax.tree_util.Partial(mask))
    if getattr(mask, "ndim", 0) in (2, 3, 4):
        return ArrayMask(mask)
    raise TypeError(f"mask={mask!r}: expected an array (H, W, 1) or (b, H, W, 1), a function of the images, or a name with its arguments")


patches, rings, scan = Patches, Rings, Scan

__getattr__ = deprecation.renamed(__name__, {
    "DIRECTIONS": "vmamba_jax.core.scan_orders:DIRECTIONS", "Given": "vmamba_jax.attacks.masks:ArrayMask",
    "Made": "vmamba_jax.attacks.masks:FunctionMask"})


def _check(values, images, what):
    shape = (*images.shape[:3], 1)
    if getattr(values, "shape", None) not in (shape, (1, *shape[1:])):
        raise ValueError(f"{what}: expected (H, W, 1) = {shape[1:]}, or one per image, {shape}")
