"""Argument checks: each returns (holds, message); `require` reports every problem of a call at once."""
import math
import numbers


def require(*checks):
    """Raise one ValueError naming every failed check. checks: pairs (holds, "what was expected, and what was given")."""
    problems = [message for holds, message in checks if not holds]
    if problems:
        raise ValueError("; ".join(problems))


def count(name, value, low=0, optional=False):
    """An int >= low."""
    holds = (optional and value is None) or (_is(value, numbers.Integral) and value >= low)
    return holds, f"{name} must be {'None or ' * optional}an int >= {low}; got {value!r}"


def number(name, value, above=None, low=None, below=None, optional=False):
    """A finite number, > above or >= low, and < below, where these are given."""
    holds = _is(value, numbers.Real) and math.isfinite(value)
    holds = holds and (above is None or value > above) and (low is None or value >= low) and (below is None or value < below)
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">", above), (">=", low), ("<", below)) if bound is not None]
    expected = " ".join(["None or" * optional, "a finite number", " and ".join(bounds)]).strip()
    return holds or (optional and value is None), f"{name} must be {expected}; got {value!r}"


def choice(name, value, options):
    """One of the names `options`."""
    return value in tuple(options), f"{name} must be one of {', '.join(map(str, sorted(options)))}; got {value!r}"


def _is(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)
