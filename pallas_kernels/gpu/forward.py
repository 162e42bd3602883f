"""Forward pass of the selective scan on NVIDIA GPUs, and what the backward pass shares with it."""
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.arguments import softplus_and_slope
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.tiles import clock, direction, from_rows, launch, narrow, over_rows, pipelined_loop, plan, to_rows, widen

LOG2_E = math.log2(math.e)
STATIC = ("p", "softplus", "interpret")      # static arguments of a kernel: equal calls share one jaxpr and one lowered function


class RowArguments(NamedTuple):
    """Arrays as the kernels load them; D and bias may be None."""
    u: jax.Array             # (rows, steps, channels)
    delta: jax.Array         # (rows, steps, channels)
    A: jax.Array             # (N, 4, channels), times log2(e): a decay is exp2(dt A)
    B: jax.Array             # (rows, steps, G, N)
    C: jax.Array             # (rows, steps, G, N)
    D: jax.Array | None      # (4, channels)
    bias: jax.Array | None   # (4, channels)


def step_size_and_slope(raw, softplus):
    """(dt, its derivative) from delta + bias; without softplus the derivative is None, which stands for 1."""
    return softplus_and_slope(raw) if softplus else (raw, None)


def rows_of(args):
    """(`Plan`, `RowArguments`) of a scan's `Arguments`."""
    batch, length, channels = args.u.shape
    groups, state = args.B.shape[2:]
    p = plan(batch, length, groups, channels // groups, state)
    shared = lambda x: None if x is None else over_rows(x, p)
    return p, RowArguments(
        u=to_rows(widen(args.u, p), p), delta=to_rows(widen(args.delta, p), p), A=shared(args.A.T.astype(jnp.float32) * LOG2_E),
        B=to_rows(args.B.astype(jnp.float32), p), C=to_rows(args.C.astype(jnp.float32), p), D=shared(args.D), bias=shared(args.delta_bias))


def forward(args, options):
    """(y, saved): the state before each segment, and each chunk's total decay (None for a single chunk)."""
    p, x = rows_of(args)
    entry = decay = None
    if p.chunks > 1:
        end, decay = chunk_ends(p, x.u, x.delta, x.B, x, options, adjoint=False)
        (entry,) = carried((decay,), (end,), p, options)
    y, saved = _states(direction(options.reverse), x, entry, p=p, softplus=options.delta_softplus, out_dtype=options.out_dtype,
                       interpret=options.interpret)
    return narrow(from_rows(y, p), p), (saved, decay)


def chunk_ends(p, source, delta, V, x, options, adjoint):
    """Each chunk's end when begun at zero, and its total decay exp(A sum dt), both (rows, N, channels).

    Args:
        p: the `Plan`.
        source, delta: (rows, steps, channels).
        V: (rows, steps, G, N).
        x: `RowArguments`, of which A and bias are used.
        options: the scan's `Options`.
        adjoint: False: states h = exp(dt A) h + dt V source; True: adjoints g = exp(dt A) (g + V source), against the scan's direction.
    """
    return _chunk_ends(direction(options.reverse != adjoint), source, delta, V, x.A, x.bias, p=p, softplus=options.delta_softplus,
                       interpret=options.interpret, adjoint=adjoint)


@functools.partial(jax.jit, static_argnames=(*STATIC, "adjoint"))
def _chunk_ends(direction, source, delta, V, A, bias, *, p, softplus, interpret, adjoint):
    count = A.shape[0]

    def body(tile, refs):
        rows, columns, time = tile.rows, tile.columns, clock(refs.direction, p)
        A = [tile.load_float(refs.A, n, slice(None), columns) for n in range(count)]
        bias = None if refs.bias is None else tile.load_float(refs.bias, slice(None), columns)
        values = lambda t: [tile.load_row_values(refs.V, rows, t, tile.group, n) for n in range(count)]

        def fetch(i):
            t = time(i)
            return tile.load(refs.source, rows, t, columns), tile.load(refs.delta, rows, t, columns), values(t) if count <= 2 else None

        def step(i, operands, carry):
            h, total = carry
            source, delta, V = operands
            V = V or values(time(i))
            delta = delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, softplus)
            z = source.astype(jnp.float32) * (1.0 if adjoint else dt)
            if adjoint:
                h = [jnp.exp2(dt * A[n]) * (h[n] + z * tile.spread(V[n])) for n in range(count)]
            else:
                h = [jnp.exp2(dt * A[n]) * h[n] + z * tile.spread(V[n]) for n in range(count)]
            return h, total + dt

        h, total = pipelined_loop(p.steps, fetch, step, ([tile.zeros() for _ in range(count)], tile.zeros()), p.ahead)
        for n in range(count):
            tile.store(refs.end, rows, n, columns, h[n])
            tile.store(refs.decay, rows, n, columns, jnp.exp2(total * A[n]))

    shape = (p.rows, count, p.channels), jnp.float32
    inputs = dict(direction=direction, source=source, delta=delta, V=V, A=A, bias=bias)
    out = launch(body, p, interpret, inputs, dict(end=shape, decay=shape))
    return out["end"], out["decay"]


@functools.partial(jax.jit, static_argnames=(*STATIC, "out_dtype"))
def _states(direction, x, entry, *, p, softplus, out_dtype, interpret):
    """y (rows, steps, channels) and the state before each segment (rows, segments, N, channels)."""
    count = x.A.shape[0]

    def body(tile, refs):
        rows, columns, time = tile.rows, tile.columns, clock(refs.direction, p)
        A = [tile.load_float(refs.A, n, slice(None), columns) for n in range(count)]
        bias = None if refs.bias is None else tile.load_float(refs.bias, slice(None), columns)
        D = None if refs.D is None else tile.load_float(refs.D, slice(None), columns)
        maps = lambda t: [[tile.load_row_values(ref, rows, t, tile.group, n) for n in range(count)] for ref in (refs.B, refs.C)]

        def fetch(i):
            t = time(i)
            return tile.load(refs.u, rows, t, columns), tile.load(refs.delta, rows, t, columns), maps(t) if count <= 2 else None

        def save(i, h):
            @pl.when(jax.lax.rem(i, p.segment) == 0)
            def _():
                for n in range(count):
                    tile.store(refs.saved, rows, jax.lax.div(i, p.segment), n, columns, h[n])

        def step(i, operands, h):
            u, delta, BC = operands
            t = time(i)
            B, C = BC or maps(t)
            u, delta = u.astype(jnp.float32), delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, softplus)
            z, y = dt * u, None if D is None else D * u
            new = []
            for n in range(count):
                new.append(jnp.exp2(dt * A[n]) * h[n] + z * tile.spread(B[n]))
                term = new[n] * tile.spread(C[n])
                y = term if y is None else y + term
            tile.store(refs.y, rows, t, columns, y)
            return new

        start = [tile.zeros() if refs.entry is None else tile.load_float(refs.entry, rows, n, columns) for n in range(count)]
        pipelined_loop(p.steps, fetch, step, start, p.ahead, save)

    inputs = dict(direction=direction, u=x.u, delta=x.delta, A=x.A, B=x.B, C=x.C, D=x.D, bias=x.bias, entry=entry)
    out = launch(body, p, interpret, inputs, dict(y=((p.rows, p.steps, p.channels), jnp.dtype(out_dtype)),
                                                  saved=((p.rows, p.segments, count, p.channels), jnp.float32)))
    return out["y"], out["saved"]
