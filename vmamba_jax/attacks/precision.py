"""Images of a 16-bit floating type: attacked in float32, rounded towards the clean images.

Rounding to the nearest bfloat16 moves a value in [0.5, 1) by up to 1/512, half of a radius of 1/255. Rounded towards the clean image, no
value is further from it than in float32, so the perturbation is no longer in any norm.
"""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.randomized import Randomized


def narrow(images):
    """Whether the images have fewer than 32 bits per value."""
    return jnp.issubdtype(jnp.result_type(images), jnp.floating) and jnp.finfo(jnp.result_type(images)).bits < 32


def rounded_towards(images, x):
    """`x` (float32) in the dtype of `images`, each value rounded towards that of `images`; differentiable in x, as a cast is."""
    nearest, constant = x.astype(images.dtype), lax.stop_gradient(x)
    near, wide = constant.astype(images.dtype), images.astype(x.dtype)
    beyond = jnp.abs(near.astype(x.dtype) - wide) > jnp.abs(constant - wide)
    return nearest + jnp.where(beyond, lax.nextafter(near, images) - near, 0)  # exact: the two are neighbors


def widened(logits_fn, images):
    """The classifier of float32 images that rounds them to the dtype of `images`, towards these where the shapes are equal.

    Args:
        logits_fn: a classifier of images in the dtype of `images`, with or without random keys.
        images: (batch, H, W, C), the clean images.
    """
    def classify(x, *keys):
        return logits_fn(rounded_towards(images, x) if x.shape == images.shape else x.astype(images.dtype), *keys)
    return Randomized(classify) if isinstance(logits_fn, Randomized) else classify
