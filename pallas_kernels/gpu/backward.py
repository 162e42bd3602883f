"""The backward pass of the selective scan on NVIDIA GPUs.

Every program walks its tile's segments against the scan: it recomputes a segment's states into shared memory from the saved one, then
sweeps back with the message m = exp(dt A) g that one step's adjoint g = C dy + m hands the step before it. Chunks are joined like the
forward's: first their messages when begun at zero, then a carry. For N > 1 one state after the other runs over the segment, the sums over
states kept in shared memory.

dB and dC are sums over a group's channels: each tile writes its own, one float a row, step and state (2 N / width of u's traffic), and XLA
adds them.
"""
import jax
import jax.numpy as jnp

from pallas_kernels.arguments import Arguments
from pallas_kernels.gpu.forward import chunk_ends, rows_of, step_size_and_slope
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.tiles import AHEAD, ROWS, clock, from_rows, launch, march, narrow, to_rows, widen


def backward(args, saved, dy, options):
    """Cotangents of args, each of its argument's dtype and shape."""
    states, decay = saved
    p, x = rows_of(args)
    dy = to_rows(widen(dy, p), p)
    message = None
    if p.chunks > 1:
        end, _ = chunk_ends(p, dy, x.delta, x.C, x, options, adjoint=True)
        (message,) = carried((decay,), (end,), p, options._replace(reverse=not options.reverse))
    out = _sweep(p, x, dy, states, message, options)

    whole = lambda x, like: narrow(from_rows(x, p), p).astype(like.dtype)
    maps = lambda x, like: from_rows(x.sum(0), p).astype(like.dtype)
    each = lambda x, like: None if like is None else narrow(x.sum(0), p).astype(like.dtype)
    return Arguments(u=whole(out["du"], args.u), delta=whole(out["ddelta"], args.delta),
                     A=narrow(out["dA"].sum(0), p).T.astype(args.A.dtype), B=maps(out["dB"], args.B), C=maps(out["dC"], args.C),
                     D=each(out.get("dD"), args.D), delta_bias=each(out.get("dbias"), args.delta_bias))


