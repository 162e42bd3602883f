"""Forward pass of the selective scan of one state per channel on NVIDIA GPUs, and what the other passes share with it."""
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.arguments import softplus_and_slope
from pallas_kernels.gpu.linear import carried
from pallas_kernels.gpu.plan import ROWS, plan
from pallas_kernels.gpu.tiles import clock, direction, from_rows, launch, loop, narrow, over_rows, pipelined_loop, to_rows, widen

LOG2_E = math.log2(math.e)
STATIC = ("p", "softplus", "interpret")      # static arguments of a kernel: equal calls share one jaxpr and one lowered function


class RowArguments(NamedTuple):
    """Arrays as the kernels load them; D and bias may be None."""
    u: jax.Array             # (rows, steps, channels)
    delta: jax.Array         # (rows, steps, channels)
    A: jax.Array             # (1, 4, channels), times log2(e): a decay is exp2(dt A)
    BC: jax.Array            # (rows, steps, G, 2): B and C, one address for both
    D: jax.Array | None      # (4, channels)
    bias: jax.Array | None   # (4, channels)


def step_size_and_slope(raw, softplus):
    """(dt, its derivative) from delta + bias; without softplus the derivative is None, which stands for 1."""
    return softplus_and_slope(raw) if softplus else (raw, None)


def input_and_output_maps(args):
    """B and C side by side in float32, (..., G, 2)."""
    return jnp.concatenate([args.B, args.C], -1, dtype=jnp.float32)


def rows_of(args):
    """(`Plan`, `RowArguments`) of a scan's `Arguments`."""
    batch, length, channels = args.u.shape
    groups, state = args.B.shape[2:]
    if state != 1:
        raise ValueError(f"A with {state} states: expected 1; `state_forward` has the kernels of several")
    p = plan(batch, length, groups, channels // groups, state)
    shared = lambda x: None if x is None else over_rows(x, p)
    return p, RowArguments(
        u=to_rows(widen(args.u, p), p), delta=to_rows(widen(args.delta, p), p), A=shared(args.A.T.astype(jnp.float32) * LOG2_E),
        BC=to_rows(input_and_output_maps(args), p), D=shared(args.D), bias=shared(args.delta_bias))


def forward(args, options):
    """(y, saved): the state before each segment, and each chunk's total decay (None for a single chunk)."""
    p, x = rows_of(args)
    entry = decay = None
    if p.chunks > 1:
        end, decay = chunk_ends(p, x.u, x, options, adjoint=False)
        (entry,) = carried((decay,), (end,), p, options)
    y, saved = states(direction(options.reverse), x, entry, p=p, softplus=options.delta_softplus, out_dtype=options.out_dtype,
                       interpret=options.interpret)
    return narrow(from_rows(y, p), p), (saved, decay)


def chunk_ends(p, source, x, options, adjoint):
    """Each chunk's end when begun at zero, and its total decay exp(A sum dt), both (rows, 1, channels).

    Args:
        p: the `Plan`.
        source: (rows, steps, channels).
        x: `RowArguments`, of which delta, A, BC and bias are used.
        options: the scan's `Options`.
        adjoint: False: states h = exp(dt A) h + dt B source; True: adjoints g = exp(dt A) (g + C source), against the scan's direction.
    """
    return _chunk_ends(direction(options.reverse != adjoint), source, x.delta, x.BC, x.A, x.bias, p=p, softplus=options.delta_softplus,
                       interpret=options.interpret, adjoint=adjoint)


@functools.partial(jax.jit, static_argnames=(*STATIC, "adjoint"))
def _chunk_ends(direction, source, delta, BC, A, bias, *, p, softplus, interpret, adjoint):

    def body(tile, refs):
        rows, columns, time = tile.rows, tile.columns, clock(refs.direction, p, tile.group)
        A = tile.load_float(refs.A, 0, slice(None), columns)
        bias = None if refs.bias is None else tile.load_float(refs.bias, slice(None), columns)

        def fetch(i):
            t = time(i)
            return (tile.load(refs.source, rows, t, columns), tile.load(refs.delta, rows, t, columns),
                    tile.load_row_values(refs.BC, rows, t, tile.group, int(adjoint)))

        def step(i, operands, carry):
            h, total = carry
            source, delta, value = operands
            delta = delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, softplus)
            z = source.astype(jnp.float32) * (1.0 if adjoint else dt)
            if adjoint:
                h = jnp.exp2(dt * A) * (h + z * tile.spread(value))
            else:
                h = jnp.exp2(dt * A) * h + z * tile.spread(value)
            return h, total + dt

        h, total = pipelined_loop(p.steps, fetch, step, (tile.zeros(), tile.zeros()), p.ahead)
        tile.store(refs.end, rows, 0, columns, h)
        tile.store(refs.decay, rows, 0, columns, jnp.exp2(total * A))

    shape = (p.rows, 1, p.channels), jnp.float32
    inputs = dict(direction=direction, source=source, delta=delta, BC=BC, A=A, bias=bias)
    out = launch(body, p, interpret, inputs, dict(end=shape, decay=shape))
    return out["end"], out["decay"]


