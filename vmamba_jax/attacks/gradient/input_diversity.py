"""Gradients that transfer between models: input diversity, scaled copies, translation smoothing, variance tuning.

A gradient is a function `gradient(x, keys) -> (b, H, W, C)` with one random key per image.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import norms
from vmamba_jax.core.keys import fold_in

KERNELS = ("gaussian", "linear", "uniform")


def diverse(logits_fn, rate, probability):
    """The classifier `(x, keys) -> logits` on randomly resized and zero-padded images (input diversity).

    Args:
        logits_fn: images -> logits.
        rate: < 1: images shrink to between rate and 1 of their size and are padded back to it. > 1: images grow to between 1 and rate of
            their size and are padded to int(rate * size), which the model must accept; unresized images are resized to that size too.
        probability: of resizing an image.

    Source: Xie et al. 2019.
    """
    def moved(x, keys):
        height, width = x.shape[1:3]
        if int(height * min(rate, 1)) < 1 or int(height * max(rate, 1)) == int(height * min(rate, 1)):
            raise ValueError(f"resize_rate={rate:g} on images {height} pixels high: expected at least one size between, of at least one "
                             "pixel")
        rows, columns = jax.vmap(lambda key: resize_matrices(*placement(key, height, width, rate, probability), height, width, rate))(keys)
        rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
        return logits_fn(jnp.einsum("bij,bkl,bjlc->bikc", rows, columns, x, precision=lax.Precision.HIGHEST))
    return moved


def placement(key, height, width, rate, probability):
    """Random (resized, rows, top, left) of one image: whether it is resized, its new height, the zeros above and left of it."""
    whether, rows, top, left = jax.random.split(key, 4)
    full, full_width = int(height * max(rate, 1)), int(width * max(rate, 1))
    rows = jax.random.randint(rows, (), int(height * min(rate, 1)), full)
    top = jax.random.randint(top, (), 0, full - rows)
    left = jax.random.randint(left, (), 0, jnp.maximum(full_width - rows * width // height, 1))
    return jax.random.uniform(whether) < probability, rows, top, left


def resize_matrices(whether, rows, top, left, height, width, rate):
    """The resizing and padding of `placement` as matrices (H', H) and (W', W), applied from the left along each axis."""
    def matrix(n, out, size, first):
        size, first = jnp.where(whether, size, out), jnp.where(whether, first, 0)
        i = jnp.arange(out)[:, None] - first
        place = jnp.clip((i + 0.5) * n / size - 0.5, 0, n - 1)  # bilinear, aligned pixel centers, no antialiasing
        return jnp.maximum(1 - jnp.abs(place - jnp.arange(n)), 0) * ((i >= 0) & (i < size))
    grow = max(rate, 1)
    return matrix(height, int(height * grow), rows, top), matrix(width, int(width * grow), rows * width // height, left)


def over_scales(gradient, copies):
    """The mean over the copies x / 2^i, i < copies, of the gradient with respect to x (Lin et al. 2020, equation 8)."""
    def mean(x, keys):
        def add(i, state):
            total, scale = state
            return total + scale * gradient(scale * x, fold_in(keys, i)), scale / 2
        return lax.fori_loop(0, copies, add, (0 * x, jnp.ones((), x.dtype)))[0] / copies
    return mean


def smoother(kernel, size, sigma):
    """The function that convolves gradients (b, H, W, C) with a zero-padded kernel, which averages the loss over translations.

    Source: Dong et al. 2019, equation 7.
    """
    taps = kernel_taps(kernel, size, sigma)

    def along(n):  # the kernel is an outer product: a matrix per axis
        offsets = np.arange(n)[:, None] - np.arange(n) + size // 2
        return np.where((offsets >= 0) & (offsets < size), taps[np.clip(offsets, 0, size - 1)], 0)

    def smooth(g):
        rows, columns = (jnp.asarray(along(n), g.dtype) for n in g.shape[1:3])
        return jnp.einsum("ij,kl,bjlc->bikc", rows, columns, g, precision=lax.Precision.HIGHEST)
    return smooth


def kernel_taps(kernel, size, sigma):
    """One axis of a kernel, (size,), with sum 1: "gaussian" over [-sigma, sigma] standard deviations, "linear" (a tent) or "uniform"."""
    x = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
    taps = {"gaussian": np.exp(-0.5 * (sigma * x)**2), "linear": 1 - np.abs(x) * (size - 1) / (size + 1), "uniform": np.ones(size)}[kernel]
    return taps / taps.sum()


def neighbors_mean(gradient, threat, radius, count):
    """The mean gradient over `count` random neighbors of x, uniform in the ball of `radius` times the threat model's.

    Source: Wang & He 2021, equation 7.
    """
    def mean(x, keys):
        def add(j, total):
            own = fold_in(keys, j)
            return total + gradient(x + neighbor(threat, radius, x, own), fold_in(own, 0))
        return lax.fori_loop(0, count, add, 0 * x) / count
    return mean


def neighbor(threat, radius, x, keys):
    """A random offset per image, uniform in the ball of `radius` times the threat model's: the shape of x."""
    return jnp.asarray(radius * threat.eps, x.dtype) * norms.uniform_in_ball(x, keys, threat.norm)
