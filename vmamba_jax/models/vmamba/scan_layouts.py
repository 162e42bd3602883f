"""Scan patterns: the order in which each direction visits the map's positions, and the cheapest layout of the map for it.

A route lists, for every position l of a direction's sequence, the row-major flat index h * W + w that it visits. Two routes that are the reverse
of each other share one sequence (the scan runs in reverse). Row-major routes read the map in place, column-major routes its transpose.
"""
import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import scan_orders


class Direction(NamedTuple):
    """One direction of a layout: `index` of its parameters, and whether it reads the sequence in reverse."""
    index: int
    reverse: bool


@dataclasses.dataclass(frozen=True)
class Layout:
    """One order of the map's positions, and the directions that read it."""
    height: int
    width: int
    order: np.ndarray
    directions: tuple

    @property
    def _kind(self):
        positions = np.arange(len(self.order))
        if np.array_equal(self.order, positions):
            return "rows"
        if np.array_equal(self.order, positions.reshape(self.height, self.width).T.reshape(-1)):
            return "columns"
        return "gather"

    def sequence(self, x):
        """(batch, H, W, F) -> (batch, L, F) in this order."""
        kind = self._kind
        if kind == "columns":
            x = x.swapaxes(1, 2)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return jnp.take(x, self.order, axis=1) if kind == "gather" else x

    def map(self, x, reverse=False):
        """(batch, L, F) in this order -> (batch, H, W, F). `reverse` has no effect: a reversed scan returns its output in this order too."""
        del reverse
        kind = self._kind
        if kind == "columns":
            return x.reshape(x.shape[0], self.width, self.height, -1).swapaxes(1, 2)
        if kind == "gather":
            x = jnp.take(x, np.argsort(self.order), axis=1)
        return x.reshape(x.shape[0], self.height, self.width, -1)


def layouts(pattern, height, width):
    """Layouts of `scan_orders.routes(pattern, height, width)`, with each direction in exactly one of them."""
    if isinstance(pattern, (list, np.ndarray)):
        pattern = _hashable(pattern)
    return _layouts(pattern, height, width)


def _hashable(pattern):
    return tuple(_hashable(p) if np.ndim(p) else int(p) for p in pattern)


@functools.lru_cache(maxsize=64)
def _layouts(pattern, height, width):
    found = []
    for index, route in enumerate(scan_orders.routes(pattern, height, width)):
        for order, directions in found:
            if np.array_equal(order, route) or np.array_equal(order, route[::-1]):
                directions.append(Direction(index, reverse=not np.array_equal(order, route)))
                break
        else:
            found.append((route, [Direction(index, reverse=False)]))
    return tuple(Layout(height, width, order, tuple(directions)) for order, directions in found)


@dataclasses.dataclass(frozen=True)
class Lines:
    """Every row (or column) of the map as a sequence of its own; a reversed direction's output stays reversed, as in the original cascade."""
    height: int
    width: int
    columns: bool
    directions: tuple

    def sequence(self, x):
        """(batch, H, W, F) -> (batch * H, W, F), or (batch * W, H, F)."""
        x = x.swapaxes(1, 2) if self.columns else x
        return x.reshape(-1, *x.shape[2:])

    def map(self, x, reverse=False):
        """Inverse of `sequence`; a reversed direction's output keeps the order in which the original scan produces it."""
        x = x[:, ::-1] if reverse else x
        x = x.reshape(-1, self.height if not self.columns else self.width, *x.shape[1:])
        return x.swapaxes(1, 2) if self.columns else x


def cascade(height, width):
    """The two passes of the cascade: rows forward and in reverse (parameters 0 and 1), then columns (2 and 3)."""
    return (Lines(height, width, False, (Direction(0, False), Direction(1, True))),
            Lines(height, width, True, (Direction(2, False), Direction(3, True))))
