"""Fog: a plasma fractal laid over the image."""
import jax.numpy as jnp

from vmamba_jax.evaluation.corruptions import threefry
from vmamba_jax.evaluation.corruptions.reproducible import fence


def fog(image, uniforms, strength, decay):
    """image + strength * fractal, scaled back by the brightest value."""
    brightest = image.max()
    plasma = plasma_fractal(fence(uniforms), decay)[:image.shape[0], :image.shape[1], None]
    return (image + strength * plasma) * (brightest / (brightest + strength))


def draw_uniforms(key, image, strength, decay):
    """(m * m - 1,) in [-1, 1), m the least power of two that is not below the image's sides."""
    del strength, decay
    side = 1 << (max(image.shape[:2]) - 1).bit_length()
    return threefry.uniforms(key, (side * side - 1,))


def plasma_fractal(uniforms, decay, wibble=100.0):
    """Diamond-square height map (m, m) on a torus, scaled to [0, 1].

    uniforms: (m * m - 1,) in [-1, 1); each level takes, for squares and then both kinds of diamonds, one for each of its cells.
    decay: by which the displacement `wibble`, squared in use as in the released program, is divided from level to level.
    """
    side = round((len(uniforms) + 1) ** 0.5)
    corners, used, n = jnp.zeros((1, 1)), 0, 1
    while n < side:
        squares, left, top = uniforms[used:used + 3 * n * n].reshape(3, n, n) * wibble**2
        pair = corners + jnp.roll(corners, -1, 0)
        centres = (pair + jnp.roll(pair, -1, 1)) / 4 + squares
        left = (centres + jnp.roll(centres, 1, 0) + corners + jnp.roll(corners, -1, 1)) / 4 + left
        top = (centres + jnp.roll(centres, 1, 1) + corners + jnp.roll(corners, -1, 0)) / 4 + top
        corners = jnp.stack([jnp.stack([corners, left], -1), jnp.stack([top, centres], -1)], 1).reshape(2 * n, 2 * n)
        used, n, wibble = used + 3 * n * n, 2 * n, wibble / decay
    corners = fence(corners)
    heights = corners - corners.min()
    return heights / heights.max()
