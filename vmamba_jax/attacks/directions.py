"""Directions per norm and image: of steepest ascent, as a step of unit length, and at random."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import norms


def unit(gradient, norm):
    """gradient / |gradient|; zero where the gradient is zero.

    The largest magnitude is divided out first: the squares of a confident model's gradients would underflow in float32.
    """
    largest = norms.per_image(norms.length(gradient, "linf"), gradient)
    x = gradient / jnp.where(largest > 0, largest, 1)
    size = norms.per_image(norms.length(x, norm), x)
    return x / jnp.where(size > 0, size, 1)


def ascent(threat, l1_fraction=None):
    """The function (gradient, x) -> step of length 1 in the threat model's norm.

    linf: the gradient's sign. l2: the normalised gradient. l1: the normalised gradient, or with `l1_fraction` equal steps, by sign, on
    that share of the values: those of largest gradient, leaving out the ones that would leave the box (Tramer & Boneh 2019, section 4,
    SLIDE; 1 - l1_fraction is their quantile q).
    """
    if threat.norm == "linf":
        return lambda gradient, x: jnp.sign(gradient)
    if threat.norm == "l2" or l1_fraction is None:
        return lambda gradient, x: unit(gradient, threat.norm)

    def sparse(gradient, x):
        stuck = ((x <= threat.lower) & (gradient < 0)) | ((x >= threat.upper) & (gradient > 0))
        gradient = jnp.where(stuck, 0, gradient)
        a = jnp.abs(gradient.reshape(len(gradient), -1))
        k = max(1, round(l1_fraction * a.shape[1]))
        threshold = norms.per_image(lax.top_k(a, k)[0][:, -1], gradient)
        return unit(jnp.where(jnp.abs(gradient) >= threshold, jnp.sign(gradient), 0), "l1")
    return sparse


def noise(images, keys, norm):
    """Random values, of the shape and dtype of `images`, each image's from its own key: uniform in [-1, 1] for linf, standard Gaussian for l2 and l1."""
    def draw(key):
        shape, dtype = images.shape[1:], images.dtype
        return jax.random.uniform(key, shape, dtype, -1, 1) if norm == "linf" else jax.random.normal(key, shape, dtype)
    return jax.vmap(draw)(keys)
