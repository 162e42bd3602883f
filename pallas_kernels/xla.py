"""The scans in plain XLA with a hand-written backward pass: the default on CPU, and available on every platform.

Loops read and update slices of the arrays (b, L, ...) in place: moving L to the front costs more than the scan itself, and `unroll` or
autodiff of `lax.scan` are 2-4 times slower on CPU.

* N = 1: one loop per pass stores every state; step size, products and D skip are vectorized outside of the loop.
* N > 1: the states of a segment of about sqrt(L) steps are recomputed from its first one, so that no (b, L, D, N) array exists. Each state is an array
  (b, D) of its own: a loop over arrays (N, b, D) takes 4 to 7 times as long.
"""
import math

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels import cross, reference
from pallas_kernels.arguments import (
    Arguments,
    at,
    channel_sum,
    grouped,
    put,
    softplus_slope,
    step_size,
    ungrouped,
    widened,
)
from pallas_kernels.autodiff import differentiable, differentiable_recurrence

TOGETHER = 4  # states of one loop, whose body is written out for each; a loop around it goes through the others


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    return differentiable(forward, backward, reference.selective_scan, options)(widened(args)).astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`."""
    return cross.lean(_forward_keeping_states, backward, reference.cross_selective_scan, options)(widened(args)).astype(options.out_dtype)


def linear_scan(a, b, options):
    """Every state of h_t = a_t h_{t-1} + b_t."""
    return differentiable_recurrence(linear_states, options)(a, b)


def forward(args, options):
    """(y, saved): saved holds every state for N = 1, the state before each segment for N > 1."""
    return (_forward_stored if args.A.shape[1] == 1 else _forward_segmented)(args, options)


def _forward_keeping_states(args, options):
    """`forward` without the step sizes in saved; `backward` recomputes them."""
    y, saved = forward(args, options)
    return y, (saved[0], None) if args.A.shape[1] == 1 else saved


def backward(args, saved, dy, options):
    """Cotangents of args, given that of y in their dtype."""
    return (_backward_stored if args.A.shape[1] == 1 else _backward_segmented)(args, saved, dy, options)


def _group_view(args, options):
    """u and dt (b, L, G, D/G), A (N, 1, G, D/G), B and C unchanged."""
    groups = args.B.shape[2]
    dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    return grouped(args.u, groups), grouped(dt, groups), grouped(args.A.T, groups)[:, None], args.B, args.C


def _add_skip(y, args):
    return y if args.D is None else y + args.D * args.u


def _clock(length, reverse):
    """Function from step i of the loop to the position; unsigned, because a signed index costs a comparison with 0 at every read."""
    last = np.uint32(length - 1)
    return (lambda i: last - i.astype(jnp.uint32)) if reverse else (lambda i: i.astype(jnp.uint32))


def _cotangents(args, options, du, ddt, dA, dB, dC, dy, dt):
    """Cotangents of the arguments from those of the scan without D, bias and softplus, each in its argument's shape."""
    if options.delta_softplus:
        ddt = ddt * softplus_slope(dt)
    if args.D is not None:
        du = du + args.D * dy
    return Arguments(u=du, delta=ddt, A=dA, B=dB, C=dC,
                     D=None if args.D is None else (dy * args.u).sum((0, 1)),
                     delta_bias=None if args.delta_bias is None else ddt.sum((0, 1)))


# ---- N = 1: every state stored

def _one_state(args, x):
    """(b, L, D) -> (b, L, G, D/G), and (b, L, G, 1) unchanged; the group axis is dropped if G = 1, because the loop is then faster."""
    groups = args.B.shape[2]
    if x.ndim == 4:
        return x[..., 0] if groups == 1 else x
    return x if groups == 1 else grouped(x, groups)


def _forward_stored(args, options):
    dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    u, d, B, C = (_one_state(args, x) for x in (args.u, dt, args.B, args.C))
    A, time = args.A.reshape(u.shape[2:]), _clock(u.shape[1], options.reverse)

    def step(i, carry):
        h, states = carry
        t = time(i)
        h = jnp.exp(at(d, t) * A) * h + at(d, t) * at(u, t) * at(B, t)
        return h, put(states, h, t)

    _, states = jax.lax.fori_loop(0, u.shape[1], step, (jnp.zeros_like(u[:, 0]), jnp.zeros_like(u)))
    return _add_skip((states * C).reshape(args.u.shape), args), (states, dt)


def _backward_stored(args, saved, dy, options):
    states, dt = saved
    if dt is None:
        dt = step_size(args.delta, args.delta_bias, options.delta_softplus)
    u, d, B, C, gy = (_one_state(args, x) for x in (args.u, dt, args.B, args.C, dy))
    A, time = args.A.reshape(u.shape[2:]), _clock(u.shape[1], not options.reverse)

    def step(i, carry):                                                # g_t = C_t dy_t + exp(dt_{t+1} A) g_{t+1}, against the scan's direction
        adjoint, adjoints = carry
        t = time(i)
        g = adjoint + at(gy, t) * at(C, t)
        return jnp.exp(at(d, t) * A) * g, put(adjoints, g, t)

    _, g = jax.lax.fori_loop(0, u.shape[1], step, (jnp.zeros_like(u[:, 0]), jnp.zeros_like(u)))
    dlog = g * (states - d * u * B)           # cotangent of dt_t A; the state before, decayed, without a second exponential
    dinput = g * B                            # cotangent of dt_t u_t
    whole = lambda x: x.reshape(args.u.shape)
    return _cotangents(args, options, whole(dinput * d), whole(dlog * A + dinput * u), (dlog * d).sum((0, 1)).reshape(args.A.shape),
                       channel_sum(g * d * u).reshape(args.B.shape), channel_sum(gy * states).reshape(args.B.shape), dy, dt)


# ---- N > 1: states recomputed per segment

def _segments(L):
    """(segment length, number of segments); the last one may be short."""
    length = max(1, math.isqrt(max(L - 1, 0)) + 1)
    return length, -(-L // length)


def _one_by_one(x):
    """(b, G, N) -> N arrays (b, G, 1)."""
    return [x[..., n:n + 1] for n in range(x.shape[-1])]


def _bunch(states):
    """How many states one loop has: the largest divisor of their number up to `TOGETHER`."""
    return max(n for n in range(1, min(states, TOGETHER) + 1) if states % n == 0)


def _split(A, B, C):
    """A (N, ...), B and C (b, L, G, N) with the bunches of states as their first axis."""
    size = _bunch(len(A))
    by_bunch = lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], -1, size), -2, 0)
    return A.reshape(-1, size, *A.shape[1:]), by_bunch(B), by_bunch(C)


def _joined(x):
    """(bunches, b, L, G, n) -> (b, L, G, N): the inverse of `_split`."""
    return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1)


def _advance(h, d, x, A, B):
    return tuple(jnp.exp(d * A[n]) * h[n] + x * b for n, b in enumerate(_one_by_one(B)))


def _forward_segmented(args, options):
    u, dt, A, B, C = _group_view(args, options)

    def bunch(y, inputs):
        more, saved = _forward_bunch(u, dt, *inputs, options)
        return y + more, saved

    y, saved = jax.lax.scan(bunch, jnp.zeros_like(u), _split(A, B, C))
    return _add_skip(ungrouped(y), args), saved            # saved: a bunch's states, each (bunches, segments, b, G, D/G)


def _forward_bunch(u, dt, A, B, C, options):
    """(y of these states, their values before each segment)."""
    L = u.shape[1]
    length, count = _segments(L)
    time = _clock(L, options.reverse)

    def segment(carry, s):
        before = carry[0]

        def step(i, carry):
            h, y = carry
            t = time(i)
            d = at(dt, t)
            h = _advance(h, d, d * at(u, t), A, at(B, t))
            return h, put(y, sum(state * c for state, c in zip(h, _one_by_one(at(C, t)), strict=True)), t)

        return jax.lax.fori_loop(s * length, jnp.minimum((s + 1) * length, L), step, carry), before

    start = (jnp.zeros_like(u[:, 0]),) * len(A), jnp.zeros_like(u)
    (_, y), saved = jax.lax.scan(segment, start, jnp.arange(count))
    return y, saved


def _backward_segmented(args, saved, dy, options):
    u, dt, A, B, C = _group_view(args, options)
    gy = grouped(dy, B.shape[2])

    def bunch(sums, inputs):
        *arrays, before = inputs
        dA, du, ddt, dB, dC = _backward_bunch(u, dt, *arrays, before, gy, options)
        return (sums[0] + du, sums[1] + ddt), (dA, dB, dC)

    (du, ddt), (dA, dB, dC) = jax.lax.scan(bunch, (jnp.zeros_like(u), jnp.zeros_like(u)), (*_split(A, B, C), saved))
    return _cotangents(args, options, ungrouped(du), ungrouped(ddt), ungrouped(dA.reshape(-1, *dA.shape[2:])).T, _joined(dB), _joined(dC), dy, ungrouped(dt))


def _backward_bunch(u, dt, A, B, C, saved, gy, options):
    """Cotangents (dA (N, G, D/G), du, ddt, dB, dC) of these states' part of the scan."""
    L, N = u.shape[1], len(A)
    length, count = _segments(L)
    time = _clock(L, options.reverse)

    def segment(carry, inputs):
        s, before = inputs
        first, steps = s * length, jnp.minimum(length, L - s * length)

        def recompute(i, states):                               # states[n][i] is state n before step i of the segment
            t = time(first + i)
            d = at(dt, t)
            after = _advance([state[i] for state in states], d, d * at(u, t), A, at(B, t))
            return tuple(jax.lax.dynamic_update_index_in_dim(state, h, i + 1, 0) for state, h in zip(states, after, strict=True))

        states = tuple(jax.lax.dynamic_update_index_in_dim(jnp.zeros((length + 1, *h.shape), u.dtype), h, 0, 0) for h in before)
        states = jax.lax.fori_loop(0, steps, recompute, states)

        def step(j, carry):
            adjoints, dA, (du, ddt, dB, dC) = carry
            i = steps - 1 - j
            t = time(first + i)
            x, d, cy, b, c = at(u, t), at(dt, t), at(gy, t), _one_by_one(at(B, t)), _one_by_one(at(C, t))
            g = [adjoints[n] + cy * c[n] for n in range(N)]
            adjoints = tuple(jnp.exp(d * A[n]) * g[n] for n in range(N))
            dlog = [adjoints[n] * states[n][i] for n in range(N)]                    # cotangent of d A
            dinput = sum(g[n] * b[n] for n in range(N))                              # cotangent of d x
            rows = lambda each: jnp.concatenate([channel_sum(z) for z in each], -1)
            outs = (put(du, dinput * d, t), put(ddt, sum(dlog[n] * A[n] for n in range(N)) + dinput * x, t),
                    put(dB, rows(g[n] * (d * x) for n in range(N)), t), put(dC, rows(states[n][i + 1] * cy for n in range(N)), t))
            return adjoints, tuple(dA[n] + dlog[n] * d for n in range(N)), outs

        return jax.lax.fori_loop(0, steps, step, carry), None

    zeros = jnp.zeros_like
    none = (zeros(u[:, 0]),) * N
    (_, dA, (du, ddt, dB, dC)), _ = jax.lax.scan(segment, (none, none, (zeros(u), zeros(u), zeros(B), zeros(C))), (jnp.arange(count), saved),
                                                 reverse=True)
    return jnp.stack([each.sum(0) for each in dA]), du, ddt, dB, dC


# ---- first-order recurrence

def linear_states(a, b, options):
    """Every state h_t; not differentiable by itself."""
    time = _clock(b.shape[1], options.reverse)

    def step(i, carry):
        h, states = carry
        t = time(i)
        h = at(a, t) * h + at(b, t)
        return h, put(states, h, t)

    return jax.lax.fori_loop(0, b.shape[1], step, (jnp.zeros_like(b[:, 0]), jnp.zeros_like(b)))[1]
