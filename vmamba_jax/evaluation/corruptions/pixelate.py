"""Pixelation: reduced and enlarged again by Pillow's BOX filter."""
import jax.numpy as jnp

from vmamba_jax.evaluation.corruptions.filters import box_taps
from vmamba_jax.evaluation.corruptions.levels import rounded
from vmamba_jax.evaluation.corruptions.reproducible import fence


def pixelate(image, draws, share):
    """Sides int(share * side) and back. Pillow resizes columns, then rows, and rounds to levels after each."""
    del draws
    height, width = image.shape[:2]
    x = _resize(image, int(height * share), int(width * share))
    return _resize(x, height, width)


def _resize(image, height, width):
    for axis, m in ((1, width), (0, height)):
        places, weights = box_taps(image.shape[axis], m)
        shape = [m if i == axis else 1 for i in range(3)]
        read = (weight.reshape(shape) * jnp.take(image, place, axis, mode="clip") for place, weight in zip(places, weights, strict=True))
        image = fence(rounded(sum(read)))
    return image
