"""Checks of real-valued arguments: TypeError for the wrong kind, ValueError for a value out of range, both naming the argument."""
import math
import numbers


def number(name, value, low=0.0, high=math.inf):
    """`value` as a float in [low, high]."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (low <= value <= high and math.isfinite(value)):
        expected = f"at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a finite number {expected}, got {value!r}")
    return float(value)


def interval(name, value, low=0.0, high=math.inf):
    """`value` as an ascending pair of floats in (low, high]."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair (smallest, largest), got {value!r}")
    a, b = (number(f"{name}[{i}]", x, low, high) for i, x in enumerate(value))
    if not low < a <= b:
        raise ValueError(f"{name} must be an ascending pair above {low:g}, got {value!r}")
    return a, b


def choice(name, value, options):
    """`value`, one of the names `options`."""
    if value not in tuple(options):
        raise ValueError(f"{name} must be one of {list(options)}, got {value!r}")
    return value
