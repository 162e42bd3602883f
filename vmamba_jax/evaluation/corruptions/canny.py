"""OpenCV's Canny edge detector and distance transform, for `spatter`."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions.reproducible import barrier

CHAMFER = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}  # lengths of the steps of a 5 x 5 mask, OpenCV's DIST_L2
_FLAT, _STEEP = (1.0, CHAMFER[1, 2] - 2), (CHAMFER[1, 2] - CHAMFER[1, 1], 2 * CHAMFER[1, 1] - CHAMFER[1, 2])
FACETS = np.float32([_FLAT, _STEEP, _STEEP[::-1], _FLAT[::-1]])  # the length of a path is the maximum of four sums


def canny(levels, low, high):
    """Edges (H, W) bool of an image of whole levels: `cv2.Canny` with a 3 x 3 Sobel filter and |dx| + |dy| as gradient magnitude."""
    x = barrier(jnp.pad(levels, 1, mode="edge"))
    rise, smooth = x[:, 2:] - x[:, :-2], x[:, 2:] + 2 * x[:, 1:-1] + x[:, :-2]
    dx, dy = rise[2:] + 2 * rise[1:-1] + rise[:-2], smooth[2:] - smooth[:-2]
    dx, dy, size = barrier(dx, dy, jnp.abs(dx) + jnp.abs(dy))
    around = barrier(jnp.pad(size, 1))

    def at(row, col):
        return around[1 + row:1 + row + size.shape[0], 1 + col:1 + col + size.shape[1]]
    flat = jnp.abs(dy) * 32768 < jnp.abs(dx) * 13573  # below tan 22.5 degrees, in OpenCV's fixed point
    steep = jnp.abs(dy) * 32768 > jnp.abs(dx) * (13573 + 65536)
    falling = dx * dy < 0
    peak = jnp.where(flat, (size > at(0, -1)) & (size >= at(0, 1)), jnp.where(
        steep, (size > at(-1, 0)) & (size >= at(1, 0)), jnp.where(
            falling, (size > at(-1, 1)) & (size > at(1, -1)), (size > at(-1, -1)) & (size > at(1, 1)))))
    weak = peak & (size > low)
    return _connected(weak & (size > high), weak)


def _connected(seeds, allowed):
    """Pixels of `allowed` connected to the seeds by steps to any of eight neighbors."""
    height, width = seeds.shape

    def step(found):
        padded = barrier(jnp.pad(found, 1))
        rows = barrier(padded[:-2] | padded[1:-1] | padded[2:])
        return (rows[:, :width] | rows[:, 1:-1] | rows[:, 2:]) & allowed

    def grow(state):
        found, _ = state
        wider = barrier(step(barrier(step(found))))
        return wider, (wider - found).max() > 0
    seeds, allowed = barrier(seeds.astype(jnp.int32), allowed.astype(jnp.int32))
    return lax.while_loop(lambda state: state[1], grow, (seeds, jnp.array(True)))[0] > 0


def distance(marks, limit):
    """Length (H, W) of the shortest path in steps of `CHAMFER` from each pixel to a mark, at most `limit`.

    A path of a pixels along one axis and b <= a along the other has length max(a + 0.1969 b, 0.7969 a + 0.6031 b). It increases in both, so
    only the nearest mark of each column matters.
    """
    reach = int(limit) - 1
    rise = jnp.where(marks, 0.0, np.float32(limit))  # distance to the nearest mark of the column
    done = 0
    while done < reach:
        step = min(done + 1, reach - done)
        padded = jnp.pad(rise, ((step, step), (0, 0)), constant_values=limit)
        rise = barrier(jnp.minimum(rise, jnp.minimum(padded[:-2 * step], padded[2 * step:]) + step))
        done += step
    padded = barrier(jnp.pad(rise, ((0, 0), (reach, reach)), constant_values=limit))
    far, width = jnp.minimum(rise, limit), marks.shape[1]
    for run in range(1, reach + 1):
        near = jnp.minimum(padded[:, reach - run:reach - run + width], padded[:, reach + run:reach + run + width])
        far = jnp.minimum(far, functools.reduce(jnp.maximum, (a * near + b * run for a, b in FACETS)))
    return far
