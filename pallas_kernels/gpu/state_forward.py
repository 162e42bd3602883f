"""Forward pass of the selective scan of several states per channel on NVIDIA GPUs."""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.gpu.forward import LOG2_E, STATIC, step_size_and_slope
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.plan import BLOCK, LANES, QUAD, SPLIT, plan
from pallas_kernels.gpu.state_tiles import StateTile, block_rows, of_channels, split_states, without_padding
from pallas_kernels.gpu.tiles import direction, from_rows, launch, narrow, over_rows, to_rows, widen


class StateArguments(NamedTuple):
    """Arrays as the kernels load them; D and bias may be None."""
    u: jax.Array             # (rows, steps, channels)
    delta: jax.Array         # (rows, steps, channels)
    A: jax.Array             # (channels, 4, n), times log2(e): a decay is exp2(dt A)
    BC: jax.Array            # (rows, steps, G, 2, 4, n)
    D: jax.Array | None      # (4, channels)
    bias: jax.Array | None   # (4, channels)


def rows_of(args):
    """(`Plan`, `StateArguments`) of a scan's `Arguments`."""
    batch, length, channels = args.u.shape
    groups, state = args.B.shape[2:]
    p = plan(batch, length, groups, channels // groups, state)
    shared = lambda x: None if x is None else over_rows(x, p)
    BC = jnp.stack([split_states(x.astype(jnp.float32), p) for x in (args.B, args.C)], -3)
    return p, StateArguments(
        u=to_rows(widen(args.u, p), p), delta=to_rows(widen(args.delta, p), p),
        A=split_states(of_channels(args.A.astype(jnp.float32) * LOG2_E, p), p), BC=to_rows(BC, p), D=shared(args.D), bias=shared(args.delta_bias))


def forward(args, options):
    """(y, saved): the state before each block, and each chunk's total decay (None for a single chunk)."""
    p, x = rows_of(args)
    entry = decay = None
    if p.chunks > 1:
        end, decay = chunk_ends(p, x.u, x, options, adjoint=False)
        (entry,) = carried((decay,), (end,), p, options)
    y, saved = states(direction(options.reverse), x, entry, p=p, softplus=options.delta_softplus, out_dtype=options.out_dtype,
                      interpret=options.interpret)
    return narrow(from_rows(without_padding(y, p), p), p), (saved, decay)


def chunk_ends(p, source, x, options, adjoint):
    """Each chunk's end when begun at zero, and its total decay exp(A sum dt), both (rows, channels, 4, n).

    Args:
        p: the `Plan`.
        source: (rows, steps, channels).
        x: `StateArguments`, of which delta, A, BC and bias are used.
        options: the scan's `Options`.
        adjoint: False: states h = exp(dt A) h + dt B source; True: adjoints g = exp(dt A) (g + C source), against the scan's direction.
    """
    return _chunk_ends(direction(options.reverse != adjoint), source, x.delta, x.BC, x.A, x.bias, p=p, softplus=options.delta_softplus,
                       interpret=options.interpret, adjoint=adjoint)


def step_sizes(deltas, bias, softplus):
    """[(dt, its derivative or None)] of the quads of a block."""
    deltas = [delta.astype(jnp.float32) for delta in deltas]
    return [step_size_and_slope(delta if bias is None else delta + bias, softplus) for delta in deltas]


@functools.partial(jax.jit, static_argnames=(*STATIC, "adjoint"))
def _chunk_ends(direction, source, delta, BC, A, bias, *, p, softplus, interpret, adjoint):

    def body(tile, refs):
        row, columns, reverse, A = tile.row, tile.columns, refs.direction[0], tile.load("state", refs.A, tile.columns)
        bias = None if refs.bias is None else tile.load("tile", refs.bias, slice(None), columns)

        def fetch(b):
            streams = [tile.fetch(b, lambda t, ref=ref: tile.load("tile", ref, row, t, columns)) for ref in (refs.source, refs.delta)]
            return *streams, tile.fetch(b, lambda t: tile.load("values", refs.BC, row, t, tile.group))

        def visit(b, operands, carry):
            sources, deltas, BC = operands
            dts = [dt for dt, _ in step_sizes(deltas, bias, softplus)]
            sources = [source.astype(jnp.float32) for source in sources]
            tile.sync()
            tile.clear(b, refs.dt, refs.z, refs.maps)
            tile.put(b, refs.dt, dts)
            tile.put(b, refs.z, sources if adjoint else [dt * source for dt, source in zip(dts, sources, strict=True)])
            tile.put(b, refs.maps, BC)
            tile.sync()
            quads = tile.quads(b)

            def quad(k, order, carry):
                h, total = carry
                places = [tile.lead + k * QUAD + j for j in order]
                operands = [(tile.load("channel", refs.dt, i), tile.load("channel", refs.z, i), tile.load("maps", refs.maps, i, int(adjoint)))
                            for i in places]
                for dt, z, V in operands:
                    decay, added = jnp.exp2(tile.spread(dt) * A), tile.spread(z) * tile.spread(V)
                    h = decay * (h + added) if adjoint else decay * h + added
                    total = total + dt
                return h, total
            return tile.in_time(reverse, quads, quad, carry)

        h, total = tile.blocks(reverse, fetch, visit, (tile.zeros("state"), tile.zeros("channel")))
        tile.store(refs.end, row, columns, h)
        tile.store(refs.decay, row, columns, jnp.exp2(tile.spread(total) * A))

    shape = (p.rows, p.channels, SPLIT, p.part), jnp.float32
    inputs = dict(direction=direction, source=source, delta=delta, BC=BC, A=A, bias=bias)
    out = launch(body, p, interpret, inputs, dict(end=shape, decay=shape), block_scratch(p, "dt", "z"), StateTile)
    return out["end"], out["decay"]


@functools.partial(jax.jit, static_argnames=(*STATIC, "out_dtype"))
def states(direction, x, entry, *, p, softplus, out_dtype, interpret):
    """y (rows, padded steps, channels) and the state before each block (rows, blocks, channels, 4, n)."""
    shifted = x.D is not None and p.padded > p.steps      # the last quad is loaded from before its place: D u must be found by place

    def body(tile, refs):
        row, columns, reverse, A = tile.row, tile.columns, refs.direction[0], tile.load("state", refs.A, tile.columns)
        bias, D = (None if ref is None else tile.load("tile", ref, slice(None), columns) for ref in (refs.bias, refs.D))

        def fetch(b):
            streams = [tile.fetch(b, lambda t, ref=ref: tile.load("tile", ref, row, t, columns)) for ref in (refs.u, refs.delta)]
            return *streams, tile.fetch(b, lambda t: tile.load("values", refs.BC, row, t, tile.group))

        def visit(b, operands, h):
            us, deltas, BC = operands
            dts, us = [dt for dt, _ in step_sizes(deltas, bias, softplus)], [u.astype(jnp.float32) for u in us]
            tile.clear(b, refs.dt, refs.z, refs.maps, *([refs.u_kept] if shifted else []))
            if shifted:
                tile.put(b, refs.u_kept, us)
            tile.put(b, refs.dt, dts)
            tile.put(b, refs.z, [dt * u for dt, u in zip(dts, us, strict=True)])
            tile.put(b, refs.maps, BC)
            tile.store(refs.saved, row, b, columns, h)
            tile.sync()
            quads = tile.quads(b)

            def quad(k, order, h):
                places = [tile.lead + k * QUAD + j for j in order]
                operands = [(tile.load("channel", refs.dt, i), tile.load("channel", refs.z, i), tile.load("maps", refs.maps, i, 0),
                             tile.load("maps", refs.maps, i, 1)) for i in places]
                for j, (dt, z, B, C) in zip(order, operands, strict=True):
                    h = jnp.exp2(tile.spread(dt) * A) * h + tile.spread(z) * tile.spread(B)
                    tile.store(refs.y_parts, k * QUAD + j, tile.sum(h * tile.spread(C), 2, "part"))
                return h

            h = tile.in_time(reverse, quads, quad, h)
            tile.sync()
            for k, u in enumerate(us):
                def finish(k=k, u=u):
                    y = tile.sum(tile.load("parts", refs.y_parts, pl.ds(k * QUAD, QUAD)), 2, "tile")
                    u = tile.load("tile", refs.u_kept, pl.ds(tile.lead + k * QUAD, QUAD)) if shifted else u
                    tile.store(refs.y, row, pl.ds(b * BLOCK + k * QUAD, QUAD), columns, y if D is None else y + D * u)
                finish() if isinstance(quads, int) else pl.when(k < quads)(finish)
            return h

        start = tile.zeros("state") if refs.entry is None else tile.load("state", refs.entry, row, columns)
        tile.blocks(reverse, fetch, visit, start)

    inputs = dict(direction=direction, u=x.u, delta=x.delta, A=x.A, BC=x.BC, D=x.D, bias=x.bias, entry=entry)
    outputs = dict(y=((p.rows, p.padded, p.channels), jnp.dtype(out_dtype)), saved=((p.rows, p.segments, p.channels, SPLIT, p.part), jnp.float32))
    scratch = block_scratch(p, "dt", "z", *(["u_kept"] if shifted else [])) | dict(y_parts=(min(p.padded, BLOCK), LANES, SPLIT))
    out = launch(body, p, interpret, inputs, outputs, scratch, StateTile)
    return out["y"], out["saved"]


def block_scratch(p, *streams):
    """Shared memory of a block's streams and of its B and C."""
    rows = block_rows(p)
    return dict.fromkeys(streams, (rows, LANES)) | dict(maps=(rows, 2, SPLIT, p.part))
