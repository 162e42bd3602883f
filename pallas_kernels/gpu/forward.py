"""The forward pass of the selective scan on NVIDIA GPUs, and what its backward shares with it."""
import types

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.arguments import SOFTPLUS_THRESHOLD
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.tiles import clock, from_rows, launch, march, narrow, over_rows, plan, to_rows, widen


def step_size_and_slope(raw, softplus):
    """(dt, its derivative) from delta + bias; arguments.step_size with what Mosaic GPU has: log(1 + e) without its rounding near 1."""
    if not softplus:
        return raw, None
    e = jnp.exp(jnp.minimum(raw, SOFTPLUS_THRESHOLD))
    w = 1.0 + e
    dt = jnp.where(w == 1.0, e, jnp.log(w) * (e / (w - 1.0)))
    beyond = raw > SOFTPLUS_THRESHOLD
    return jnp.where(beyond, raw, dt), jnp.where(beyond, 1.0, e / w)


def rows_of(args):
    """(plan, arguments as kernels read them): u, delta (rows, steps, channels), B, C (rows, steps, G, N), the rest (..., 4, channels)."""
    batch, length, channels = args.u.shape
    groups, state = args.B.shape[2:]
    p = plan(batch, length, groups, channels // groups, state)
    shared = lambda x: None if x is None else over_rows(x, p)
    return p, types.SimpleNamespace(
        u=to_rows(widen(args.u, p), p), delta=to_rows(widen(args.delta, p), p), A=shared(args.A.T),
        B=to_rows(args.B.astype(jnp.float32), p), C=to_rows(args.C.astype(jnp.float32), p), D=shared(args.D), bias=shared(args.delta_bias))


def forward(args, options):
    """(y, saved): the state before each segment, and of chunks that were carried their total decay."""
    p, x = rows_of(args)
    entry = decay = None
    if p.chunks > 1:
        end, decay = chunk_ends(p, x.u, x.delta, x.B, x, options, adjoint=False)
        (entry,) = carried((decay,), (end,), p, options)
    y, saved = _states(p, x, entry, options)
    return narrow(from_rows(y, p), p), (saved, decay)


def chunk_ends(p, source, delta, V, x, options, adjoint):
    """Each chunk's end when begun at zero, and its total decay exp(A sum dt), both (rows, N, channels).

    Of the states h = exp(dt A) h + dt V source, or, against the scan's direction, of the messages g = exp(dt A) (g + V source).
    """
    count, time = x.A.shape[0], clock(p, options.reverse != adjoint)

    def body(tile, refs):
        rows, columns = tile.rows, tile.columns
        A = [tile.read(refs.A, n, slice(None), columns) for n in range(count)]
        bias = None if refs.bias is None else tile.read(refs.bias, slice(None), columns)

        def fetch(i):
            t = time(i)
            return (tile.raw(refs.source, rows, t, columns), tile.raw(refs.delta, rows, t, columns),
                    [tile.each(refs.V, rows, t, tile.group, n) for n in range(count)] if count <= 2 else None)

        def step(i, held, carry):
            h, total = carry
            source, delta, V = held
            V = V or [tile.each(refs.V, rows, time(i), tile.group, n) for n in range(count)]
            delta = delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, options.delta_softplus)
            z = source.astype(jnp.float32) * (1.0 if adjoint else dt)
            if adjoint:
                h = [jnp.exp(dt * A[n]) * (h[n] + z * tile.spread(V[n])) for n in range(count)]
            else:
                h = [jnp.exp(dt * A[n]) * h[n] + z * tile.spread(V[n]) for n in range(count)]
            return h, total + dt

        h, total = march(p.steps, fetch, step, ([tile.zeros() for _ in range(count)], tile.zeros()), p.ahead)
        for n in range(count):
            tile.write(refs.end, rows, n, columns, h[n])
            tile.write(refs.decay, rows, n, columns, jnp.exp(total * A[n]))

    shape = (p.rows, count, p.channels), jnp.float32
    out = launch(body, p, options.interpret, dict(source=source, delta=delta, V=V, A=x.A, bias=x.bias), dict(end=shape, decay=shape))
    return out["end"], out["decay"]


def _states(p, x, entry, options):
    """y (rows, steps, channels) and the state before each segment (rows, segments, N, channels)."""
    count, time = x.A.shape[0], clock(p, options.reverse)

    def body(tile, refs):
        rows, columns = tile.rows, tile.columns
        A = [tile.read(refs.A, n, slice(None), columns) for n in range(count)]
        bias = None if refs.bias is None else tile.read(refs.bias, slice(None), columns)
        D = None if refs.D is None else tile.read(refs.D, slice(None), columns)
        maps = lambda t: [[tile.each(ref, rows, t, tile.group, n) for n in range(count)] for ref in (refs.B, refs.C)]

        def fetch(i):
            t = time(i)
            return tile.raw(refs.u, rows, t, columns), tile.raw(refs.delta, rows, t, columns), maps(t) if count <= 2 else None

        def save(i, h):
            @pl.when(jax.lax.rem(i, p.segment) == 0)
            def _():
                for n in range(count):
                    tile.write(refs.saved, rows, jax.lax.div(i, p.segment), n, columns, h[n])

        def step(i, held, h):
            u, delta, BC = held
            B, C = BC or maps(time(i))
            u, delta = u.astype(jnp.float32), delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, options.delta_softplus)
            z, y = dt * u, None if D is None else D * u
            new = []
            for n in range(count):
                new.append(jnp.exp(dt * A[n]) * h[n] + z * tile.spread(B[n]))
                term = new[n] * tile.spread(C[n])
                y = term if y is None else y + term
            tile.write(refs.y, rows, time(i), columns, y)
            return new

        start = [tile.zeros() if refs.entry is None else tile.read(refs.entry, rows, n, columns) for n in range(count)]
        march(p.steps, fetch, step, start, p.ahead, save)

    inputs = dict(u=x.u, delta=x.delta, A=x.A, B=x.B, C=x.C, D=x.D, bias=x.bias, entry=entry)
    out = launch(body, p, options.interpret, inputs, dict(y=((p.rows, p.steps, p.channels), jnp.dtype(options.out_dtype)),
                                                          saved=((p.rows, p.segments, count, p.channels), jnp.float32)))
    return out["y"], out["saved"]
