"""The rule of each primitive: bounds of its outputs from those of its inputs."""
import functools
import math

import jax.numpy as jnp
from jax import lax

from vmamba_jax.core.intervals import arithmetic as ia
from vmamba_jax.core.intervals.arithmetic import Interval

# Outputs are inputs moved or chosen: exact, and increasing in every input.
MOVES = ("broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "concatenate", "pad", "split", "copy", "copy_p", "max", "min",
         "reduce_max", "reduce_min", "cummax", "cummin", "reduce_window_max", "optimization_barrier", "stop_gradient")
# The first input is moved, the others are whole numbers.
INDEXED = ("gather", "dynamic_slice")
# Exact for exact inputs.
EXACT = ("iota", "platform_index", "convert_element_type", "select_n", "clamp", "neg", "abs", "sign")
INCREASING = ("exp", "exp2", "log", "log1p", "expm1", "logistic", "tanh", "erf", "sqrt", "cbrt", "sinh", "asinh", "atan")


def apply(equation, inputs):
    """Outputs of an equation, intervals or exact values; None without a rule.

    Args:
        equation: of a jaxpr.
        inputs: an `Interval` or an exact array for each of its inputs.
    """
    name, params, bind = equation.primitive.name, equation.params, functools.partial(equation.primitive.bind, **equation.params)
    if name in MOVES:
        return _moved(bind, inputs)
    if name in INDEXED:
        if any(isinstance(x, Interval) for x in inputs[1:]):
            return None
        return _moved(lambda x: bind(x, *inputs[1:]), inputs[:1])
    if not any(isinstance(x, Interval) for x in inputs):
        whole = not any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars)
        if whole or name in EXACT:
            return _several(bind(*inputs))
    if name in COMPARISONS or name in LOGIC:
        return [(COMPARISONS.get(name) or LOGIC[name])(*map(ia.of, inputs))]
    if name in RULES:
        return [RULES[name](bind, params, *inputs)]
    if name in INCREASING:
        return [ia.increasing(bind, ia.of(inputs[0]))]
    return None


def _several(found):
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _moved(bind, inputs):
    if not any(isinstance(x, Interval) for x in inputs):
        return _several(bind(*inputs))
    ends = [_several(bind(*(ia.of(x)[end] for x in inputs))) for end in (0, 1)]
    return [Interval(*pair) for pair in zip(*ends, strict=True)]


# ---- comparisons, of which an interval of booleans says what is certain and what is possible

COMPARISONS = {
    "lt": lambda x, y: Interval(x.high < y.low, x.low < y.high), "le": lambda x, y: Interval(x.high <= y.low, x.low <= y.high),
    "gt": lambda x, y: Interval(x.low > y.high, x.high > y.low), "ge": lambda x, y: Interval(x.low >= y.high, x.high >= y.low),
    "eq": lambda x, y: Interval((x.low == x.high) & (y.low == y.high) & (x.low == y.low), (x.low <= y.high) & (y.low <= x.high)),
    "ne": lambda x, y: Interval((x.high < y.low) | (y.high < x.low), ~((x.low == x.high) & (y.low == y.high) & (x.low == y.low)))}
LOGIC = {"and": lambda x, y: Interval(x.low & y.low, x.high & y.high), "or": lambda x, y: Interval(x.low | y.low, x.high | y.high),
         "not": lambda x: Interval(~x.high, ~x.low)}


def _select(bind, params, which, *cases):
    if not isinstance(which, Interval):
        return Interval(*(bind(which, *(ia.of(x)[end] for x in cases)) for end in (0, 1)))
    no, yes = map(ia.of, cases)
    pick = lambda end, both: jnp.where(which.low, yes[end], jnp.where(which.high, both(no[end], yes[end]), no[end]))
    return Interval(pick(0, jnp.minimum), pick(1, jnp.maximum))


# ---- sums and products

def _multiply(bind, params, x, y):
    return ia.square(x) if x is y and isinstance(x, Interval) else ia.multiply(x, y)


def _integer_pow(bind, params, x):
    x, power = ia.of(x), params["y"]
    operations = 4 * abs(power)
    raised = lambda x: lax.integer_pow(x, abs(power))
    if power % 2:
        found = ia.increasing(raised, x, operations)
    elif power == 2:
        found = ia.square(x)
    else:
        found = ia.increasing(raised, ia.magnitude(x), operations)
    return found if power > 0 else ia.divide(jnp.ones_like(x.low), found)


def _sum(terms):
    return lambda bind, params, x: ia.total(bind, ia.of(x), terms(params, ia.of(x).low.shape))


def _dot(bind, params, x, y):
    (contracted, _), _ = params["dimension_numbers"]
    exact = functools.partial(lax.dot_general_p.bind, **params | {"precision": lax.Precision.HIGHEST})
    return ia.bilinear(exact, x, y, math.prod(ia.of(x).low.shape[i] for i in contracted))


def _convolve(bind, params, x, y):
    out = params["dimension_numbers"].rhs_spec[0]
    shape = ia.of(y).low.shape
    exact = functools.partial(lax.conv_general_dilated_p.bind, **params | {"precision": lax.Precision.HIGHEST})
    return ia.bilinear(exact, x, y, math.prod(shape) // shape[out])


def _convert(bind, params, x):
    old, new = x.low.dtype, params["new_dtype"]
    if jnp.issubdtype(old, jnp.bool_):
        return Interval(bind(x.low), bind(x.high))
    if not jnp.issubdtype(new, jnp.floating) or jnp.finfo(new).bits < max(jnp.finfo(old).bits, 32):
        raise TypeError(f"dtype={jnp.dtype(new).name} from {old.name} in the function: expected float32 or float64 throughout, whose rounding errors are bounded")
    return Interval(bind(x.low), bind(x.high))


def _window_terms(params, shape):
    return math.prod(params["window_dimensions"])


RULES = {
    "add": lambda bind, params, x, y: ia.add(x, y), "add_any": lambda bind, params, x, y: ia.add(x, y),
    "sub": lambda bind, params, x, y: ia.subtract(x, y), "mul": _multiply, "div": lambda bind, params, x, y: ia.divide(x, y),
    "neg": lambda bind, params, x: Interval(-ia.of(x).high, -ia.of(x).low), "abs": lambda bind, params, x: ia.magnitude(ia.of(x)),
    "sign": lambda bind, params, x: Interval(*map(bind, ia.of(x))), "square": lambda bind, params, x: ia.square(ia.of(x)),
    "integer_pow": _integer_pow, "rsqrt": lambda bind, params, x: ia.decreasing(bind, ia.of(x)), "select_n": _select,
    "clamp": lambda bind, params, low, x, high: Interval(*(bind(*(ia.of(z)[end] for z in (low, x, high))) for end in (0, 1))),
    "reduce_sum": _sum(lambda params, shape: math.prod(shape[i] for i in params["axes"])),
    "cumsum": _sum(lambda params, shape: shape[params["axis"]]), "reduce_window_sum": _sum(_window_terms),
    "dot_general": _dot, "conv_general_dilated": _convolve, "convert_element_type": _convert}
