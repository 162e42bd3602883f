"""Bounds of a function over a box: its jaxpr is evaluated with intervals, one equation after the other."""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from vmamba_jax.core.intervals import arithmetic as ia
from vmamba_jax.core.intervals import primitives
from vmamba_jax.core.intervals.arithmetic import Interval

BODIES = ("call_jaxpr", "fun_jaxpr", "jaxpr")  # of jit, custom_jvp, custom_vjp, remat and the like
LINEAR = ("add", "sub", "mul", "div", "neg", "dot_general", "reduce_sum", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "transpose")


class Rules(NamedTuple):
    """Rules for whole functions, which are tighter than those of their primitives.

    Attributes:
        calls: functions (equation) -> (inputs -> outputs) or None, asked for every call and scan of the jaxpr.
    """
    calls: tuple[Callable, ...] = ()

    def find(self, equation):
        return next((rule for find in self.calls if (rule := find(equation)) is not None), None)


def bounds(fn, low, high, *, rules=Rules()):  # noqa: B008 (immutable)
    """`Interval` of the outputs of `fn(x)` over all x with low <= x <= high; works inside jit, and has gradients.

    Args:
        fn: a function of one array that returns one array, of JAX operations in float32 or float64. Arrays that it closes over are exact.
        low, high: (...), the box.
        rules: of whole functions.

    Raises:
        NotImplementedError: a primitive without a rule, by name.
        TypeError: arithmetic of less than 32 bits.
    """
    closed = jax.make_jaxpr(fn)(low)
    return ia.of(_run(closed, [Interval(low, high)], rules)[0])


def _run(closed, inputs, rules):
    jaxpr, constants = (closed.jaxpr, closed.consts) if hasattr(closed, "jaxpr") else (closed, ())
    return _evaluate(jaxpr, dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True)), rules)


def _evaluate(jaxpr, values, rules):
    for equation in jaxpr.eqns:
        _step(equation, values, rules)
    return [_read(values, v) for v in jaxpr.outvars]


def _step(equation, values, rules):
    found = _outputs(equation, [_read(values, v) for v in equation.invars], rules)
    values.update(zip(equation.outvars, found, strict=True))


def _read(values, v):
    return jnp.asarray(v.val, v.aval.dtype) if isinstance(v, core.Literal) else values[v]


def _outputs(equation, inputs, rules):
    name = equation.primitive.name
    body = next((equation.params[each] for each in BODIES if each in equation.params), None)
    if body is not None and (rule := rules.find(equation)) is not None:
        return rule(*inputs)
    if name == "scan":
        return _scan(equation.params, inputs, rules)
    if name == "cond":
        return _either(equation.params["branches"], inputs, rules)
    if body is not None and name != "pallas_call" and hasattr(getattr(body, "jaxpr", body), "eqns"):
        return _run(body, inputs, rules)
    found = primitives.apply(equation, inputs)
    if found is None:
        raise NotImplementedError(f"primitive {name!r} in the function: expected operations with a rule in vmamba_jax.core.intervals.primitives")
    return found


def _either(branches, inputs, rules):
    """Outputs of all branches: a program for several platforms has one for each."""
    found = [[ia.of(x) for x in _run(branch, inputs[1:], rules)] for branch in branches]
    hull = lambda *each: Interval(functools.reduce(jnp.minimum, (x.low for x in each)), functools.reduce(jnp.maximum, (x.high for x in each)))
    return [hull(*each) for each in zip(*found, strict=True)]


def _scan(params, inputs, rules):
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, xs = inputs[:first], inputs[first:last], inputs[last:]
    carry = [ia.of(x) if jnp.issubdtype(jnp.asarray(ia.of(x).low).dtype, jnp.floating) else x for x in carry]

    def step(carry, xs):
        found = _run(params["jaxpr"], [*constants, *carry, *xs], rules)
        count = params["num_carry"]
        carry = [ia.of(new) if isinstance(old, Interval) else new for old, new in zip(carry, found[:count], strict=True)]
        return carry, found[count:]

    carry, ys = lax.scan(step, carry, xs, length=params["length"], reverse=params["reverse"])
    return [*carry, *ys]


# ---- differences of logits

def difference_bounds(fn, low, high, labels, *, rules=Rules()):  # noqa: B008 (immutable)
    """`Interval` (b, classes) of z_j - z_label over the box, 0 for the label, tighter than the difference of the bounds of the logits z = fn(x).

    The last linear operations of fn, such as the mean over positions and the head, are bounded as one with the difference.

    Args:
        fn: (b, ...) -> (b, classes); row i of the output depends on row i of the input alone.
        low, high, rules: as for `bounds`.
        labels: (b,) classes.
    """
    closed = jax.make_jaxpr(fn)(low)
    jaxpr, values = closed.jaxpr, dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, Interval(low, high)], strict=True))
    for equation in jaxpr.eqns:
        _step(equation, values, rules)
    made, v, tail = {out: equation for equation in jaxpr.eqns for out in equation.outvars}, jaxpr.outvars[0], []
    while v in made and (source := _linear(made[v], values)) is not None:
        tail.append(made[v])
        v = source
    return _affine(tail[::-1], v, jaxpr.outvars[0], values, labels)


def _linear(equation, values):
    """The one variable input of an equation that is linear in it, else None."""
    inputs = [v for v in equation.invars if isinstance(_read(values, v), Interval)]
    divides = equation.primitive.name == "div" and inputs != equation.invars[:1]
    return inputs[0] if equation.primitive.name in LINEAR and len(inputs) == 1 and not divides else None


def _affine(tail, source, output, values, labels):
    """Bounds of the differences of an affine map's outputs, the map being some equations from `source` to `output`."""
    box = ia.of(values[source])

    def run(x):
        now = {source: x}
        for equation in tail:
            inputs = [
                now[v] if not isinstance(v, core.Literal) and v in now else _read(values, v) for v in equation.invars]
            params = equation.params | ({"precision": lax.Precision.HIGHEST} if equation.primitive.name == "dot_general" else {})
            now[equation.outvars[0]] = equation.primitive.bind(*inputs, **params)
        return now[output]

    offset, pull = jax.vjp(run, jnp.zeros_like(box.low))
    rows, classes = offset.shape
    weights = jax.vmap(lambda j: pull(jnp.broadcast_to(jax.nn.one_hot(j, classes, dtype=offset.dtype), offset.shape))[0])(jnp.arange(classes))
    weights = weights.reshape(classes, rows, -1).swapaxes(0, 1)  # (b, classes, features)
    flat = Interval(*(x.reshape(rows, -1) for x in box))
    own = jnp.take_along_axis(weights, labels[:, None, None], 1)
    difference = weights - own
    per_row = lambda w, x: jnp.einsum("bcf,bf->bc", w, x, precision="highest")
    middle = per_row(difference, flat.center) + offset - jnp.take_along_axis(offset, labels[:, None], 1)
    spread = per_row(jnp.abs(difference), flat.radius)
    size = per_row(jnp.abs(weights) + jnp.abs(own), flat.size) + 2 * jnp.abs(offset).max(-1, keepdims=True)
    found = ia.widened(middle - spread, middle + spread, 2 * flat.low.shape[1] + 16 * len(tail) + 32, size)
    same = jax.nn.one_hot(labels, classes, dtype=bool)
    return Interval(*(jnp.where(same, 0.0, x) for x in found))
