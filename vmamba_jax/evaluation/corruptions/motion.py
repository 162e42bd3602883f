"""ImageMagick's motion blur: a one-sided Gaussian of whole-pixel shifts along an angle."""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.evaluation.corruptions.filters import weighted
from vmamba_jax.evaluation.corruptions.levels import truncated
from vmamba_jax.evaluation.corruptions.reproducible import fence


def motion_blur(image, angle, radius, sigma):
    """`motion_filter` on the three channels."""
    return motion_filter(image, angle, radius, sigma)


def draw_angle(key, image, radius, sigma):
    """Degrees in [-45, 45)."""
    del image, radius, sigma
    return jax.random.uniform(key, (), minval=-45.0, maxval=45.0)


def motion_filter(image, angle, radius, sigma):
    """Mean of the image (H, W, ...) shifted by 0 .. 2 radius pixels along `angle` degrees, weights exp(-i^2 / 2 sigma^2), cut down to whole levels.

    Shifts are rounded to whole pixels (half downwards) and borders repeated.
    """
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    i = jnp.arange(2 * radius + 1, dtype=jnp.float32)
    turn = jnp.deg2rad(angle)
    height, width, depth = *image.shape[:2], int(np.prod(image.shape[2:]))
    reach = 2 * radius
    padded = jnp.pad(image.reshape(height, width, depth), ((reach, reach), (reach, reach), (0, 0)), mode="edge").reshape(height + 2 * reach, -1)
    rows, cols = (reach + jnp.ceil(i * shift - 0.5).astype(jnp.int32) for shift in (jnp.sin(turn), jnp.cos(turn)))
    padded, rows, cols = fence(padded, rows, depth * cols)
    shifted = [lax.dynamic_slice(padded, (row, col), (height, width * depth)) for row, col in zip(rows, cols, strict=True)]
    return truncated(weighted(shifted, weights).reshape(image.shape))