def _sweep(p, x, dy, states, message, options):
    count, clocked = x.A.shape[0], clock(p, options.reverse)
    many = count > 1
    ahead = AHEAD if many else p.ahead

    def body(tile, refs):
        rows, columns, group = tile.rows, tile.columns, tile.group
        shared = lambda ref: None if ref is None else tile.read(ref, slice(None), columns)
        bias, D, fresh = shared(refs.bias), shared(refs.D), None if refs.fresh is None else tile.read(refs.fresh, tile.index)
        stored = lambda ref, n: tile.zeros() if ref is None else tile.read(ref, rows, n, columns)
        counted = lambda x: x if fresh is None else x * fresh          # a channel that two tiles hold is summed in one

        def sizes(delta):
            delta = delta.astype(jnp.float32)
            return step_size_and_slope(delta if bias is None else delta + bias, options.delta_softplus)

        def finish(t, u, delta, dy, along, over, carry):
            """du and ddelta of a step from sum_n g B and the sum over n of A's cotangent / dt times A."""
            dt, slope = sizes(delta)
            dD, dbias = carry
            du, ddelta = along * dt, over + along * u
            ddelta = ddelta if slope is None else ddelta * slope
            tile.write(refs.du, rows, t, columns, du if D is None else du + D * dy)
            tile.write(refs.ddelta, rows, t, columns, ddelta)
            return None if D is None else dD + dy * u, None if bias is None else dbias + ddelta

        def segment(s, steps, carry):
            time = lambda i: clocked(s * p.segment + i)
            raw = lambda ref, t: tile.raw(ref, rows, t, columns)
            delta_at = (lambda i: tile.raw(refs.sizes, i)) if many else (lambda i: raw(refs.delta, time(i)))
            size_of = (lambda x: x) if many else (lambda x: sizes(x)[0])

            def state(n, message, dA, carry):
                A = tile.read(refs.A, n, slice(None), columns)
                each = lambda ref, t: tile.each(ref, rows, t, group, n)

                tile.settle()

                def redo(i, held, h):
                    u, delta, B = held
                    tile.write(refs.before, i, h)
                    dt = size_of(delta)
                    return jnp.exp(dt * A) * h + dt * u.astype(jnp.float32) * tile.spread(B)

                entry = tile.read(refs.states, rows, s, n, columns)
                march(steps, lambda i: (raw(refs.u, time(i)), delta_at(i), each(refs.B, time(i))), redo, entry, ahead)

                def fetch(j):
                    i = steps - 1 - j
                    t = time(i)
                    return raw(refs.u, t), delta_at(i), raw(refs.dy, t), each(refs.B, t), each(refs.C, t)

                def back(j, held, walk):
                    message, dA, carry = walk
                    i = steps - 1 - j
                    t = time(i)
                    u, delta, dy, B, C = held
                    u, dy, dt, B = u.astype(jnp.float32), dy.astype(jnp.float32), size_of(delta), tile.spread(B)
                    before, decay = tile.raw(refs.before, i), jnp.exp(dt * A)
                    z = dt * u
                    g = message + tile.spread(C) * dy
                    message = decay * g
                    log = message * before                             # cotangent of dt A
                    along, over = g * B, log * A
                    tile.write_sum(refs.dB, tile.index, rows, t, group, n, counted(g * z))
                    tile.write_sum(refs.dC, tile.index, rows, t, group, n, counted((decay * before + z * B) * dy))
                    if many:
                        tile.write(refs.along, i, tile.raw(refs.along, i) + along)
                        tile.write(refs.over, i, tile.raw(refs.over, i) + over)
                    else:
                        carry = finish(t, u, delta, dy, along, over, carry)
                    return message, dA + log * dt, carry

                tile.settle()
                return march(steps, fetch, back, (message, dA, carry), ahead // 2)     # what it reads is mostly in a cache by now

            if not many:
                return state(0, *carry)

            def prepare(i, delta, _):
                tile.write(refs.sizes, i, sizes(delta)[0])
                tile.write(refs.along, i, tile.zeros())
                tile.write(refs.over, i, tile.zeros())

            march(steps, lambda i: raw(refs.delta, time(i)), prepare, None)

            @pl_loop(count)
            def _(n):
                message, dA, _ = state(n, tile.raw(refs.message, n), tile.raw(refs.sumA, n), None)
                tile.write(refs.message, n, message)
                tile.write(refs.sumA, n, dA)

            tile.settle()

            def conclude(i, held, carry):
                u, delta, dy = held
                u, dy = u.astype(jnp.float32), dy.astype(jnp.float32)
                return finish(time(i), u, delta, dy, tile.raw(refs.along, i), tile.raw(refs.over, i), carry)

            return None, None, march(steps, lambda i: [raw(ref, time(i)) for ref in (refs.u, refs.delta, refs.dy)], conclude, carry[2])

        sums = tuple(None if x is None else tile.zeros() for x in (D, bias))
        if many:
            carry = None, None, sums

            @pl_loop(count)
            def _(n):
                tile.write(refs.message, n, stored(refs.incoming, n))
                tile.write(refs.sumA, n, tile.zeros())
        else:
            carry = stored(refs.incoming, 0), tile.zeros(), sums
        full, last = divmod(p.steps, p.segment)
        if last:
            carry = segment(full, last, carry)
        if full:
            carry = jax.lax.fori_loop(0, full, lambda k, carry: segment(full - 1 - k, p.segment, carry), carry)

        _, dA, (dD, dbias) = carry
        if many:
            pl_loop(count)(lambda n: tile.write(refs.dA, rows, n, columns, tile.raw(refs.sumA, n)))
        else:
            tile.write(refs.dA, rows, 0, columns, dA)
        if D is not None:
            tile.write(refs.dD, rows, columns, dD)
        if bias is not None:
            tile.write(refs.dbias, rows, columns, dbias)

    sequence, each = (p.rows, p.steps, p.channels), ((p.rows, p.channels), jnp.float32)
    maps = (p.tiles, p.rows, p.steps, p.groups, count), jnp.float32
    rates = (p.rows, count, p.channels), jnp.float32
    outputs = dict(du=(sequence, x.u.dtype), ddelta=(sequence, x.delta.dtype), dA=rates, dB=maps, dC=maps)
    outputs |= ({} if x.D is None else dict(dD=each)) | ({} if x.bias is None else dict(dbias=each))
    held, kept = (min(p.segment, p.steps), ROWS, p.width), (count, ROWS, p.width)
    scratch = dict(before=held) | (dict(sizes=held, along=held, over=held, message=kept, sumA=kept) if many else {})
    inputs = dict(u=x.u, delta=x.delta, dy=dy, A=x.A, B=x.B, C=x.C, D=x.D, bias=x.bias, states=states, incoming=message, fresh=_fresh(p))
    return launch(body, p, options.interpret, inputs, outputs, scratch)


def pl_loop(count):
    """`body(n)` for n below count."""
    def run(body):
        jax.lax.fori_loop(0, count, lambda n, _: body(n), None)
    return run


def _fresh(p):
    """(tiles, 4, width): 1 where a channel is not already in the tile before, or None if tiles do not overlap."""
    if not p.overlapping:
        return None
    start = jnp.minimum(jnp.arange(p.tiles) * p.width, p.lanes - p.width)
    before = jnp.concatenate([jnp.zeros(1, int), start[:-1] + p.width])
    new = start[:, None] + jnp.arange(p.width) >= before[:, None]
    return jnp.broadcast_to(new[:, None].astype(jnp.float32), (p.tiles, ROWS, p.width))