@functools.partial(jax.jit, static_argnames=(*STATIC, "out_dtype"))
def states(direction, x, entry, *, p, softplus, out_dtype, interpret):
    """y and the state before each segment (rows, segments, 1, channels).

    y is (rows, steps, channels); of a map whose programs scan all four directions, their sum in shared memory, (rows, steps, lanes).
    """
    merged = p.turns > 1

    def body(tile, refs):
        if not merged:
            return scan(tile, refs)

        @loop(p.steps)
        def _(t):
            tile.store(refs.sum, t, tile.zeros())

        loop(p.turns)(lambda k: scan(tile.turn(k), refs))
        tile.sync()

        @loop(p.steps)
        def _(t):
            tile.store(refs.y, tile.rows, t, tile.shared_columns, tile.load(refs.sum, t))

    def scan(tile, refs):
        rows, columns, time = tile.rows, tile.columns, clock(refs.direction, p, tile.group)
        u_columns = columns if p.map is None else tile.shared_columns
        A = tile.load_float(refs.A, 0, slice(None), columns)
        bias = None if refs.bias is None else tile.load_float(refs.bias, slice(None), columns)
        D = None if refs.D is None else tile.load_float(refs.D, slice(None), columns)
        maps = lambda t: [tile.load_row_values(refs.BC, rows, t, tile.group, n) for n in range(2)]

        def fetch(i):
            t = time(i)
            return t, tile.load(refs.u, rows, t, u_columns), tile.load(refs.delta, rows, t, columns), maps(t)

        def save(i, h):
            @pl.when(jax.lax.rem(i, p.segment) == 0)
            def _():
                tile.store(refs.saved, rows, jax.lax.div(i, p.segment), 0, columns, h)

        def step(i, operands, h):
            t, u, delta, (B, C) = operands
            u, delta = u.astype(jnp.float32), delta.astype(jnp.float32)
            dt, _ = step_size_and_slope(delta if bias is None else delta + bias, softplus)
            z, y = dt * u, None if D is None else D * u
            h = jnp.exp2(dt * A) * h + z * tile.spread(B)
            term = h * tile.spread(C)
            y = term if y is None else y + term
            if merged:
                tile.store(refs.sum, t, tile.load(refs.sum, t) + y)
            else:
                tile.store(refs.y, rows, t, columns, y)
            return h

        if merged:
            tile.sync()
        start = tile.zeros() if refs.entry is None else tile.load_float(refs.entry, rows, 0, columns)
        pipelined_loop(p.steps, fetch, step, start, p.ahead, save)

    inputs = dict(direction=direction, u=x.u, delta=x.delta, A=x.A, BC=x.BC, D=x.D, bias=x.bias, entry=entry)
    y = (p.rows, p.steps, p.lanes if merged else p.channels), jnp.dtype(out_dtype)
    out = launch(body, p, interpret, inputs, dict(y=y, saved=((p.rows, p.segments, 1, p.channels), jnp.float32)),
                 dict(sum=(p.steps, ROWS, p.width)) if merged else None)
    return out["y"], out["saved"]
