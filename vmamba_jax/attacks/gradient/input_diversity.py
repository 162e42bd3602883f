"""Gradients that transfer: of resized images, of scaled copies, smoothed over translations, tuned by their neighbours'.

Here a gradient is a function `gradient(x, keys) -> (b, H, W, C)`, one key per image; each function below makes such a gradient from another.
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import norms
from vmamba_jax.core.keys import fold_in

KERNELS = ("gaussian", "linear", "uniform")
BOX = 1e9  # no box: neighbours may leave it


def diverse(logits_fn, rate, probability):
    """`f(x, keys) -> logits` of images that are, each with this probability, resized at random and padded with zeros (Xie et al. 2019).

    rate < 1: shrunk to between rate and 1 of their size, and padded back to it. rate > 1: enlarged to between 1 and rate of their size and
    padded to int(rate * size), which the model must accept; images left as they are are then enlarged to that.
    """
    def moved(x, keys):
        height, width = x.shape[1:3]
        if int(height * min(rate, 1)) < 1 or int(height * max(rate, 1)) == int(height * min(rate, 1)):
            raise ValueError(f"resize_rate={rate:g} on images {height} pixels high: expected at least one size between, of at least one pixel")
        rows, columns = jax.vmap(lambda key: resize_matrices(*placement(key, height, width, rate, probability), height, width, rate))(keys)
        rows, columns = rows.astype(x.dtype), columns.astype(x.dtype)
        return logits_fn(jnp.einsum("bij,bkl,bjlc->bikc", rows, columns, x, precision=lax.Precision.HIGHEST))
    return moved


def placement(key, height, width, rate, probability):
    """(whether, rows, top, left) of one image: it becomes `rows` high, `top` and `left` of it zeros, where `whether`; uniform, ends excluded."""
    whether, rows, top, left = jax.random.split(key, 4)
    full, full_width = int(height * max(rate, 1)), int(width * max(rate, 1))
    rows = jax.random.randint(rows, (), int(height * min(rate, 1)), full)
    top = jax.random.randint(top, (), 0, full - rows)
    left = jax.random.randint(left, (), 0, jnp.maximum(full_width - rows * width // height, 1))
    return jax.random.uniform(whether) < probability, rows, top, left


def resize_matrices(whether, rows, top, left, height, width, rate):
    """The resizing and padding as matrices (H', H) and (W', W), to be applied from the left along each axis."""
    def matrix(n, out, size, first):
        size, first = jnp.where(whether, size, out), jnp.where(whether, first, 0)
        i = jnp.arange(out)[:, None] - first
        place = jnp.clip((i + 0.5) * n / size - 0.5, 0, n - 1)  # bilinear, pixel centres aligned, no antialiasing
        return jnp.maximum(1 - jnp.abs(place - jnp.arange(n)), 0) * ((i >= 0) & (i < size))
    grow = max(rate, 1)
    return matrix(height, int(height * grow), rows, top), matrix(width, int(width * grow), rows * width // height, left)


def over_scales(gradient, copies):
    """Mean over the copies x / 2^i, i < copies, of the gradient with respect to x (Lin et al. 2020, equation 8)."""
    def mean(x, keys):
        def add(i, state):
            total, share = state
            return total + share * gradient(share * x, fold_in(keys, i)), share / 2
        return lax.fori_loop(0, copies, add, (0 * x, jnp.ones((), x.dtype)))[0] / copies
    return mean


def smoother(kernel, size, sigma):
    """`f(g)`: g (b, H, W, C) convolved with a kernel, zeros around it: as if the loss were averaged over translations (Dong et al. 2019, eq. 7)."""
    taps = kernel_taps(kernel, size, sigma)

    def along(n):  # the kernel is an outer product: a matrix per axis
        offsets = np.arange(n)[:, None] - np.arange(n) + size // 2
        return np.where((offsets >= 0) & (offsets < size), taps[np.clip(offsets, 0, size - 1)], 0)

    def smooth(g):
        rows, columns = (jnp.asarray(along(n), g.dtype) for n in g.shape[1:3])
        return jnp.einsum("ij,kl,bjlc->bikc", rows, columns, g, precision=lax.Precision.HIGHEST)
    return smooth


def kernel_taps(kernel, size, sigma):
    """One axis of the kernel, (size,), summing to 1: "gaussian" over [-sigma, sigma] standard deviations, "linear" (a tent) or "uniform"."""
    x = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
    taps = {"gaussian": np.exp(-0.5 * (sigma * x)**2), "linear": 1 - np.abs(x) * (size - 1) / (size + 1), "uniform": np.ones(size)}[kernel]
    return taps / taps.sum()


def mean_one(g):
    """g / mean|g|, per image; zero where g is zero."""
    largest = norms.per_image(norms.length(g, "linf"), g)
    x = g / jnp.where(largest > 0, largest, 1)
    mean = norms.per_image(jnp.abs(x).mean((1, 2, 3)), x)
    return x / jnp.where(mean > 0, mean, 1)


def neighbours_mean(gradient, threat, share, count):
    """Mean of the gradient over `count` points drawn uniformly from the ball of `share` times the radius around x (Wang & He 2021, eq. 7)."""
    def mean(x, keys):
        def add(j, total):
            drawn = fold_in(keys, j)
            return total + gradient(x + noise(threat, share, x, drawn), fold_in(drawn, 0))
        return lax.fori_loop(0, count, add, 0 * x) / count
    return mean


def noise(threat, share, x, keys):
    """A point drawn uniformly from the ball of `share` times the radius, per image."""
    return dataclasses.replace(threat, eps=share * threat.eps, lower=-BOX, upper=BOX).random_start(0 * x, keys)
