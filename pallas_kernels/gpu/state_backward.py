"""Backward pass of the selective scan of several states per channel on NVIDIA GPUs.

A program walks over its blocks against the scan's direction. From the saved state it computes a half block's decayed states exp(dt A) h into
shared memory, then sweeps back: g = C dy + adjoint is the cotangent of a state, and exp(dt A) g is the adjoint that enters the step before.
The second half of a block comes first; its states need the first half's, which are therefore computed twice. Chunks are joined as in the
forward pass: first their adjoints when begun at zero, then a carry.

After every quad, whole warps add what lies in shared memory: over the states of a channel for du and ddelta, and over the program's 32 channels
for dB and dC. Each tile stores its own dB and dC, 2 N / 32 of u's numbers in float32, and XLA adds them.
"""
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.arguments import Arguments
from pallas_kernels.gpu.forward import LOG2_E, STATIC
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.plan import BLOCK, LANES, QUAD, SPLIT
from pallas_kernels.gpu.state_forward import block_scratch, chunk_ends, rows_of, step_sizes
from pallas_kernels.gpu.state_tiles import StateTile, join_states, without_padding
from pallas_kernels.gpu.tiles import direction, from_rows, launch, narrow, owned_channels, to_rows, widen

HALF = BLOCK // 2 // QUAD       # quads of which shared memory holds the states


def backward(args, saved, dy, options):
    """Cotangents of args, each in its argument's dtype and shape."""
    states, decay = saved
    p, x = rows_of(args)
    count = args.A.shape[-1]
    dy = to_rows(widen(dy, p), p)
    adjoint = None
    if p.chunks > 1:
        end, _ = chunk_ends(p, dy, x, options, adjoint=True)
        (adjoint,) = carried((decay,), (end,), p, options._replace(reverse=not options.reverse))
    out = sweep(direction(options.reverse), x, dy, states, adjoint, p=p, softplus=options.delta_softplus, interpret=options.interpret)

    sequence = lambda x: from_rows(without_padding(x, p), p)
    stream = lambda x, like: narrow(sequence(x), p).astype(like.dtype)
    each = lambda x, like: None if like is None else narrow(x.sum((0, 1)), p).astype(like.dtype)
    dB, dC = (join_states(sequence(x), count) for x in jnp.moveaxis(out["dBC"].sum(0), -3, 0))
    dA = narrow(jnp.moveaxis(join_states(out["dA"].sum(0), count), -1, 0), p).T
    return Arguments(u=stream(out["du"], args.u), delta=stream(out["ddelta"], args.delta), A=dA.astype(args.A.dtype), B=dB.astype(args.B.dtype),
                     C=dC.astype(args.C.dtype), D=each(out.get("dD"), args.D), delta_bias=each(out.get("dbias"), args.delta_bias))


