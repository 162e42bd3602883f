"""Scan patterns against the original program's index tables and its scanned arrays."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.core import scan_orders
from vmamba_jax.models.vmamba import scan_layouts
from vmamba_jax.models.vmamba.ss2d import SS2D

ROW = np.arange(15)
COLUMN = ROW.reshape(3, 5).T.reshape(-1)


def test_original_tables():
    np.testing.assert_array_equal(scan_orders.routes("cross", 3, 5), [ROW, COLUMN, ROW[::-1], COLUMN[::-1]])
    np.testing.assert_array_equal(scan_orders.routes("unidi", 3, 5), [ROW] * 4)
    np.testing.assert_array_equal(scan_orders.routes("bidi", 3, 5), [ROW, ROW, ROW[::-1], ROW[::-1]])


def test_snake_visits_neighbors():
    rows, columns, *back = scan_orders.routes("snake", 3, 5)
    np.testing.assert_array_equal(rows, [0, 1, 2, 3, 4, 9, 8, 7, 6, 5, 10, 11, 12, 13, 14])
    np.testing.assert_array_equal(columns, [0, 5, 10, 11, 6, 1, 2, 7, 12, 13, 8, 3, 4, 9, 14])
    np.testing.assert_array_equal(back, [rows[::-1], columns[::-1]])
    for route in scan_orders.routes("snake", 4, 7):
        assert (np.abs(np.diff(np.divmod(route, 7))).sum(0) == 1).all()


def test_random_has_two_permutations_and_their_reverses():
    routes = scan_orders.routes("random", 3, 5)
    np.testing.assert_array_equal(routes[2:], routes[:2, ::-1])
    assert sorted(routes[0]) == sorted(routes[1]) == list(range(15)) and not (routes[0] == routes[1]).all()
    np.testing.assert_array_equal(routes, scan_orders.routes(scan_orders.Order("random"), 3, 5))
    assert (np.abs(np.diff(np.divmod(scan_orders.routes("random", 8, 8)[0], 8))).sum(0) > 1).mean() > 0.8


def test_original_scans(golden):
    """The original's scanned arrays (B, K, C, L) equal the layouts' sequences, and its merged arrays the sum of their maps."""
    arrays = golden("cross_scan_3x5")
    names = {"cross": "cross2d", "unidi": "unidi", "bidi": "bidi"}
    for pattern, original in names.items():
        scanned, outputs, merged = arrays[f"scan_{original}"], arrays["ys"].reshape(1, 4, 2, 15), 0
        x = jnp.asarray(arrays["x"].transpose(0, 2, 3, 1))
        for layout in scan_layouts.layouts(pattern, 3, 5):
            sequence = np.asarray(layout.sequence(x))
            for k, reverse in layout.directions:
                np.testing.assert_array_equal(sequence[:, ::-1] if reverse else sequence, scanned[:, k].transpose(0, 2, 1))
                y = outputs[:, k].transpose(0, 2, 1)
                merged = merged + layout.map(jnp.asarray(y[:, ::-1] if reverse else y))
            np.testing.assert_array_equal(layout.map(jnp.asarray(sequence)), x)
        np.testing.assert_allclose(merged.reshape(1, 15, 2), arrays[f"merge_{original}"].transpose(0, 2, 1), atol=1e-6)


def test_cross_needs_two_layouts_and_no_gather():
    layouts = scan_layouts.layouts("cross", 3, 5)
    assert [layout.directions for layout in layouts] == [((0, False), (2, True)), ((1, False), (3, True))]
    assert len(scan_layouts.layouts("unidi", 3, 5)) == len(scan_layouts.layouts("bidi", 3, 5)) == 1


@pytest.mark.parametrize("pattern", [np.random.default_rng(0).permutation(15), lambda h, w: np.random.default_rng(1).permutation(h * w),
                                     np.stack([np.random.default_rng(i).permutation(15) for i in range(4)])], ids=["one", "function", "four"])
def test_any_permutation(pattern):
    routes = scan_orders.routes(pattern, 3, 5)
    x = jnp.arange(15.0).reshape(1, 3, 5, 1)
    seen = {}
    for layout in scan_layouts.layouts(pattern, 3, 5):
        sequence = np.asarray(layout.sequence(x))[0, :, 0]
        for k, reverse in layout.directions:
            seen[k] = sequence[::-1] if reverse else sequence
        np.testing.assert_array_equal(layout.map(layout.sequence(x)), x)
    np.testing.assert_array_equal([seen[k] for k in range(4)], routes)


def test_identity_order_is_cross():
    np.testing.assert_array_equal(scan_orders.routes(ROW, 3, 5), scan_orders.routes("cross", 3, 5))


@pytest.mark.parametrize("pattern,words", [("spiral", "'spiral'"), (np.arange(14), "shape=(14,)"), (np.zeros(15, int), "expected permutations"),
                                           (np.arange(1, 16), "expected permutations")])
def test_refusals(pattern, words):
    with pytest.raises(ValueError) as raised:
        scan_layouts.layouts(pattern, 3, 5)
    assert words in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", scan_orders.ROUTES)
def test_outputs_depend_on_earlier_positions_of_the_order_alone(pattern):
    """With every direction but one switched off, an output depends exactly on the positions that this direction's order visits up to its own."""
    height, width, model = 3, 4, SS2D(4, conv_size=-1, out_norm="none", scan_pattern=pattern, scan_implementation="reference")
    params = model.init(jax.random.key(0), jnp.zeros((1, height, width, 4)))["params"]
    x = jax.random.normal(jax.random.key(1), (1, height, width, 4))

    def sensitivity(on):
        alone = params | {"x_proj_weight": params["x_proj_weight"] * on[:, None, None], "Ds": params["Ds"] * jnp.repeat(on, 4)}
        jacobian = jax.jacrev(lambda x: model.apply({"params": alone}, x).sum(-1).reshape(-1))(x)
        return jnp.abs(jacobian).sum(-1).reshape(height * width, -1)

    found = np.asarray(jax.jit(jax.vmap(sensitivity))(jnp.eye(4)))
    for k, route in enumerate(scan_orders.routes(pattern, height, width)):
        visited = np.argsort(route)
        np.testing.assert_array_equal(found[k] > 0, visited[None] <= visited[:, None])
