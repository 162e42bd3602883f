"""Patch grids against loops over pixels."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.core import grids

SHAPES = [(6, 8, 3, 2), (7, 5, 3, 4), (4, 4, 1, 1), (5, 6, 5, 6)]


def patch_of(i, j, height, width, rows, columns):
    return (i * rows // height) * columns + j * columns // width


@pytest.mark.parametrize("height, width, rows, columns", SHAPES)
def test_patches_masks_and_sums(height, width, rows, columns):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (2, height, width)).astype(np.float32)
    chosen = rng.random((2, rows, columns)) < 0.5
    sums, mask = np.zeros((2, rows * columns)), np.zeros((2, height, width, 1), bool)
    number = np.zeros((height, width), int)
    for i in range(height):
        for j in range(width):
            number[i, j] = patch_of(i, j, height, width, rows, columns)
            sums[:, number[i, j]] += values[:, i, j]
            mask[:, i, j, 0] = chosen.reshape(2, -1)[:, number[i, j]]
    np.testing.assert_array_equal(grids.patch_of_pixels(height, width, rows, columns), number)
    np.testing.assert_array_equal(grids.patch_sums(values, rows, columns).reshape(2, -1), sums)
    np.testing.assert_array_equal(grids.pixel_mask(chosen, height, width), mask)


def test_chosen_patches():
    chosen = grids.chosen_patches(np.array([[1, 4], [0, 0]]), 2, 3)
    np.testing.assert_array_equal(chosen, [[[0, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]])


def test_random_order_within_patches():
    patch = grids.patch_of_pixels(7, 5, 3, 2)
    ranks = np.asarray(grids.random_ranks(jax.random.key(0), patch))
    image = jnp.arange(70.0).reshape(7, 5, 2)
    mask = np.random.default_rng(1).random((7, 5)) < 0.6
    moved = np.asarray(grids.shuffled_within(jax.random.key(1), image, patch, mask))
    np.testing.assert_array_equal(moved[~mask], image[~mask])
    for number in np.unique(patch):
        inside = patch == number
        assert sorted(ranks[inside]) == list(range(inside.sum()))
        assert sorted(map(tuple, moved[inside & mask])) == sorted(map(tuple, image[inside & mask]))
    assert (moved != image).any()


def test_sides_and_errors():
    assert grids.sides("grid", 3) == (3, 3) and grids.sides("grid", [2, 4]) == (2, 4)
    assert grids.of_patch_size((1, 8, 12, 3), 4) == (2, 3)
    for call, message in [
        (lambda: grids.sides("grid", (1, 2, 3)), r"grid=\(1, 2, 3\): expected"), (lambda: grids.sides("grid", 0), "grid=0: expected an integer >= 1"),
        (lambda: grids.of_patch_size((1, 8, 9, 3), 4), "patch_size=4 on images of 8 x 9: expected"),
        (lambda: grids.patch_of_pixels(4, 4, 5, 5), "grid=5 on images of 4 x 4 pixels: expected at most one patch per pixel"),
        (lambda: grids.pixel_mask(np.ones((1, 2, 5), bool), 4, 4), r"grid=\(2, 5\) on images"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
