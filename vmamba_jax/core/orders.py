"""Orders of visiting a map that are not the one a model was trained with."""
import dataclasses

import numpy as np

from vmamba_jax.core import checks

KINDS = ("rows", "reversed", "columns", "snake", "blocks", "random")


@dataclasses.dataclass(frozen=True)
class Order:
    """`order(height, width)` -> (L,) ints, the row-major positions of a map in the order of visit: a hashable function, as `scan_pattern` is.

    Attributes:
        kind: "rows" (row by row), "reversed" (that backwards), "columns" (column by column), "snake" (every second row backwards), "blocks"
            (squares of `block` positions a side one after the other, row by row inside and among them; those at the far edges may be cut)
            or "random" (one permutation for every size of map, of `seed`).
    """
    kind: str
    block: int = 2
    seed: int = 0

    def __post_init__(self):
        checks.choice("kind", self.kind, KINDS)
        checks.count("block", self.block)

    def __call__(self, height, width):
        positions = np.arange(height * width)
        y, x = np.divmod(positions, width)
        match self.kind:
            case "reversed":
                return positions[::-1]
            case "columns":
                return np.lexsort((y, x))
            case "snake":
                return np.lexsort((np.where(y % 2, -x, x), y))
            case "blocks":
                return np.lexsort((x, y, x // self.block, y // self.block))
            case "random":
                return np.random.Generator(np.random.PCG64([self.seed, height, width])).permutation(height * width)
        return positions

    @property
    def settings(self):
        extra = {"blocks": {"block": self.block}, "random": {"seed": self.seed}}
        return {"kind": self.kind} | extra.get(self.kind, {})


def get(order):
    """An `Order`, by itself, by its kind, or as a dict of its fields."""
    if isinstance(order, Order):
        return order
    if isinstance(order, dict):
        return Order(**order)
    return Order(order)
