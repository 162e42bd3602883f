"""Pixelation: reduced and enlarged again by Pillow's BOX filter."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.evaluation.corruptions.filters import box_matrix
from vmamba_jax.evaluation.corruptions.levels import rounded


def pixelate(image, draws, share):
    """Sides int(share * side) and back. Pillow resizes columns, then rows, and rounds to levels after each."""
    del draws
    height, width = image.shape[:2]
    x = _resize(image, int(height * share), int(width * share))
    return _resize(x, height, width)


def _resize(image, height, width):
    exact = lax.Precision.HIGHEST
    x = rounded(jnp.einsum("jw,hwc->hjc", box_matrix(image.shape[1], width), image, precision=exact))
    return rounded(jnp.einsum("ih,hwc->iwc", box_matrix(image.shape[0], height), x, precision=exact))
