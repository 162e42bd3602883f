"""Sound bounds of a model's logits over a box of images: the rules for its activations, layer norm and selective scan.

    low, high = interval_bounds.logits(logits_fn, images - eps, images + eps)

A rule serves a call in the model's jaxpr whose text is that of the layer that it was written for; any other call is bounded by its primitives. The
scan runs as the reference implementation does; the kernels' results differ from it by less than the widening for their softplus and their sums.

Source: our own; no bound of this kind of a visual state space model is published.
"""
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

import pallas_kernels
from pallas_kernels.arguments import step_size
from vmamba_jax.core import intervals
from vmamba_jax.core.intervals import arithmetic as ia
from vmamba_jax.core.intervals.arithmetic import Interval
from vmamba_jax.models.classifier import Classifier
from vmamba_jax.models.layers.common import gelu, silu, standardize

GELU_BOTTOM, SILU_BOTTOM = -0.7517915246935645, -1.2784645427610738  # the only zeros of the derivatives


def logits(logits_fn, low, high):
    """`Interval` (b, classes) of the logits of all images between two images.

    Args:
        logits_fn: of `vmamba_jax.logits_fn`, or any function images -> logits of JAX operations that have a rule, see `core.intervals`.
        low, high: (b, H, W, C).

    Raises:
        NotImplementedError, TypeError: as `core.intervals.bounds`.
    """
    return intervals.bounds(traceable(logits_fn), low, high, rules=RULES)


def margins(logits_fn, low, high, labels):
    """`Interval` (b, classes) of z_j - z_label over the box, see `intervals.difference_bounds`; other arguments and errors as for `logits`."""
    return intervals.difference_bounds(traceable(logits_fn), low, high, labels, rules=RULES)


def box(images, eps):
    """(low, high): all images of [0, 1] within eps of these in every pixel, and up to two units in the last place more."""
    low, high = ia.widened(images - eps, images + eps, 2)
    return jnp.clip(low, 0, 1), jnp.clip(high, 0, 1)


def traceable(logits_fn):
    """A function whose jaxpr has the reference scan, from a classifier with its variables; any other function as it is."""
    fn, args, keywords = (logits_fn.func, logits_fn.args, logits_fn.keywords) if isinstance(logits_fn, functools.partial) else (logits_fn, (), {})
    fn = getattr(fn, "__wrapped__", fn)  # a jitted function would keep the trace of its own scan
    fn = getattr(fn, "__self__", fn)
    if isinstance(fn, Classifier):
        fn = reference(fn)
    return functools.partial(fn, *args, **keywords)


@functools.lru_cache(maxsize=64)
def reference(classifier):
    """The classifier with the reference scan, if it has scans."""
    model = classifier.model
    fields = {"scan_implementation": "reference"} if hasattr(model, "scan_implementation") else {}
    return dataclasses.replace(classifier, model=model.clone(**fields)) if fields and isinstance(model, nn.Module) else classifier


# ---- calls

def _call(fn, rule):
    """A finder of the calls whose jaxpr is that of `fn`, one call."""
    def find(equation):
        if "call_jaxpr" not in equation.params:
            return None
        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
        return (lambda *inputs: [rule(*map(ia.of, inputs))]) if _same(equation, fn, avals) else None
    return find


def _same(equation, fn, avals):
    try:
        known = jax.make_jaxpr(fn)(*avals).eqns[0]
    except (TypeError, ValueError):  # other shapes or another number of arguments
        return False
    return known.primitive is equation.primitive and str(known.params.get("call_jaxpr")) == str(equation.params["call_jaxpr"])


def _standardize(equation):
    """The rule of `standardize`, whose eps is a literal of its jaxpr."""
    body = equation.params.get("call_jaxpr")
    if body is None or len(equation.invars) != 1 or not equation.invars[0].aval.shape:
        return None
    aval = jax.ShapeDtypeStruct(equation.invars[0].aval.shape, equation.invars[0].aval.dtype)
    eps = [float(v.val) for each in body.eqns if each.primitive.name == "add" for v in each.invars if isinstance(v, core.Literal)]
    if len(eps) == 1 and eps[0] > 0 and _same(equation, lambda x: standardize(x, eps[0]), [aval]):
        return lambda x: [ia.standardized(ia.of(x), eps[0])]
    return None


