"""Checks of arguments: what is concrete is judged at once, what is traced (a ramped radius) by its shape only."""
import math
import operator

import jax
import jax.numpy as jnp


def traced(value):
    return isinstance(value, jax.core.Tracer)


def number(name, value, low=None):
    """`value` as a float, or as it is where traced; ValueError unless finite (and >= `low`), TypeError unless a real scalar."""
    expected = "a finite number" if low is None else f"a finite number >= {low:g}"
    if traced(value):
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name} is a traced {value.dtype}{value.shape}: expected a floating scalar")
        return value
    if isinstance(value, (bool, str, bytes, complex)) or value is None or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name}={value!r}: expected {expected}")
    try:
        x = float(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected {expected}") from None
    if not math.isfinite(x) or (low is not None and x < low):
        raise ValueError(f"{name}={x!r}: expected {expected}")
    return x


def count(name, value):
    """`value` as an int >= 1."""
    try:
        if isinstance(value, bool):
            raise TypeError
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected an integer >= 1") from None
    if n < 1:
        raise ValueError(f"{name}={n}: expected an integer >= 1")
    return n


def flag(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")
    return value


def choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")
    return value


def batch(images, labels, lower, upper):
    """Check what an attack is given: (batch, H, W, C) floating images in [lower, upper] and (batch,) integer labels."""
    if getattr(images, "ndim", None) != 4:
        raise ValueError(f"images have shape {getattr(images, 'shape', type(images).__name__)}: expected (batch, height, width, channels)")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images are {images.dtype}: expected a floating type, with values in [{lower:g}, {upper:g}]")
    if getattr(labels, "shape", None) != images.shape[:1]:
        raise ValueError(f"labels have shape {getattr(labels, 'shape', type(labels).__name__)}: expected {images.shape[:1]}, one per image")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels are {labels.dtype}: expected an integer type")
    if not traced(images) and images.size and getattr(images, "is_fully_addressable", True):
        with jax.ensure_compile_time_eval():  # a constant may be met inside a trace
            low, high, slack = float(images.min()), float(images.max()), 1e-6 * (upper - lower)
        if low < lower - slack or high > upper + slack:
            raise ValueError(f"images range over [{low:g}, {high:g}]: expected values in [{lower:g}, {upper:g}]")
