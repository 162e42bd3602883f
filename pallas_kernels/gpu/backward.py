"""Backward pass of the selective scan of one state per channel on NVIDIA GPUs.

Every program walks its tile's segments against the scan's direction: it recomputes a segment's states into shared memory from the saved
one, then sweeps back. At each step g = C dy + adjoint is the cotangent of the state, and exp(dt A) g is the adjoint that enters the step
before. Chunks are joined as in the forward pass: first their adjoints when begun at zero, then a carry.

dB and dC are sums over a group's channels: each tile stores its own, one float each per row and step (2 / width of u's traffic), and XLA
adds them.
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels.arguments import Arguments
from pallas_kernels.gpu.forward import LOG2_E, STATIC, chunk_ends, rows_of, step_size_and_slope
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.plan import ROWS
from pallas_kernels.gpu.tiles import clock, direction, from_rows, launch, narrow, owned_channels, pipelined_loop, to_rows, widen


def backward(args, saved, dy, options):
    """Cotangents of args, each in its argument's dtype and shape."""
    states, decay = saved
    p, x = rows_of(args)
    dy = to_rows(widen(dy, p), p)
    adjoint = None
    if p.chunks > 1:
        end, _ = chunk_ends(p, dy, x, options, adjoint=True)
        (adjoint,) = carried((decay,), (end,), p, options._replace(reverse=not options.reverse))
    out = sweep(direction(options.reverse), x, dy, states, adjoint, p=p, softplus=options.delta_softplus, interpret=options.interpret)

    sequence = lambda x, like: narrow(from_rows(x, p), p).astype(like.dtype)
    dB, dC = jnp.split(from_rows(out["dBC"].sum(0), p), 2, -1)
    each = lambda x, like: None if like is None else narrow(x.sum(0), p).astype(like.dtype)
    return Arguments(u=sequence(out["du"], args.u), delta=sequence(out["ddelta"], args.delta),
                     A=narrow(out["dA"].sum(0), p).T.astype(args.A.dtype), B=dB.astype(args.B.dtype), C=dC.astype(args.C.dtype),
                     D=each(out.get("dD"), args.D), delta_bias=each(out.get("dbias"), args.delta_bias))


