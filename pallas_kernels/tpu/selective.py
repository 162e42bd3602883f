"""The backend "pallas_tpu": the selective scan as TPU kernels, by Mosaic through `pallas_call`; see `tiles` for how a block is loaded.

Forward: each chunk is scanned from zero, the state that enters it follows from its predecessors, and it is scanned again from that state.
Only the states that enter the chunks are saved. Backward: states are recomputed from those, and the adjoint recurrence runs in the same two
passes against the scan's direction. Sums over channels (dB, dC) are stored once per block of lanes.
"""
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import arguments, cross, reference
from pallas_kernels.arguments import Arguments, softplus_slope
from pallas_kernels.autodiff import differentiable
from pallas_kernels.tpu import cross as fused
from pallas_kernels.tpu.linear import linear_scan
from pallas_kernels.tpu.tiles import CHUNKS, F32, call, cut_groups, entering, padded_groups, put_rows, rows, shape_like, step_size, tiles

__all__ = ["cross_selective_scan", "linear_scan", "refusal", "selective_scan"]

refusal = functools.partial(arguments.refusal, "pallas_tpu")


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    return differentiable(forward, backward, reference.selective_scan, _stored_options(options))(_loadable(args)).astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`: by one kernel if VMEM holds the map, else by four scans."""
    args, narrow = _loadable(args), _stored_options(options)
    if fused.fits(args):
        run = differentiable(fused.forward, fused.backward, reference.cross_selective_scan, narrow)
    else:
        run = cross.lean(forward, backward, reference.cross_selective_scan, narrow)
    return run(args).astype(options.out_dtype)


def _stored_options(options):
    return arguments.narrowed(options, ("float64", "float16"))


def _loadable(args):
    """Arguments with float32 instead of float16, which Mosaic does not load."""
    return type(args)(*(x.astype(F32) if x is not None and x.dtype == jnp.float16 else x for x in args))


# ---- arrays, outside of the kernels

def tiles_of(args):
    """`Tiles` of a selective scan."""
    batch, length, channels = args.u.shape
    _, _, groups, state = args.B.shape
    return tiles(batch, length, channels, groups, state, max_steps=_max_steps(state))


def _max_steps(state):
    """Most steps of a block: longer blocks combine chunks less often; the backward pass has 2 N blocks of states in VMEM, at most 5 MiB."""
    return min(992, (4608 // state - 32) // 64 * 64 + 32)


def _inputs(args, t, options):
    """(arrays, their specs): u, delta, B and C as (b, G, blocks, 2N, T), A as (N, D), D and bias as (2, D)."""
    pad = lambda x: padded_groups(x, t.groups)
    zeros = jnp.zeros(args.u.shape[2], F32)
    skip_bias = jnp.stack([zeros if x is None else x.astype(F32) for x in (args.D, args.delta_bias)])
    maps = jnp.concatenate([args.B, args.C], -1).astype(F32)                           # (b, L, G, 2N)
    maps = jnp.pad(maps, ((0, 0), (0, t.blocks * t.steps - t.length), (0, 0), (0, 0)))
    maps = maps.reshape(t.batch, t.blocks, t.steps, t.groups, 2 * t.state).transpose(0, 3, 1, 4, 2)
    arrays = pad(args.u), pad(args.delta), maps, pad(args.A.T.astype(F32)), pad(skip_bias)
    return arrays, [_stream(t, options), _stream(t, options), _maps(t, options), _channels(t, t.state), _channels(t, 2)]


def _block(t, reverse):
    """Function from the grid step to the block of time."""
    return (lambda i: t.blocks - 1 - i) if reverse else (lambda i: i)


def _stream(t, options):
    time = _block(t, options.reverse)
    return pl.BlockSpec((pl.squeezed, t.steps, t.lanes), lambda b, c, i: (b, time(i), c))


def _maps(t, options):
    time = _block(t, options.reverse)
    return pl.BlockSpec((pl.squeezed, pl.squeezed, pl.squeezed, 2 * t.state, t.steps), lambda b, c, i: (b, t.group_of(c), time(i), 0, 0))


def _channels(t, count):
    return pl.BlockSpec((count, t.lanes), lambda b, c, i: (0, c))


def _saved(t, options):
    """Block of the states that enter the chunks: (b, blocks, N, 8, D)."""
    time = _block(t, options.reverse)
    return pl.BlockSpec((pl.squeezed, pl.squeezed, t.state, CHUNKS, t.lanes), lambda b, c, i: (b, time(i), 0, 0, c))


# ---- inside a kernel

def _at_start(*refs):
    @pl.when(pl.program_id(2) == 0)
    def _():
        for ref in refs:
            ref[...] = jnp.zeros_like(ref)


def _present(t, reverse):
    """Which steps of this block are within the length, (T, 1); None: all steps of every block."""
    if not t.ragged:
        return None
    first = _block(t, reverse)(pl.program_id(2)) * t.steps
    return first + jax.lax.broadcasted_iota(jnp.int32, (t.steps, 1), 0) < t.length


def _masked(present, x):
    return x if present is None else jnp.where(present, x, 0)


def _load(t, options, refs, scratch):
    """dt, u and the transposed maps (T, 2N) of one block in float32. Steps beyond the length get dt = u = 0, which leaves h unchanged."""
    (u, delta, maps, _, skip_bias), (dt_s, u_s, maps_s) = refs, scratch
    present = _present(t, options.reverse)
    dt_s[...] = _masked(present, step_size(delta[...].astype(F32), skip_bias[1:2, :], options.delta_softplus))
    maps_s[...] = maps[...].T
    return dt_s, _as_rows(u, u_s, present), maps_s


def _as_rows(ref, scratch, present):
    """`ref`, or a float32 copy of it if steps are beyond the length or rows are packed in pairs."""
    if present is None and ref.dtype == F32:
        return ref
    scratch[...] = _masked(present, ref[...].astype(F32))
    return scratch


def _row_buffer(ref, scratch):
    """(array for the rows of an output, function to call after the last row): a packed dtype is stored in whole blocks only."""
    if ref.dtype == F32:
        return ref, lambda: None

    def flush():
        ref[...] = scratch[...].astype(ref.dtype)
    return scratch, flush


def _columns(x, first, count):
    return [x[:, n:n + 1] for n in range(first, first + count)]


def _scratch(t):
    return [pltpu.VMEM((t.steps, t.lanes), F32), pltpu.VMEM((t.steps, t.lanes), F32), pltpu.VMEM((t.steps, 2 * t.state), F32)]


# ---- forward

def forward(args, options):
    """(y, states that enter the chunks)."""
    t = tiles_of(args)
    arrays, specs = _inputs(args, t, options)
    shapes = (shape_like((*args.u.shape[:2], t.channels), options.out_dtype, *arrays),
              shape_like((t.batch, t.blocks, t.state, CHUNKS, t.channels), F32, *arrays))
    run = call("selective_scan_forward", functools.partial(_forward_kernel, t, options), t, specs,
               [_stream(t, options), _saved(t, options)], shapes, [pltpu.VMEM((t.state, t.lanes), F32), *_scratch(t)], options.interpret)
    y, saved = run(*arrays)
    return cut_groups(y, t.groups, args.u.shape[2] // t.groups), saved


def _forward_kernel(t, options, u, delta, maps, a, skip_bias, y, saved, carry, dt_s, u_s, maps_s):
    N, Q = t.state, t.chunk
    _at_start(carry)
    dt_r, u_r, maps_r = _load(t, options, (u, delta, maps, a, skip_bias), (dt_s, u_s, maps_s))
    A = [a[n:n + 1, :] for n in range(N)]
    time = (lambda i: Q - 1 - i) if options.reverse else (lambda i: i)

    def advance(i, states):
        q = time(i)
        dt, x, m = rows(dt_r, q, Q), rows(u_r, q, Q), rows(maps_r, q, Q)
        v = dt * x
        return q, dt, x, m, [jnp.exp(dt * A[n]) * states[n] + v * b for n, b in enumerate(_columns(m, 0, N))]

    def first(i, carried):
        *states, total = carried
        _, dt, _, _, states = advance(i, states)
        return *states, total + dt

    zeros = jnp.zeros((CHUNKS, t.lanes), F32)
    *ends, total = jax.lax.fori_loop(0, Q, first, (zeros,) * (N + 1), unroll=t.unroll(options))
    start = []
    for n in range(N):
        h, leaving = entering(jnp.exp(total * A[n]), ends[n], carry[n:n + 1, :], options.reverse)
        carry[n:n + 1, :] = leaving
        saved[n] = h
        start.append(h)
    D = skip_bias[0:1, :]
    y_r, flush = _row_buffer(y, dt_s)                            # a row of dt is loaded before y overwrites it

    def second(i, states):
        q, _, x, m, states = advance(i, states)
        put_rows(y_r, q, Q, sum((h * c for h, c in zip(states, _columns(m, N, N), strict=True)), D * x))
        return tuple(states)

    jax.lax.fori_loop(0, Q, second, tuple(start), unroll=t.unroll(options))
    flush()


# ---- backward

def backward(args, saved, dy, options):
    """Cotangents of args; the blocks of time run against the scan's direction."""
    t, against = tiles_of(args), options._replace(reverse=not options.reverse)
    inputs, specs = _inputs(args, t, against)
    inputs = *inputs, saved, padded_groups(dy, t.groups)
    stream, time = _stream(t, against), _block(t, against.reverse)
    sums = lambda count: pl.BlockSpec((pl.squeezed, count, t.lanes), lambda b, c, i: (b, 0, c))
    outputs = ((inputs[0].shape, args.u.dtype, stream), (inputs[0].shape, args.delta.dtype, stream),
               ((t.batch, t.lane_blocks, t.blocks, 2 * t.state, t.steps), F32,
                pl.BlockSpec((pl.squeezed, pl.squeezed, pl.squeezed, 2 * t.state, t.steps), lambda b, c, i: (b, c, time(i), 0, 0))),
               ((t.batch, t.state, t.channels), F32, sums(t.state)), ((t.batch, 2, t.channels), F32, sums(2)))
    states = pltpu.VMEM((t.state, t.steps, t.lanes), F32)
    scratch = [pltpu.VMEM((t.state, t.lanes), F32), *_scratch(t), *_scratch(t)[1:], states, states]
    run = call("selective_scan_backward", functools.partial(_backward_kernel, t, options), t, [*specs, _saved(t, against), stream],
               [spec for *_, spec in outputs], [shape_like(shape, dtype, *inputs) for shape, dtype, _ in outputs], scratch, options.interpret)
    return _cotangents(args, t, *run(*inputs))


def _cotangents(args, t, du, ddelta, dmaps, dA, dskip_bias):
    """The kernel's outputs in the shapes and dtypes of args."""
    cut = lambda x: cut_groups(x, t.groups, args.u.shape[2] // t.groups)
    dA, dskip_bias = dA.sum(0), dskip_bias.sum(0)
    dmaps = dmaps.reshape(t.batch, t.groups, -1, t.blocks, 2 * t.state, t.steps).sum(2)
    dmaps = dmaps.transpose(0, 2, 4, 1, 3).reshape(t.batch, -1, t.groups, 2 * t.state)[:, :t.length]
    dB, dC = jnp.split(dmaps, 2, -1)
    dD, dbias = cut(dskip_bias)
    like = lambda x, to: None if to is None else x.astype(to.dtype)
    return Arguments(cut(du), cut(ddelta), like(cut(dA).T, args.A), like(dB, args.B), like(dC, args.C), like(dD, args.D),
                     like(dbias, args.delta_bias))


def _backward_kernel(t, options, u, delta, maps, a, skip_bias, saved, dy, du, ddelta, dmaps, dA, dskip_bias,
                     carry, dt_s, u_s, maps_s, dy_s, dmaps_s, before_s, decay_s):
    N, Q = t.state, t.chunk
    against = options._replace(reverse=not options.reverse)
    _at_start(carry, dA, dskip_bias)
    dt_r, u_r, maps_r = _load(t, against, (u, delta, maps, a, skip_bias), (dt_s, u_s, maps_s))
    dy_r = _as_rows(dy, dy_s, _present(t, against.reverse))
    du_r, flush_du = _row_buffer(du, u_s)                        # rows of u and dt are loaded before du and ddelta overwrite them
    ddelta_r, flush_ddelta = _row_buffer(ddelta, dt_s)
    A = [a[n:n + 1, :] for n in range(N)]
    D = skip_bias[0:1, :]
    forward_step = (lambda i: Q - 1 - i) if options.reverse else (lambda i: i)
    back = lambda i: forward_step(Q - 1 - i)
    zeros = jnp.zeros((CHUNKS, t.lanes), F32)
    lanes_present, row_present = _lanes_present(t), _row_present(t, against.reverse)

    def recompute(i, carried):
        *states, total = carried
        q = forward_step(i)
        dt, m = rows(dt_r, q, Q), rows(maps_r, q, Q)
        v = dt * rows(u_r, q, Q)
        for n, b in enumerate(_columns(m, 0, N)):
            decay = jnp.exp(dt * A[n])
            put_rows(before_s.at[n], q, Q, states[n])
            put_rows(decay_s.at[n], q, Q, decay)
            states[n] = decay * states[n] + v * b
        return *states, total + dt

    *_, total = jax.lax.fori_loop(0, Q, recompute, (*(saved[n] for n in range(N)), zeros), unroll=t.unroll(options))

    def first(i, adjoints):
        q = back(i)
        gy = rows(dy_r, q, Q)
        return tuple(rows(decay_s.at[n], q, Q) * (adjoints[n] + gy * c) for n, c in enumerate(_columns(rows(maps_r, q, Q), N, N)))

    ends = jax.lax.fori_loop(0, Q, first, (zeros,) * N, unroll=t.unroll(options))
    start = []
    for n in range(N):
        adjoint, leaving = entering(jnp.exp(total * A[n]), ends[n], carry[n:n + 1, :], against.reverse)
        carry[n:n + 1, :] = leaving
        start.append(adjoint)

    def second(i, carried):
        adjoints, sums, (sum_D, sum_bias) = list(carried[:N]), list(carried[N:-2]), carried[-2:]
        q = back(i)
        dt, x, gy, m = rows(dt_r, q, Q), rows(u_r, q, Q), rows(dy_r, q, Q), rows(maps_r, q, Q)
        v, dlog_A, g_B, over_channels = dt * x, 0, 0, []
        for n, (b, c) in enumerate(zip(_columns(m, 0, N), _columns(m, N, N), strict=True)):
            decay = rows(decay_s.at[n], q, Q)
            decayed = decay * rows(before_s.at[n], q, Q)   # the state before, decayed to this step
            g = adjoints[n] + gy * c
            dlog = g * decayed                                # cotangent of dt A
            dlog_A, g_B = dlog_A + dlog * A[n], g_B + g * b
            over_channels.append((g * v, gy * (decayed + v * b)))
            sums[n] = sums[n] + dlog * dt
            adjoints[n] = decay * g
        put_rows(dmaps_s, q, Q, _channel_sums(over_channels, lanes_present))
        ddt = dlog_A + g_B * x
        if options.delta_softplus:
            ddt = ddt * softplus_slope(dt)
        elif t.ragged:
            ddt = jnp.where(row_present(q), ddt, 0)
        put_rows(du_r, q, Q, g_B * dt + D * gy)
        put_rows(ddelta_r, q, Q, ddt)
        return *adjoints, *sums, sum_D + gy * x, sum_bias + ddt

    carried = jax.lax.fori_loop(0, Q, second, (*start, *(zeros,) * (N + 2)), unroll=t.unroll(options))
    for n in range(N):
        dA[n:n + 1, :] += carried[N + n].sum(0, keepdims=True)
    for i in range(2):
        dskip_bias[i:i + 1, :] += carried[2 * N + i].sum(0, keepdims=True)
    dmaps[...] = dmaps_s[...].T
    flush_du()
    flush_ddelta()


def _channel_sums(pairs, lanes_present):
    """Sums over this block's channels of the N pairs of products for (dB, dC): (8, 2N)."""
    N = len(pairs)
    column = jax.lax.broadcasted_iota(jnp.int32, (CHUNKS, 2 * N), 1)
    sums = jnp.zeros((CHUNKS, 2 * N), F32)
    for n, pair in enumerate(pairs):
        for place, product in zip((n, N + n), pair, strict=True):
            product = _masked(lanes_present, product)
            sums = jnp.where(column == place, product.sum(1, keepdims=True), sums)
    return sums


def _lanes_present(t):
    """Which lanes of a register are channels, (8, lanes); None: all lanes of every block."""
    if t.channels % t.lanes == 0:
        return None
    return pl.program_id(1) * t.lanes + jax.lax.broadcasted_iota(jnp.int32, (CHUNKS, t.lanes), 1) < t.channels


def _row_present(t, reverse):
    """Function from row q of the chunks to which of its steps are within the length, (8, lanes)."""
    first = _block(t, reverse)(pl.program_id(2)) * t.steps + t.chunk * jax.lax.broadcasted_iota(jnp.int32, (CHUNKS, t.lanes), 0)
    return lambda q: first + q < t.length
