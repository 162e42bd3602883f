"""Interval arithmetic with outward rounding: every result is widened by a bound on the rounding errors of both its own and the function's operations."""
import contextlib
import contextvars
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BASIC, SMOOTH = 4, 32  # roundings, in units in the last place, of + - * / and of exp, log, tanh, erf and the like


class Interval(NamedTuple):
    """All arrays between two arrays of one shape, low <= high; of booleans: certainly true, possibly true."""
    low: jax.Array
    high: jax.Array

    @property
    def size(self):
        """Largest absolute value."""
        return jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))

    @property
    def center(self):
        return (self.low + self.high) / 2

    @property
    def radius(self):
        return (self.high - self.low) / 2


def of(x):
    """A value as an interval."""
    return x if isinstance(x, Interval) else Interval(x, x)


OUTWARD = contextvars.ContextVar("OUTWARD", default=True)


@contextlib.contextmanager
def unrounded():
    """A context in which nothing is widened: the bound holds but for rounding errors and takes two thirds of the work, for training."""
    token = OUTWARD.set(False)
    try:
        yield
    finally:
        OUTWARD.reset(token)


def widened(low, high, operations, size=None):
    """The interval, wider on both sides by so many roundings of numbers of this size (None: of its ends), and by the smallest normal number."""
    if not OUTWARD.get():
        return Interval(low, high)
    unit, tiny = jnp.finfo(low.dtype).eps, jnp.finfo(low.dtype).tiny
    size = jnp.maximum(jnp.abs(low), jnp.abs(high)) if size is None else size
    return Interval(low - (operations * unit * size + tiny), high + (operations * unit * size + tiny))


def product(x, y):
    """The products of two intervals, without rounding."""
    ends = [a * b for a in x for b in y]
    return Interval(functools.reduce(jnp.minimum, ends), functools.reduce(jnp.maximum, ends))


def multiply(x, y):
    return widened(*product(of(x), of(y)), BASIC)


def add(x, y):
    x, y = of(x), of(y)
    return widened(x.low + y.low, x.high + y.high, BASIC)


def subtract(x, y):
    x, y = of(x), of(y)
    return widened(x.low - y.high, x.high - y.low, BASIC)


def divide(x, y):
    """x / y; everything where y contains 0."""
    y = of(y)
    low, high = product(of(x), (1 / y.low, 1 / y.high))
    through = (y.low <= 0) & (y.high >= 0)
    return widened(jnp.where(through, -jnp.inf, low), jnp.where(through, jnp.inf, high), 2 * BASIC)


def square(x):
    """x * x, not below 0."""
    a, b = x.low * x.low, x.high * x.high
    low = jnp.where((x.low <= 0) & (x.high >= 0), 0.0, jnp.minimum(a, b))
    found = widened(low, jnp.maximum(a, b), BASIC)
    return Interval(jnp.maximum(found.low, 0), found.high)


def magnitude(x):
    """|x|."""
    a, b = jnp.abs(x.low), jnp.abs(x.high)
    return Interval(jnp.where((x.low <= 0) & (x.high >= 0), 0.0, jnp.minimum(a, b)), jnp.maximum(a, b))


def increasing(fn, x, operations=SMOOTH):
    return widened(fn(x.low), fn(x.high), operations)


def decreasing(fn, x, operations=SMOOTH):
    return widened(fn(x.high), fn(x.low), operations)


def valley(fn, bottom, x):
    """A function that decreases up to `bottom` and increases from there on, with fn(x) computed from parts no larger than |x|."""
    a, b = fn(x.low), fn(x.high)
    least = fn(jnp.full_like(x.low, bottom))
    low = jnp.where((x.low <= bottom) & (x.high >= bottom), least, jnp.minimum(a, b))
    return widened(low, jnp.maximum(a, b), SMOOTH, x.size)


def total(fn, x, terms):
    """A linear function with coefficients 0 and 1, such as a sum over axes, that adds at most so many terms."""
    return widened(fn(x.low), fn(x.high), terms + BASIC, fn(x.size))


def bilinear(fn, x, y, terms):
    """A bilinear function, such as a product of matrices or a convolution, that adds at most so many products.

    By center and radius: |fn(x, y) - fn(cx, cy)| <= fn(|cx|, ry) + fn(rx, |cy| + ry).
    """
    if not isinstance(x, Interval) and not isinstance(y, Interval):
        x = of(x)
    sizes = [z.size if isinstance(z, Interval) else jnp.abs(z) for z in (x, y)]
    centers = [z.center if isinstance(z, Interval) else z for z in (x, y)]
    spread = 0
    if isinstance(x, Interval):
        spread = spread + fn(x.radius, sizes[1])
    if isinstance(y, Interval):
        spread = spread + fn(jnp.abs(centers[0]), y.radius)
    middle = fn(*centers)
    return widened(middle - spread, middle + spread, terms + 16, fn(*sizes) if OUTWARD.get() else None)


def standardized(x, eps):
    """(x - mean) / sqrt(var + eps) over the last axis.

    x_i - mean is linear. The variance is min_t mean (x - t)^2: its bound from above takes t as the mean of the centers, its bound from below the tangent
    of the convex mean dist(t, [low, high])^2 near its minimum. No standardized value leaves +-sqrt(n), whatever the mean is.
    """
    n = x.low.shape[-1]
    mean = lambda z: z.mean(-1, keepdims=True)
    low = x.low - mean(x.high) + (x.high - x.low) / n
    high = x.high - mean(x.low) - (x.high - x.low) / n
    centered = widened(low, high, n + 16, x.size + mean(x.size))
    t = mean(x.center)
    above = mean(jnp.maximum((x.high - t)**2, (t - x.low)**2))
    ends = lax.stop_gradient((mean(x.low), mean(x.high)))
    t = lax.stop_gradient(t)
    for _ in range(3):  # Newton's steps to the minimum; any t is sound
        slope = mean(jnp.maximum(t - x.high, 0) - jnp.maximum(x.low - t, 0))
        curve = mean(((t > x.high) | (t < x.low)).astype(t.dtype))
        t = lax.stop_gradient(jnp.clip(t - slope / jnp.maximum(curve, 1 / n), *ends))
    outside = jnp.maximum(t - x.high, 0) - jnp.maximum(x.low - t, 0)
    below = mean(outside**2) - 2 * jnp.abs(mean(outside)) * jnp.maximum(ends[1] - t, t - ends[0])
    far = jnp.maximum(jnp.abs(x.high - t), jnp.abs(t - x.low))
    if OUTWARD.get():  # the function squares differences from its own rounded mean
        error = (n + 16) * jnp.finfo(x.low.dtype).eps * (x.size + mean(x.size))
        below, above = below - mean((2 * far + error) * error), above + mean((2 * far + error) * error)
    variance = widened(below, above, n + 32, mean(far**2))
    rates = 1 / jnp.sqrt(jnp.maximum(variance.high, 0) + eps), 1 / jnp.sqrt(jnp.maximum(variance.low, 0) + eps)
    low = jnp.where(centered.low > 0, centered.low * rates[0], centered.low * rates[1])
    high = jnp.where(centered.high > 0, centered.high * rates[1], centered.high * rates[0])
    most = n**0.5
    return widened(jnp.maximum(low, -most), jnp.minimum(high, most), 16)
