"""Argument checks: TypeError for a wrong type, ValueError for a value out of range; a check of one value returns the value.

Every message is one line, `<argument>=<value>: expected <what>`. Concrete values are checked in full, traced ones (a scheduled radius) by
shape and dtype only.
"""
import inspect
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

_COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def traced(value):
    """Whether `value` is a tracer of a JAX transformation."""
    return isinstance(value, jax.core.Tracer)


def number(name, value, low=None, high=None, *, above=None, below=None, optional=False):
    """`value` as a finite float within the bounds, or unchanged if it is traced.

    Args:
        name: the argument's name, for the message.
        value: a real scalar, or a traced floating scalar.
        low, high: inclusive bounds; None: no bound.
        above, below: exclusive bounds; None: no bound.
        optional: accept None and return it.
    """
    bounds = [(sign, bound) for sign, bound in ((">=", low), (">", above), ("<=", high), ("<", below)) if bound is not None]
    limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds)
    expected = "None or " * optional + f"a finite number {limits}".rstrip()
    if optional and value is None:
        return None
    if traced(value):
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name}=traced {value.dtype}{value.shape}: expected a floating scalar")
        return value
    if isinstance(value, (bool, str, bytes, complex)) or value is None or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name}={value!r}: expected {expected}")
    try:
        x = float(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected {expected}") from None
    if not math.isfinite(x) or not all(_COMPARISONS[sign](x, bound) for sign, bound in bounds):
        raise ValueError(f"{name}={x!r}: expected {expected}")
    return x


def interval(name, value, low=None, high=None, *, above=None):
    """`value` as an ascending pair of floats, each within the bounds of `number`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name}={value!r}: expected a pair (smallest, largest)")
    a, b = (number(f"{name}[{i}]", x, low, high, above=above) for i, x in enumerate(value))
    if a > b:
        raise ValueError(f"{name}={value!r}: expected an ascending pair")
    return a, b


def count(name, value, low=1, *, optional=False):
    """`value` as an int.

    Args:
        name: the argument's name, for the message.
        value: an integer of any type; booleans are rejected.
        low: inclusive lower bound; None: no bound.
        optional: accept None and return it.
    """
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
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")
    return value


def floating(name, value):
    """The floating dtype of a name or type; None stays None."""
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = jnp.dtype(bool)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name}={value!r}: expected a floating dtype such as 'float32' or 'bfloat16'")
    return dtype


def choice(name, value, choices):
    """`value`, which must be among `choices`."""
    if value not in tuple(choices):
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")
    return value


def require(holds, message):
    """Raise a ValueError with `message` unless `holds`."""
    if not holds:
        raise ValueError(message)


def by_name(kind, name, table, options=None, *, positional=0):
    """The entry `name` of a registry.

    Args:
        kind: what the registry holds, such as "attack"; messages use it as the argument's name.
        name: key of the entry.
        table: {name: function or class}.
        options: keyword arguments the caller will pass to the entry; None: not checked.
        positional: number of leading parameters of the entry that the caller passes by position, which are therefore no options.

    Raises:
        ValueError: `name` is not in `table`; the message lists the names.
        TypeError: the entry has no such option; the message lists its options.
    """
    entry = table[choice(kind, name, table)]
    if options:
        parameters = list(inspect.signature(entry).parameters.values())[positional:]
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            for option in sorted(set(options) - set(known)):
                expected = f"one of {', '.join(map(repr, known))}" if known else "which has none"
                raise TypeError(f"{option}={options[option]!r}: expected an option of {kind} {name!r}, {expected}")
    return entry


def images(value, channels):
    """Raise a ValueError unless `value` has the shape (batch, height, width, channels)."""
    if value.ndim != 4 or value.shape[-1] != channels:
        raise ValueError(f"images.shape={value.shape}: expected (batch, height, width, {channels})")


def stages(out_indices, count):
    """Raise a ValueError unless all `out_indices` number stages of a model that has `count`."""
    if any(i not in range(count) for i in out_indices):
        raise ValueError(f"out_indices={tuple(out_indices)}: expected stages in 0..{count - 1}")


def same_length(**fields):
    """Raise a ValueError unless the two sequences, given by name, have the same length and are not empty."""
    (a, x), (b, y) = fields.items()
    if len(x) != len(y) or not x:
        raise ValueError(f"{a}={tuple(x)}, {b}={tuple(y)}: expected sequences of one length, at least 1")


def batch(images, labels, lower, upper):
    """Check a batch that is to be attacked: floating images (batch, H, W, C) in [lower, upper], integer labels (batch,)."""
    pixels(images, lower, upper)
    classes(labels, len(images))


def pixels(images, lower, upper):
    """Raise unless `images` are floating, of shape (batch, H, W, C) with H, W, C >= 1, and in [lower, upper]; NaN is outside.

    The values of traced images are not checked.
    """
    shape = getattr(images, "shape", None)
    if shape is None or len(shape) != 4 or 0 in shape[1:]:
        raise ValueError(f"images.shape={type(images).__name__ if shape is None else shape}: expected (batch, height, width, channels)")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images.dtype={images.dtype}: expected a floating type, with values in [{lower:g}, {upper:g}]")
    if known(images) and images.size:
        with jax.ensure_compile_time_eval():  # the images may be a constant inside a trace
            low, high, slack = float(images.min()), float(images.max()), 1e-6 * (upper - lower)
        if not (low >= lower - slack and high <= upper + slack):
            raise ValueError(f"images=[{low:g}, {high:g}] (range of values): expected values in [{lower:g}, {upper:g}]")


def classes(labels, n, count=None, *, name="labels", positions=None):
    """Raise unless `labels` are integers of shape (n,), each a class from 0 to count - 1.

    One-hot and soft labels, columns (n, 1), floats, numbers from 1 and "ignore" values such as 255 and -1 are errors. Traced labels are
    checked by shape and dtype only.

    Args:
        labels: an array.
        n: number of images.
        count: number of classes; None: unknown, only negative labels are out of range.
        name: the argument's name, for the message.
        positions: (n,), positions of the labels in their set, for the message; None: 0 to n - 1.
    """
    shape = getattr(labels, "shape", None)
    if shape != (n,):
        raise ValueError(f"{name}.shape={type(labels).__name__ if shape is None else shape}: expected ({n},), one class per image")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}.dtype={labels.dtype}: expected an integer type, one class per image")
    if not known(labels):
        return
    values = np.asarray(labels)
    wrong = np.flatnonzero((values < 0) | (False if count is None else values >= count))
    if wrong.size:
        i = int(wrong[0])
        expected = "a class >= 0" if count is None else f"a class from 0 to {count - 1}"
        raise ValueError(f"{name}[{i if positions is None else int(positions[i])}]={int(values[i])}: expected {expected}")


def known(array):
    """Whether this process can read the values of `array`: it is not traced, and not spread over several processes."""
    return not traced(array) and getattr(array, "is_fully_addressable", True)
