"""Glass blur: pixels copied from near ones, one after the other."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import dice
from vmamba_jax.evaluation.corruptions.fence import fence
from vmamba_jax.evaluation.corruptions.filters import gaussian
from vmamba_jax.evaluation.corruptions.levels import truncated


def glass_blur(image, offsets, sigma, reach, passes):
    """Gaussian blur, truncation to levels, `passes` of `shuffle`, Gaussian blur."""
    del reach, passes
    return gaussian(shuffle(truncated(gaussian(image, sigma)), offsets), sigma)


def draw_offsets(key, image, sigma, reach, passes):
    """(passes, H - 2 reach, W - 2 reach, 2) integers in [-reach, reach), (dx, dy) in the order of the released loops."""
    del sigma
    height, width = image.shape[:2]
    return dice.offsets(key, (passes, height - 2 * reach, width - 2 * reach), reach)


def shuffle(image, offsets):
    """In every pass, give every pixel the present value of another, from the last pixel to the first.

    Args:
        image: (H, W, C).
        offsets: (passes, H - 2 d, W - 2 d, 2) integers in [-d, d), (dx, dy) for rows H - d down to d + 1 and, in each, columns W - d down to d + 1.

    The released line means to exchange two pixels, but numpy's views make it a copy: x[h, w] = x[h + dy, w + dx].
    """
    source = functools.reduce(lambda source, moves: source[_sources(image.shape, moves)], offsets[1:], _sources(image.shape, offsets[0]))
    return image.reshape(-1, image.shape[-1]).at[fence(source)].get(mode="promise_in_bounds").reshape(image.shape)


def _sources(shape, moves):
    """Which pixel's old value (H * W,) every pixel has after a pass.

    A pixel takes the new value of one visited before it and the old value of any other. Which old value it ends up with is found for all at once
    by following these references, twice as far in every round.
    """
    height, width = shape[:2]
    reach = (height - moves.shape[0]) // 2
    n = height * width
    rows, cols = np.mgrid[reach + 1:height - reach + 1, reach + 1:width - reach + 1]
    here = rows * width + cols
    dx, dy = (moves[::-1, ::-1, i].astype(jnp.int32) for i in range(2))
    there, row, col = here + dy * width + dx, rows + dy, cols + dx
    before = (there > here) & (row <= height - reach) & (col > reach) & (col <= width - reach)
    source = jnp.arange(n, 2 * n, dtype=jnp.int32).reshape(height, width)  # n + p: the old value of p; p: its new value
    source = source.at[reach + 1:height - reach + 1, reach + 1:width - reach + 1].set(jnp.where(before, there, n + there)).reshape(-1)

    def follow(source):
        return jnp.where(source < n, source.at[jnp.minimum(source, n - 1)].get(mode="promise_in_bounds"), source)
    return lax.while_loop(lambda s: (s < n).any(), follow, source) - n
