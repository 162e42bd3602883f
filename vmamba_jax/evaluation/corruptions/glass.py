"""Glass blur: pixels copied from near ones, one after the other."""
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import dice
from vmamba_jax.evaluation.corruptions.filters import gaussian
from vmamba_jax.evaluation.corruptions.levels import truncated


def glass_blur(image, offsets, sigma, reach, passes):
    """Gaussian blur, truncation to levels, `passes` of `shuffle`, Gaussian blur."""
    del reach, passes
    x = truncated(gaussian(image, sigma))
    for moves in offsets:
        x = shuffle(x, moves)
    return gaussian(x, sigma)


def draw_offsets(key, image, sigma, reach, passes):
    """(passes, H - 2 reach, W - 2 reach, 2) integers in [-reach, reach), (dx, dy) in the order of the released loops."""
    del sigma
    height, width = image.shape[:2]
    return dice.offsets(key, (passes, height - 2 * reach, width - 2 * reach), reach)


def shuffle(image, moves):
    """Give every pixel the present value of another, from the last pixel to the first.

    Args:
        image: (H, W, C).
        moves: (H - 2 d, W - 2 d, 2) integers in [-d, d), (dx, dy) for rows H - d down to d + 1 and, in each, columns W - d down to d + 1.

    The released line means to exchange two pixels, but numpy's views make it a copy: x[h, w] = x[h + dy, w + dx]. A pixel thus takes the new
    value of one visited before it and the old value of any other. Which old value it ends up with is found for all at once by following these
    references, twice as far in every round.
    """
    height, width, channels = image.shape
    reach = (height - moves.shape[0]) // 2
    n = height * width
    rows, cols = np.mgrid[reach + 1:height - reach + 1, reach + 1:width - reach + 1]
    here = rows * width + cols
    dx, dy = jnp.moveaxis(moves[::-1, ::-1].astype(jnp.int32), -1, 0)
    there = here + dy * width + dx
    visited = np.zeros(n, bool)
    visited[here.ravel()] = True
    before = (there > here) & jnp.asarray(visited)[there]
    source = jnp.arange(n, 2 * n, dtype=jnp.int32).reshape(height, width)  # n + p: the old value of p; p: its new value
    source = source.at[reach + 1:height - reach + 1, reach + 1:width - reach + 1].set(jnp.where(before, there, n + there)).reshape(-1)

    def follow(source):
        return jnp.where(source < n, source[jnp.minimum(source, n - 1)], source)
    source = lax.while_loop(lambda s: (s < n).any(), follow, source)
    return image.reshape(n, channels)[source - n].reshape(image.shape)
