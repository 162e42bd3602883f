"""Blurs by a fixed kernel: Gaussian, defocus and zoom."""
import functools

import jax.numpy as jnp
import numpy as np

from vmamba_jax.evaluation.corruptions.filters import fold, gaussian, zoomed


def gaussian_blur(image, draws, sigma):
    """skimage's Gaussian filter, borders repeated, cut at four sigma."""
    del draws
    return gaussian(image, sigma)


def defocus_blur(image, draws, radius, sigma):
    """Correlation with a disk of `radius` pixels whose edge a Gaussian of `sigma` softens; borders mirrored. By Fourier transforms."""
    del draws
    kernel = disk(radius, sigma)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    size = tuple(_smooth(n) for n in padded.shape[:2])
    spectrum = np.fft.rfft2(kernel, size).astype(np.complex64)
    x = jnp.fft.irfft2(jnp.fft.rfft2(jnp.moveaxis(padded, -1, 0), size) * spectrum, size)
    return jnp.moveaxis(x[:, 2 * reach:2 * reach + height, 2 * reach:2 * reach + width], 0, -1)


def zoom_blur(image, draws, factors):
    """The mean of the image and of its enlargements by each factor; a factor of 1 is among them, so the image counts twice."""
    del draws
    total = image
    for factor in factors:
        total = total + zoomed(image, factor)
    return total / (len(factors) + 1)


@functools.lru_cache(maxsize=16)
def disk(radius, sigma):
    """The defocus kernel, (17, 17) or for radii above 8 (2 radius + 1, 2 radius + 1) float64, of sum 1 before its edge is softened."""
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    kernel = (x**2 + y**2 <= radius**2) / np.sum(x**2 + y**2 <= radius**2)
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    n, soften = len(kernel), np.zeros_like(kernel)
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        soften[np.arange(n), fold(np.arange(n) + offset, n, "mirror")] += weight
    return soften @ kernel @ soften.T


def _smooth(n):
    """The least number >= n without prime factors above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1
