"""Scan orders: directions by hand, their inverse, patterns, and orders that models accept as scan patterns."""
import itertools

import numpy as np
import pytest

from vmamba_jax.core import scan_orders


def visit(direction, height, width):
    """The scan as two nested loops."""
    rows, columns = range(height), range(width)
    if direction.startswith("rows"):
        order = [i * width + j for i, j in itertools.product(rows, columns)]
    else:
        order = [i * width + j for j, i in itertools.product(columns, rows)]
    return order[::-1] if direction.endswith("back") else order


@pytest.mark.parametrize("direction", scan_orders.DIRECTIONS)
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1, 3)])
def test_directions(direction, shape):
    order, ranks = scan_orders.along(direction, *shape), scan_orders.ranks(direction, *shape)
    assert order.tolist() == visit(direction, *shape)
    np.testing.assert_array_equal(order[ranks], np.arange(len(order)))
    assert [int(ranks[position]) for position in order] == list(range(len(order)))


def test_cross_scan_is_the_four_directions():
    np.testing.assert_array_equal(scan_orders.routes("cross", 3, 5), [visit(direction, 3, 5) for direction in scan_orders.DIRECTIONS])


def test_relabeled_cross_scan():
    """Positions of the map are relabeled by an order, then scanned crosswise: columns run over the relabeled map."""
    order = np.random.default_rng(0).permutation(6)
    relabeled = order.reshape(2, 3)
    rows, columns = relabeled.reshape(-1), relabeled.T.reshape(-1)
    np.testing.assert_array_equal(scan_orders.routes(order, 2, 3), [rows, columns, rows[::-1], columns[::-1]])


@pytest.mark.parametrize("kind", scan_orders.KINDS)
def test_orders_are_permutations(kind):
    order = scan_orders.get({"kind": kind, "seed": 1} if kind == "random" else kind)
    assert sorted(order(4, 6).tolist()) == list(range(24)) and scan_orders.get(order.settings) == order
    np.testing.assert_array_equal(scan_orders.order(order, 4, 6), order(4, 6))


def test_bad_orders():
    for pattern, message in [("spiral", "scan_pattern='spiral': expected 'rows'"), (np.arange(3), r"scan_pattern.shape=\(3,\): expected \(4,\)"),
                             (np.zeros(4, int), r"scan_pattern=array\(4,\): expected permutations")]:
        with pytest.raises(ValueError, match=message):
            scan_orders.order(pattern, 2, 2)