@functools.partial(jax.jit, static_argnames=STATIC)
def sweep(direction, x, dy, states, incoming, *, p, softplus, interpret):
    """Name -> cotangent, as the tiles store them; `incoming`: the adjoint (rows, channels, 4, n) that enters each chunk; None: zero."""
    steps = min(p.padded, BLOCK if p.part < 4 else HALF * QUAD)      # whose states fit: 32 KB
    single = steps == min(p.padded, BLOCK)

    def body(tile, refs):
        row, columns, group, reverse, A = tile.row, tile.columns, tile.group, refs.direction[0], tile.load("state", refs.A, tile.columns)
        bias, D = (None if ref is None else tile.load("tile", ref, slice(None), columns) for ref in (refs.bias, refs.D))
        owned = None if refs.owned is None else tile.load("channel", refs.owned, tile.index)

        def fetch(b):
            streams = [tile.fetch(b, lambda t, ref=ref: tile.load("tile", ref, row, t, columns)) for ref in (refs.u, refs.delta, refs.dy)]
            return *streams, tile.fetch(b, lambda t: tile.load("values", refs.BC, row, t, group)), tile.load("state", refs.states, row, b, columns)

        def visit(b, operands, carry):
            us, deltas, dys, BC, entry = operands
            sizes = step_sizes(deltas, bias, softplus)
            kept = [refs.dt, refs.u_kept, refs.dy_kept, *([refs.slope] if softplus else [])]
            tile.clear(b, *kept, refs.maps)
            tile.put(b, refs.dt, [dt for dt, _ in sizes])
            tile.put(b, refs.u_kept, [u.astype(jnp.float32) for u in us])
            tile.put(b, refs.dy_kept, [dy.astype(jnp.float32) for dy in dys])
            if softplus:
                tile.put(b, refs.slope, [slope for _, slope in sizes])
            tile.put(b, refs.maps, BC)
            tile.sync()
            quads = tile.quads(b)

            def recompute(k, order, start, h):
                """The state after a quad; decayed states are stored if `start`, the first quad of the half in memory, is not None."""
                places = [k * QUAD + j for j in order]
                operands = [(tile.load("channel", refs.dt, tile.lead + i), tile.load("channel", refs.u_kept, tile.lead + i),
                             tile.load("maps", refs.maps, tile.lead + i, 0)) for i in places]
                for i, (dt, u, B) in zip(places, operands, strict=True):
                    decayed = jnp.exp2(tile.spread(dt) * A) * h
                    if start is not None:
                        tile.store(refs.decayed, i - start * QUAD, decayed)
                    h = decayed + tile.spread(dt * u) * tile.spread(B)
                return h

            def back(k, order, start, carry):
                adjoint, dA, sums = carry
                places = [k * QUAD + j for j in order[::-1]]
                operands = [([tile.load("channel", ref, tile.lead + i) for ref in (refs.dt, refs.u_kept, refs.dy_kept)],
                             [tile.load("maps", refs.maps, tile.lead + i, side) for side in (0, 1)],
                             tile.load("state", refs.decayed, i - start * QUAD)) for i in places]
                for j, ((dt, u, dy), (B, C), decayed) in zip(order[::-1], operands, strict=True):
                    z = dt * u
                    g = adjoint + tile.spread(dy) * tile.spread(C)
                    dlog = g * decayed                                 # cotangent of dt A
                    h = decayed + tile.spread(z) * tile.spread(B)
                    counted = (z, dy) if owned is None else (z * owned, dy * owned)    # of two tiles that hold a channel, one sums it
                    tile.store(refs.terms, j, 0, g * tile.spread(counted[0]))
                    tile.store(refs.terms, j, 1, h * tile.spread(counted[1]))
                    tile.store(refs.gB, j, tile.sum(g * tile.spread(B), 2, "part"))
                    tile.store(refs.gA, j, tile.sum(dlog * A, 2, "part"))
                    dA = dA + dlog * tile.spread(dt)
                    adjoint = jnp.exp2(tile.spread(dt) * A) * g
                tile.sync()
                sums = finish(k, sums)
                tile.sync()
                return adjoint, dA, sums

            def finish(k, sums):
                """Store the sums of a quad."""
                place, time = pl.ds(tile.lead + k * QUAD, QUAD), pl.ds(b * BLOCK + k * QUAD, QUAD)
                tile.store(refs.dBC, tile.index, row, time, group, tile.sum(tile.load("terms", refs.terms), 2, "sums"))
                sum_gB, sum_gA = (tile.sum(tile.load("parts", ref), 2, "tile") for ref in (refs.gB, refs.gA))
                dt, u, dy = (tile.load("tile", ref, place) for ref in (refs.dt, refs.u_kept, refs.dy_kept))
                du, ddelta = sum_gB * dt, sum_gA * (1 / LOG2_E) + sum_gB * u
                ddelta = ddelta * tile.load("tile", refs.slope, place) if softplus else ddelta
                tile.store(refs.du, row, time, columns, du if D is None else du + D * dy)
                tile.store(refs.ddelta, row, time, columns, ddelta)
                dD, dbias = sums
                return None if D is None else dD + dy * u, None if bias is None else dbias + ddelta

            def walk(forth, carry):
                """Both halves, by a loop for either direction: places that a loop must compute cost a fifth of its instructions."""
                order = range(QUAD) if forth else range(QUAD)[::-1]
                at = lambda t: t if forth else quads - 1 - t

                def half(part, carry):
                    first, last = (0, quads) if single else (_least(part * HALF, quads), _least((part + 1) * HALF, quads))
                    start = first if forth else quads - last
                    h = entry if single else jax.lax.fori_loop(0, first, lambda t, h: recompute(at(t), order, None, h), entry)
                    jax.lax.fori_loop(first, last, lambda t, h: recompute(at(t), order, start, h), h)
                    return jax.lax.fori_loop(0, last - first, lambda i, carry: back(at(last - 1 - i), order, start, carry), carry)
                return half(0, carry) if single else jax.lax.fori_loop(0, 2, lambda i, carry: half(1 - i, carry), carry)
            return jax.lax.cond(reverse == 0, functools.partial(walk, True), functools.partial(walk, False), carry)

        sums = tuple(None if x is None else tile.zeros("tile") for x in (D, bias))
        adjoint = tile.zeros("state") if refs.incoming is None else tile.load("state", refs.incoming, row, columns)
        _, dA, (dD, dbias) = tile.blocks(1 - reverse, fetch, visit, (adjoint, tile.zeros("state"), sums))
        tile.store(refs.dA, row, columns, dA)
        if D is not None:
            tile.store(refs.dD, row, slice(None), columns, dD)
        if bias is not None:
            tile.store(refs.dbias, row, slice(None), columns, dbias)

    sequence, each = (p.rows, p.padded, p.channels), ((p.rows, QUAD, p.channels), jnp.float32)
    outputs = dict(du=(sequence, x.u.dtype), ddelta=(sequence, x.delta.dtype), dA=((p.rows, p.channels, SPLIT, p.part), jnp.float32),
                   dBC=((p.tiles, p.rows, p.padded, p.groups, 2, SPLIT, p.part), jnp.float32))
    outputs |= ({} if x.D is None else dict(dD=each)) | ({} if x.bias is None else dict(dbias=each))
    streams = ["dt", "u_kept", "dy_kept", *(["slope"] if softplus else [])]
    parts = (QUAD, LANES, SPLIT)
    scratch = block_scratch(p, *streams) | dict(decayed=(steps, LANES, SPLIT, p.part), terms=(QUAD, 2, LANES, SPLIT, p.part), gB=parts, gA=parts)
    inputs = dict(direction=direction, u=x.u, delta=x.delta, dy=dy, A=x.A, BC=x.BC, D=x.D, bias=x.bias, states=states,
                  incoming=incoming, owned=owned_channels(p))
    return launch(body, p, interpret, inputs, outputs, scratch, StateTile)


def _least(a, b):
    """The smaller one, known to the compiler if both are."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else jnp.minimum(a, b)
