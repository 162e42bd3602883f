"""OpenCV's edge detector and distance transform, for the rims of drops."""
import jax.numpy as jnp
import numpy as np
from jax import lax

CHAMFER = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}  # lengths of a 5 x 5 mask's steps, OpenCV's DIST_L2


def canny(levels, low, high):
    """Edges of an image (H, W) of whole levels, bool: `cv2.Canny` with a 3 x 3 Sobel filter and |dx| + |dy| as length."""
    x = jnp.pad(levels, 1, mode="edge")
    rise, smooth = x[:, 2:] - x[:, :-2], x[:, 2:] + 2 * x[:, 1:-1] + x[:, :-2]
    dx, dy = rise[2:] + 2 * rise[1:-1] + rise[:-2], smooth[2:] - smooth[:-2]
    size = jnp.abs(dx) + jnp.abs(dy)
    around = jnp.pad(size, 1)

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
    """What the seeds reach through `allowed`, by steps to any of eight neighbours."""
    def grow(state):
        found, _ = state
        wider = lax.reduce_window(found, False, lax.bitwise_or, (3, 3), (1, 1), "SAME") & allowed
        return wider, (wider != found).any()
    return lax.while_loop(lambda state: state[1], grow, (seeds, jnp.array(True)))[0]


def distance(marks, limit):
    """Length of the shortest way (chamfer steps) from each pixel to a mark (H, W), at most `limit`."""
    height, width = marks.shape
    steps = {(sy * a, sx * b): length for (y, x), length in CHAMFER.items() for a, b in ((y, x), (x, y)) for sy in (-1, 1) for sx in (-1, 1)}

    def shorten(state):
        found, _ = state
        padded = jnp.pad(found, 2, constant_values=limit)
        nearer = found
        for (dy, dx), length in steps.items():
            nearer = jnp.minimum(nearer, padded[2 + dy:2 + dy + height, 2 + dx:2 + dx + width] + length)
        return nearer, (nearer < found).any()
    start = jnp.where(marks, 0.0, np.float32(limit))
    return lax.while_loop(lambda state: state[1], shorten, (start, jnp.array(True)))[0]