def _softplus(x):
    return step_size(x, None, True)


# ---- the selective scan

def _scan(equation):
    """The rule of the recurrence of the reference selective scan, which treats both places of the step size together."""
    params = equation.params
    if equation.primitive.name != "scan" or (params["num_consts"], params["num_carry"], len(equation.invars)) != (1, 1, 6):
        return None
    u, delta, B, C = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars[2:])
    if not (len(u.shape) == len(B.shape) == 4 and u.shape == delta.shape and B.shape == C.shape and B.shape[:3] == u.shape[:3]):
        return None
    length, batch, groups, width = u.shape
    channels = lambda z: jax.ShapeDtypeStruct((batch, length, groups * width), z.dtype)
    states = lambda z: jax.ShapeDtypeStruct((batch, length, groups, z.shape[-1]), z.dtype)
    scan = functools.partial(pallas_kernels.selective_scan, delta_softplus=False, reverse=params["reverse"], implementation="reference")
    A = jax.ShapeDtypeStruct((groups * width, B.shape[-1]), u.dtype)
    known = _scans(jax.make_jaxpr(scan)(channels(u), channels(delta), A, states(B), states(C)).jaxpr)
    if [str(each.params["jaxpr"]) for each in known] != [str(params["jaxpr"])]:
        return None
    return functools.partial(_selective, reverse=params["reverse"])


def _scans(jaxpr):
    found = [each for each in jaxpr.eqns if each.primitive.name == "scan"]
    for each in jaxpr.eqns:
        for body in (each.params.get(name) for name in ("jaxpr", "call_jaxpr", "fun_jaxpr")):
            if body is not None and each.primitive.name != "scan":
                found += _scans(getattr(body, "jaxpr", body))
    return found


def _selective(A, h, u, delta, B, C, *, reverse):
    A, h, u, delta, B, C = map(ia.of, (A, h, u, delta, B, C))
    delta = Interval(jnp.maximum(delta.low, 0), jnp.maximum(delta.high, 0))
    wide = lambda x: Interval(*(jnp.moveaxis(z, -1, 1)[..., None] for z in x))  # (b, G, N) -> (b, N, G, 1)
    fine = lambda x: Interval(*(z[:, None] for z in x))  # (b, G, D / G) -> (b, 1, G, D / G)

    def step(h, inputs):
        u, dt, B, C = (Interval(*x) for x in inputs)
        h = next_state(A, fine(dt), h, ia.multiply(wide(B), fine(u)))
        return h, ia.total(lambda x: x.sum(1), ia.multiply(h, wide(C)), h.low.shape[1])

    h, y = lax.scan(step, Interval(*h), (u, delta, B, C), reverse=reverse)
    return [h, y]


def next_state(A, delta, h, v):
    """Ends of exp(delta A) h + delta v over A < 0, delta >= 0, h and v in their intervals.

    It increases in h and v; for given ends of these the extreme over the interval of delta is at one of its ends or at the single stationary point.
    It is monotone in A.

    Args:
        A: an `Interval`, or exact values.
        delta, h, v: intervals of shapes that broadcast.
    """
    def extreme(A, h, v, choose):
        ratio = v / (-A * h)  # exp(delta A) at the stationary point
        inside = jnp.where(ratio > 0, jnp.log(jnp.where(ratio > 0, ratio, 1)) / A, delta[0])
        inside = lax.stop_gradient(jnp.clip(inside, *delta))  # the derivative there is 0
        return functools.reduce(choose, [jnp.exp(d * A) * h + d * v for d in (delta[0], delta[1], inside)])

    rates = A if isinstance(A, Interval) else (A,)
    low, high = (functools.reduce(choose, [extreme(a, h[end], v[end], choose) for a in rates]) for end, choose in ((0, jnp.minimum), (1, jnp.maximum)))
    return ia.widened(low, high, 16, jnp.maximum(*map(jnp.abs, h)) + delta[1] * jnp.maximum(*map(jnp.abs, v)))


RULES = intervals.Rules((_call(gelu, lambda x: ia.valley(gelu, GELU_BOTTOM, x)), _call(silu, lambda x: ia.valley(silu, SILU_BOTTOM, x)),
                         _call(_softplus, lambda x: ia.increasing(_softplus, x, 2 * ia.SMOOTH)), _standardize, _scan))
