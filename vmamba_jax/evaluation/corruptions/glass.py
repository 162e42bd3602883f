"""Glass blur: pixels copied from near ones, one after the other."""
import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.filters import gaussian
from vmamba_jax.evaluation.corruptions.levels import truncated
from vmamba_jax.evaluation.corruptions.reproducible import fence


def glass_blur(image, offsets, sigma, reach, passes):
    """Gaussian blur, truncation to levels, `passes` of `shuffle`, Gaussian blur."""
    del reach, passes
    return gaussian(shuffle(truncated(gaussian(image, sigma)), **offsets), sigma)


def draw_offsets(key, image, sigma, reach, passes):
    """Integers "dx" and "dy" (passes, H - 2 reach, W - 2 reach) in [-reach, reach), in the order of the released loops."""
    del sigma
    height, width = image.shape[:2]
    return dict(zip(("dx", "dy"), threefry.offsets(key, (passes, height - 2 * reach, width - 2 * reach), reach), strict=True))


def shuffle(image, dx, dy):
    """In every pass, give every pixel the present value of another, from the last pixel to the first.

    Args:
        image: (H, W, C).
        dx, dy: (passes, H - 2 d, W - 2 d) integers in [-d, d), for rows H - d down to d + 1 and, in each, columns W - d down to d + 1.

    The released line means to exchange two pixels, but numpy's views make it a copy: x[h, w] = x[h + dy, w + dx].
    """
    dx, dy = fence(jnp.asarray(dx, jnp.int32), jnp.asarray(dy, jnp.int32))
    source = functools.reduce(lambda source, later: source.at[later].get(mode="promise_in_bounds"),
                              [_sources(*image.shape[:2], *moves) for moves in zip(dx, dy, strict=True)])
    return image.reshape(-1, image.shape[-1]).at[fence(source)].get(mode="promise_in_bounds").reshape(image.shape)


def _sources(height, width, dx, dy):
    """Which pixel's old value (H * W,) every pixel has after a pass.

    A pixel takes the new value of one visited before it and the old value of any other. Which old value it ends up with is found for all at once
    by following these references, twice as far in every round.
    """
    reach = (height - len(dx)) // 2
    n = height * width
    rows, cols = np.mgrid[reach + 1:height - reach + 1, reach + 1:width - reach + 1]
    here = rows * width + cols
    dx, dy = dx[::-1, ::-1], dy[::-1, ::-1]
    there, row, col = here + dy * width + dx, rows + dy, cols + dx
    before = (there > here) & (row <= height - reach) & (col > reach) & (col <= width - reach)
    source = jnp.arange(n, 2 * n, dtype=jnp.int32).reshape(height, width)  # n + p: the old value of p; p: its new value
    source = source.at[reach + 1:height - reach + 1, reach + 1:width - reach + 1].set(jnp.where(before, there, n + there)).reshape(-1)

    def follow(source):
        return jnp.where(source < n, source.at[jnp.minimum(source, n - 1)].get(mode="promise_in_bounds"), source)
    return lax.while_loop(lambda s: s.min() < n, follow, source) - n