@functools.partial(jax.jit, static_argnames=STATIC)
def sweep(direction, x, dy, states, incoming, *, p, softplus, interpret):
    """Name -> cotangent, as the tiles store them; `incoming`: the adjoint (rows, 1, channels) that enters each chunk; None: zero."""

    def body(tile, refs):
        rows, columns, group, clocked = tile.rows, tile.columns, tile.group, clock(refs.direction, p, tile.group)
        u_columns = columns if p.map is None else tile.shared_columns
        shared = lambda ref: None if ref is None else tile.load_float(ref, slice(None), columns)
        bias, D, owned = shared(refs.bias), shared(refs.D), None if refs.owned is None else tile.load_float(refs.owned, tile.index)
        counted = lambda x: x if owned is None else x * owned          # of two tiles that hold a channel, one sums it

        def step_size(delta):
            delta = delta.astype(jnp.float32)
            return step_size_and_slope(delta if bias is None else delta + bias, softplus)

        def finish(t, u, delta, dy, gB, gA, carry):
            """Store du and ddelta of a step, given g B and A log2(e) times the cotangent of dt A."""
            dt, slope = step_size(delta)
            dD, dbias = carry
            du, ddelta = gB * dt, gA * (1 / LOG2_E) + gB * u
            ddelta = ddelta if slope is None else ddelta * slope
            tile.store(refs.du, rows, t, columns, du if D is None else du + D * dy)
            tile.store(refs.ddelta, rows, t, columns, ddelta)
            return None if D is None else dD + dy * u, None if bias is None else dbias + ddelta

        def segment(s, steps, carry):
            time = lambda i: clocked(s * p.segment + i)
            load = lambda ref, t: tile.load(ref, rows, t, columns if ref is refs.delta else u_columns)
            value_of = lambda k, t: tile.load_row_values(refs.BC, rows, t, group, k)         # B, C
            adjoint, dA, sums = carry
            A = tile.load_float(refs.A, 0, slice(None), columns)

            tile.sync()

            def fetch_forward(i):
                t = time(i)
                return load(refs.u, t), load(refs.delta, t), value_of(0, t)

            def recompute(i, operands, h):
                u, delta, B = operands
                tile.store(refs.before, i, h)
                dt = step_size(delta)[0]
                return jnp.exp2(dt * A) * h + dt * u.astype(jnp.float32) * tile.spread(B)

            entry = tile.load_float(refs.states, rows, s, 0, columns)
            pipelined_loop(steps, fetch_forward, recompute, entry, p.ahead)

            def fetch_back(j):
                t = time(steps - 1 - j)
                return t, load(refs.u, t), load(refs.delta, t), load(refs.dy, t), value_of(0, t), value_of(1, t)

            def back(j, operands, carried):
                adjoint, dA, sums = carried
                i = steps - 1 - j
                t, u, delta, dy, B, C = operands
                u, dy, dt, B = u.astype(jnp.float32), dy.astype(jnp.float32), step_size(delta)[0], tile.spread(B)
                before, decay = tile.load(refs.before, i), jnp.exp2(dt * A)
                z = dt * u
                g = adjoint + tile.spread(C) * dy
                adjoint = decay * g
                dlog = adjoint * before                            # cotangent of dt A
                gB, gA = g * B, dlog * A
                tile.store_sum(refs.dBC, tile.index, rows, t, group, 0, counted(g * z))
                tile.store_sum(refs.dBC, tile.index, rows, t, group, 1, counted((decay * before + z * B) * dy))
                sums = finish(t, u, delta, dy, gB, gA, sums)
                return adjoint, dA + dlog * dt, sums

            tile.sync()
            return pipelined_loop(steps, fetch_back, back, (adjoint, dA, sums), p.ahead // 2)     # most of its loads now hit a cache

        sums = tuple(None if x is None else tile.zeros() for x in (D, bias))
        carry = (tile.zeros() if refs.incoming is None else tile.load_float(refs.incoming, rows, 0, columns)), tile.zeros(), sums
        full, last = divmod(p.steps, p.segment)
        if last:
            carry = segment(full, last, carry)
        if full:
            carry = jax.lax.fori_loop(0, full, lambda k, carry: segment(full - 1 - k, p.segment, carry), carry)

        _, dA, (dD, dbias) = carry
        tile.store(refs.dA, rows, 0, columns, dA)
        if D is not None:
            tile.store(refs.dD, rows, columns, dD)
        if bias is not None:
            tile.store(refs.dbias, rows, columns, dbias)

    sequence, each = (p.rows, p.steps, p.channels), ((p.rows, p.channels), jnp.float32)
    maps = (p.tiles, p.rows, p.steps, p.groups, 2), jnp.float32
    rates = (p.rows, 1, p.channels), jnp.float32
    outputs = dict(du=(sequence, x.u.dtype), ddelta=(sequence, x.delta.dtype), dA=rates, dBC=maps)
    outputs |= ({} if x.D is None else dict(dD=each)) | ({} if x.bias is None else dict(dbias=each))
    scratch = dict(before=(min(p.segment, p.steps), ROWS, p.width))
    inputs = dict(direction=direction, u=x.u, delta=x.delta, dy=dy, A=x.A, BC=x.BC, D=x.D, bias=x.bias, states=states,
                  incoming=incoming, owned=_owned(p))
    return launch(body, p, interpret, inputs, outputs, scratch)


def _owned(p):
    """`owned_channels` in the shape of a tile."""
    owned = owned_channels(p)
    return None if owned is None else jnp.broadcast_to(owned[:, None], (p.tiles, ROWS, p.width))
