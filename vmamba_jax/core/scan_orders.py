"""Orders in which a scan visits the positions of a map.

An order lists, for every position l of the sequence, the row-major flat index h * W + w that it visits: (L,) int with L = H * W.
"""
import dataclasses

import numpy as np

from vmamba_jax.core import checks

DIRECTIONS = ("rows", "columns", "rows_back", "columns_back")  # of the cross scan, in the order of its parameter sets
ROUTES = ("cross", "unidi", "bidi", "snake", "random")
PATTERNS = (*ROUTES, "cascade")  # cascade scans every row, then every column, as a sequence of its own: it has no routes
KINDS = ("rows", "reversed", "columns", "snake", "blocks", "random")


def along(direction, height, width):
    """The order of one of `DIRECTIONS`: row by row or column by column, forward or backward. (L,) int."""
    positions = np.arange(height * width)
    if direction.startswith("columns"):
        positions = positions.reshape(height, width).T.reshape(-1)
    return positions[::-1] if direction.endswith("back") else positions


def ranks(direction, height, width):
    """The step at which the scan along `direction` visits each row-major position: (L,) int, the inverse of `along`."""
    return np.argsort(along(direction, height, width))


def routes(pattern, height, width):
    """The four orders of a scan pattern.

    Args:
        pattern: "cross" (the four `DIRECTIONS`), "unidi" (row-major four times), "bidi" (row-major twice, reversed twice), "snake" (cross with every
            second row or column backward, so that successive positions are neighbors), "random" (two permutations and their reverses, the same for
            every model); one order (L,): the map is relabeled by it and scanned crosswise; four orders (4, L); or a function (height, width) -> any
            of these.
        height, width: of the map.

    Returns:
        int array (4, L).

    Raises:
        ValueError: an unknown name, a wrong shape, or an order that is not a permutation of the positions.
    """
    if callable(pattern):
        pattern = pattern(height, width)
    n = len(DIRECTIONS)
    cross = np.stack([along(direction, height, width) for direction in DIRECTIONS])
    if isinstance(pattern, str):
        if pattern not in ROUTES:
            raise ValueError(f"scan_pattern={pattern!r}: expected one of {', '.join(map(repr, PATTERNS))}, a permutation, or a function of "
                             "(height, width)")
        match pattern:
            case "snake":
                rows, columns = Order("snake")(height, width), _columns(Order("snake")(width, height), height, width)
                return np.stack([rows, columns, rows[::-1], columns[::-1]])
            case "random":
                return Order("random")(height, width)[cross]
        return {"cross": cross, "unidi": cross[[0, 0, 0, 0]], "bidi": cross[[0, 0, 2, 2]]}[pattern]
    orders = np.asarray(pattern)
    length = height * width
    if orders.shape not in ((length,), (n, length)):
        raise ValueError(f"scan_pattern.shape={orders.shape}: expected ({length},) or ({n}, {length}) for a map of {height} x {width}")
    return _permutations(orders[cross] if orders.ndim == 1 else orders, height, width)


def _columns(order, height, width):
    """An order of the transposed map, of width x height, as one of the map."""
    x, y = np.divmod(order, height)
    return y * width + x


def order(pattern, height, width):
    """One order (L,) of a map, from "rows", a permutation of its positions, or a function (height, width) -> permutation."""
    if isinstance(pattern, str):
        if pattern != "rows":
            raise ValueError(f"scan_pattern={pattern!r}: expected 'rows', a permutation, or a function of (height, width)")
        return along("rows", height, width)
    found = np.asarray(pattern(height, width) if callable(pattern) else pattern)
    if found.shape != (height * width,):
        raise ValueError(f"scan_pattern.shape={found.shape}: expected ({height * width},) for a map of {height} x {width}")
    return _permutations(found, height, width)


@dataclasses.dataclass(frozen=True)
class Order:
    """A hashable function `order(height, width)` -> (L,) int, valid as a model's `scan_pattern`.

    Attributes:
        kind: "rows" (row by row), "reversed" (rows backward), "columns" (column by column), "snake" (every second row backward), "blocks"
            (squares of `block` positions per side, row by row within and among them; those at the far edges may be cut) or "random" (one
            permutation for every map size, from `seed`).
        block: side of the squares of "blocks", in positions.
        seed: of "random".
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
                return along("rows_back", height, width)
            case "columns":
                return along("columns", height, width)
            case "snake":
                return np.lexsort((np.where(y % 2, -x, x), y))
            case "blocks":
                return np.lexsort((x, y, x // self.block, y // self.block))
            case "random":
                return np.random.Generator(np.random.PCG64([self.seed, height, width])).permutation(height * width)
        return positions

    @property
    def settings(self):
        """The fields that the kind uses; `get(order.settings)` makes the order again."""
        extra = {"blocks": {"block": self.block}, "random": {"seed": self.seed}}
        return {"kind": self.kind} | extra.get(self.kind, {})


def get(order):
    """An `Order`, given as itself, as its kind, or as a dict of its fields."""
    if isinstance(order, Order):
        return order
    if isinstance(order, dict):
        return Order(**order)
    return Order(order)


def _permutations(orders, height, width):
    """`orders` (..., L), each checked to be a permutation of the positions."""
    if not (np.sort(orders, axis=-1) == np.arange(height * width)).all():
        raise ValueError(f"scan_pattern=array{orders.shape}: expected permutations of the positions of a {height} x {width} map")
    return orders
