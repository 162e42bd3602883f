"""Checks of arguments: TypeError for the wrong kind, ValueError for what is out of range; a check of one value returns it.

What is concrete is judged at once, what is traced (a ramped radius) by its shape only. Messages read `name=value: expected ...`.
"""
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

_WITHIN = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def traced(value):
    return isinstance(value, jax.core.Tracer)


def number(name, value, low=None, high=None, *, above=None, below=None, optional=False):
    """`value` as a finite float within the bounds that are given, or as it is where traced; None too if `optional`."""
    bounds = [(sign, bound) for sign, bound in ((">=", low), (">", above), ("<=", high), ("<", below)) if bound is not None]
    limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds)
    expected = "None or " * optional + f"a finite number {limits}".rstrip()
    if optional and value is None:
        return None
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
    if not math.isfinite(x) or not all(_WITHIN[sign](x, bound) for sign, bound in bounds):
        raise ValueError(f"{name}={x!r}: expected {expected}")
    return x


def interval(name, value, low=None, high=None, *, above=None):
    """`value` as an ascending pair of floats, each within the bounds as of `number`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}={value!r}: expected a pair (smallest, largest)")
    a, b = (number(f"{name}[{i}]", x, low, high, above=above) for i, x in enumerate(value))
    if a > b:
        raise ValueError(f"{name}={value!r}: expected an ascending pair")
    return a, b


def count(name, value, low=1, *, optional=False):
    """`value` as an int >= `low`, of any size where that is None; None too if `optional`."""
    expected = "None or " * optional + ("an integer" if low is None else f"an integer >= {low}")
    if optional and value is None:
        return None
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected {expected}") from None
    if low is not None and n < low:
        raise ValueError(f"{name}={n}: expected {expected}")
    return n


def flag(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")
    return value


def choice(name, value, choices):
    """`value`, one of the names `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")
    return value


def options(owner, given, known):
    """Raise a TypeError unless all of the options `given`, a dict, are among the `known` ones of `owner`."""
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(f"{owner} has no option {', '.join(map(repr, unknown))}: expected {f'some of {list(known)}' if known else 'none'}")


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
