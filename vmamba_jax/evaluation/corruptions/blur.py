"""The blurs: Gaussian, defocus, glass, motion and zoom."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.filters import fold, gaussian, weighted, zoomed
from vmamba_jax.evaluation.corruptions.reproducible import barrier, truncated


def gaussian_blur(image, draws, sigma):
    """Gaussian filter of skimage: borders repeated, truncated at four sigma."""
    del draws
    return gaussian(image, sigma)


def defocus_blur(image, draws, radius, sigma):
    """Correlation with a disk of `radius` pixels, its edge smoothed by a Gaussian of `sigma`; borders mirrored; by Fourier transforms."""
    del draws
    kernel = disk(radius, sigma)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    size = tuple(_fast_length(n) for n in padded.shape[:2])
    spectrum = np.fft.rfft2(kernel, size).astype(np.complex64)
    x = jnp.fft.irfft2(jnp.fft.rfft2(jnp.moveaxis(padded, -1, 0), size) * spectrum, size)
    return jnp.moveaxis(x[:, 2 * reach:2 * reach + height, 2 * reach:2 * reach + width], 0, -1)


def zoom_blur(image, draws, factors):
    """Mean of the image and its enlargements by each factor; factors include 1, so the image counts twice, as in the released program."""
    del draws
    total = image
    for factor in factors:
        total = total + zoomed(image, factor)
    return total / (len(factors) + 1)


def glass_blur(image, offsets, sigma, reach, passes):
    """Gaussian blur, truncation to levels, `passes` passes of `shuffle`, Gaussian blur."""
    del reach, passes
    return gaussian(shuffle(truncated(gaussian(image, sigma)), **offsets), sigma)


def draw_offsets(key, image, sigma, reach, passes):
    """Integers "dx" and "dy" (passes, H - 2 reach, W - 2 reach) in [-reach, reach), in the order of the released loops."""
    del sigma
    height, width = image.shape[:2]
    return dict(zip(("dx", "dy"), threefry.offsets(key, (passes, height - 2 * reach, width - 2 * reach), reach), strict=True))


def shuffle(image, dx, dy):
    """In every pass, copy to each pixel the current value of another pixel, from the last pixel to the first.

    The released line is meant to swap two pixels, but NumPy's views make it a copy: x[h, w] = x[h + dy, w + dx].

    Args:
        image: (H, W, C).
        dx, dy: (passes, H - 2 d, W - 2 d) integers in [-d, d), for rows H - d down to d + 1 and, in each, columns W - d down to d + 1.
    """
    dx, dy = barrier(jnp.asarray(dx, jnp.int32), jnp.asarray(dy, jnp.int32))
    source = functools.reduce(lambda source, later: source.at[later].get(mode="promise_in_bounds"),
                              [_sources(*image.shape[:2], *moves) for moves in zip(dx, dy, strict=True)])
    return image.reshape(-1, image.shape[-1]).at[barrier(source)].get(mode="promise_in_bounds").reshape(image.shape)


def _sources(height, width, dx, dy):
    """(H * W,): the pixel whose value before a pass each pixel has after it.

    A pixel copies the new value of a pixel visited before it, and the old value of any other. These references are followed for all pixels
    at once, twice as far in every iteration.
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


def motion_blur(image, angle, radius, sigma):
    """ImageMagick's motion blur: the weighted mean of an image (H, W, ...) shifted by 0 .. 2 radius pixels along `angle` degrees.

    Weights are exp(-i^2 / 2 sigma^2); shifts are rounded to whole pixels (halves down); borders are repeated; the result is truncated to
    levels.
    """
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    i = jnp.arange(2 * radius + 1, dtype=jnp.float32)
    turn = jnp.deg2rad(angle)
    height, width, depth = *image.shape[:2], int(np.prod(image.shape[2:]))
    reach = 2 * radius
    padded = jnp.pad(image.reshape(height, width, depth), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    padded = padded.reshape(height + 2 * reach, -1)
    rows, cols = (reach + jnp.ceil(i * shift - 0.5).astype(jnp.int32) for shift in (jnp.sin(turn), jnp.cos(turn)))
    padded, rows, cols = barrier(padded, rows, depth * cols)
    shifted = [lax.dynamic_slice(padded, (row, col), (height, width * depth)) for row, col in zip(rows, cols, strict=True)]
    return truncated(weighted(shifted, weights).reshape(image.shape))


def draw_angle(key, image, radius, sigma):
    """Degrees in [-45, 45)."""
    del image, radius, sigma
    return jax.random.uniform(key, (), minval=-45.0, maxval=45.0)


@functools.lru_cache(maxsize=16)
def disk(radius, sigma):
    """Defocus kernel, float64, of sum 1 before its edge is smoothed: (17, 17), or for radii above 8 (2 radius + 1, 2 radius + 1)."""
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    kernel = (x**2 + y**2 <= radius**2) / np.sum(x**2 + y**2 <= radius**2)
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    n, smooth = len(kernel), np.zeros_like(kernel)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        smooth[np.arange(n), fold(np.arange(n) + offset, n, "mirror")] += weight
    return smooth @ kernel @ smooth.T


def _fast_length(n):
    """The smallest number >= n without prime factors above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
