"""The scan of a map along four directions as one TPU kernel for N = 1, from the step projection to the merge, with the map in VMEM.

The map is row-major, (H W, lanes). A direction along the columns loads whole rows of the map, one after the other: its chunks are the
columns. A direction along the rows loads the map with stride W: its chunks are the rows. Chunks are scanned from zero, joined, and scanned
again, as in `selective`; only the states that enter them are saved. The sums over channels stay in VMEM over all blocks of lanes.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.arguments import CrossArguments, softplus_slope, step_size
from pallas_kernels.tpu.tiles import F32, LANES, shape_like, vmem_capacity

K = 4
BAND = 512             # positions per iteration of a loop over the map
PLANES = 16            # planes of (H W, lanes) in VMEM in the backward kernel, double buffers counted twice


class Plane(NamedTuple):
    """Static sizes of one call."""
    batch: int
    height: int
    width: int
    channels: int
    rank: int

    @property
    def size(self):
        return self.height * self.width

    @property
    def lanes(self):
        return min(self.channels, LANES)

    @property
    def blocks(self):
        return -(-self.channels // self.lanes)


class Route(NamedTuple):
    """Route of direction k over the plane: `steps` rows of `chunks` positions each."""
    k: int
    steps: int
    chunks: int
    chunk_stride: int  # positions between chunks; 1 along the columns
    step_stride: int   # positions between steps
    reverse: bool

    def rows(self, i):
        """Positions of step i of the scan."""
        t = self.steps - 1 - i if self.reverse else i
        return pl.ds(t * self.step_stride, self.chunks) if self.chunk_stride == 1 else pl.ds(t, self.chunks, stride=self.chunk_stride)


def fits(args):
    """Whether the kernel supports these arguments: one state per channel, and a map that fits VMEM."""
    _, height, width, _ = args.u.shape
    return args.A.shape[-1] == 1 and height * width * LANES * 4 * PLANES <= 3 * vmem_capacity() // 4


def _plane(args):
    return Plane(*args.u.shape, args.steps.shape[-1])


def _routes(p):
    along_rows = dict(steps=p.width, chunks=p.height, chunk_stride=p.width, step_stride=1)
    along_columns = dict(steps=p.height, chunks=p.width, chunk_stride=1, step_stride=p.width)
    return [Route(k, **(along_columns if k % 2 else along_rows), reverse=k >= 2) for k in range(K)]


def _inputs(args, p):
    """(arrays, specs): u (b, HW, E), steps (b, HW, KR), maps (b, 2K, HW), weight (K, KR, E), channels (2K + 1, E): A, bias and the sum of D.

    A direction's weight is zero for the steps of the other directions, so that no lanes of the steps need slicing.
    """
    flat = lambda x: x.reshape(p.batch, p.size, -1)
    maps = jnp.concatenate([args.B[..., 0], args.C[..., 0]], -1).astype(F32)
    zeros = jnp.zeros((K, p.channels), F32)
    D, bias = (zeros if x is None else x.astype(F32) for x in (args.D, args.delta_bias))
    channels = jnp.concatenate([args.A[..., 0].astype(F32), bias, D.sum(0, keepdims=True)])
    weight = jnp.eye(K, dtype=args.dt_weight.dtype)[:, :, None, None] * args.dt_weight.swapaxes(1, 2)
    arrays = (flat(args.u), flat(args.steps), flat(maps).swapaxes(1, 2), weight.reshape(K, K * p.rank, p.channels), channels)
    return arrays, [_stream(p), _whole(p.size, K * p.rank), _whole(2 * K, p.size),
                    pl.BlockSpec((K, K * p.rank, p.lanes), lambda b, c: (0, 0, c)), pl.BlockSpec((2 * K + 1, p.lanes), lambda b, c: (0, c))]


def _stream(p):
    return pl.BlockSpec((pl.squeezed, p.size, p.lanes), lambda b, c: (b, 0, c))


def _whole(*shape):
    """Block of an array without channels: the same for every block of lanes of an image."""
    return pl.BlockSpec((pl.squeezed, *shape), lambda b, c: (b,) + (0,) * len(shape))


def _by_image(p, *shape):
    return pl.BlockSpec((pl.squeezed, *shape, p.lanes), lambda b, c: (b,) + (0,) * len(shape) + (c,))


def _call(name, kernel, p, in_specs, outputs, scratch, options, inputs):
    """Run over (batch, blocks of lanes); outputs: (shape, dtype, spec) each."""
    return pl.pallas_call(
        kernel, name=name, grid=(p.batch, p.blocks), in_specs=in_specs, out_specs=[spec for *_, spec in outputs],
        out_shape=[shape_like(shape, dtype, *inputs) for shape, dtype, _ in outputs], scratch_shapes=scratch, interpret=options.interpret,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=vmem_capacity()))(*inputs)


def _saved(p):
    """States that enter the chunks: along the rows (b, 2, H, E), along the columns (b, 2, W, E)."""
    return [((p.batch, 2, n, p.channels), F32, _by_image(p, 2, n)) for n in (p.height, p.width)]


def _per_plane(p, count, width=None):
    return [pltpu.VMEM((p.size, width or p.lanes), F32)] * count


def _joints(p, count):
    return [pltpu.VMEM((max(p.height, p.width), p.lanes), F32)] * count


# ---- inside a kernel

def _dot(x, y, contract):
    """Matrix product on the MXU, in full float32 precision for float32."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == F32 else None
    return jax.lax.dot_general(x, y, (contract, ((), ())), precision=precision, preferred_element_type=F32)


def _by_band(p, work):
    """Call `work(rows)` for every band of the map; the code size does not depend on the map. For work in any order of positions."""
    whole, rest = divmod(p.size, BAND)
    if whole:
        jax.lax.fori_loop(0, whole, lambda i, _: work(pl.ds(pl.multiple_of(i * BAND, 8), BAND)), None)
    if rest:
        work(pl.ds(whole * BAND, rest))


def _copies(p, *pairs):
    """For each pair (ref, scratch): the ref if it is float32, else a float32 copy in the scratch."""
    packed = [(ref, copy) for ref, copy in pairs if ref.dtype != F32]

    def copy_band(rows):
        for ref, copy in packed:
            copy[rows, :] = ref[rows, :].astype(F32)

    if packed:
        _by_band(p, copy_band)
    return [copy if ref.dtype != F32 else ref for ref, copy in pairs]


def _flush(p, ref, rows_of):
    """Convert float32 rows to an output's dtype and store them there, unless they are the output."""
    def work(rows):
        ref[rows, :] = rows_of[rows, :].astype(ref.dtype)

    if rows_of is not ref:
        _by_band(p, work)


def _store_step_size(p, k, refs, options, dt_s):
    """Store dt of direction k in its plane: (HW, KR) @ (KR, lanes) + bias, through softplus."""
    _, steps, _, weight, channels = refs

    def work(rows):
        raw = _dot(steps[rows, :], weight[k], ((1,), (0,)))
        dt_s[rows, :] = step_size(raw, channels[K + k:K + k + 1, :], options.delta_softplus)

    _by_band(p, work)


def _column(x, n):
    return x[:, n:n + 1]


def _join(route, decay_s, end_s, entering_s, reverse):
    """Store the state that enters each chunk, from the ends and decays of the chunks before it."""
    def step(i, carry):
        c = pl.ds(route.chunks - 1 - i if reverse else i, 1)
        entering_s[c, :] = carry
        return decay_s[c, :] * carry + end_s[c, :]

    jax.lax.fori_loop(0, route.chunks, step, jnp.zeros((1, decay_s.shape[1]), F32))


# ---- forward

def forward(args, options):
    """(merged map, states that enter the chunks)."""
    p = _plane(args)
    inputs, specs = _inputs(args, p)
    outputs = [(inputs[0].shape, options.out_dtype, _stream(p)), *_saved(p)]
    scratch = [*_per_plane(p, 3), *_per_plane(p, 1, 2 * K), *_joints(p, 2)]
    y, *saved = _call("cross_scan_forward", functools.partial(_forward_kernel, p, options), p, specs, outputs, scratch, options, inputs)
    return y.reshape(args.u.shape), tuple(saved)


def _forward_kernel(p, options, u, steps, maps, weight, channels, y, saved_rows, saved_columns, dt_s, u_s, y_s, maps_s, decay_s, end_s):
    refs = u, steps, maps, weight, channels
    maps_s[...] = maps[...].T
    u_r, = _copies(p, (u, u_s))
    y_r = y if y.dtype == F32 else y_s

    def skip(rows):
        y_r[rows, :] = u_r[rows, :] * channels[2 * K:2 * K + 1, :]

    _by_band(p, skip)
    for route in _routes(p):
        k, A = route.k, channels[route.k:route.k + 1, :]
        _store_step_size(p, k, refs, options, dt_s)
        entering = (saved_columns if k % 2 else saved_rows).at[k // 2]
        zeros = jnp.zeros((route.chunks, p.lanes), F32)

        def advance(rows, h, A=A, k=k):
            dt, m = dt_s[rows, :], maps_s[rows, :]
            return jnp.exp(dt * A) * h + dt * u_r[rows, :] * _column(m, k), dt, m

        def first(i, carried, route=route, advance=advance):
            h, total = carried
            h, dt, _ = advance(route.rows(i), h)
            return h, total + dt

        h, total = jax.lax.fori_loop(0, route.steps, first, (zeros, zeros))
        decay_s[:route.chunks, :], end_s[:route.chunks, :] = jnp.exp(total * A), h
        _join(route, decay_s, end_s, entering, route.reverse)

        def second(i, h, route=route, advance=advance, k=k):
            rows = route.rows(i)
            h, _, m = advance(rows, h)
            y_r[rows, :] += h * _column(m, K + k)
            return h

        jax.lax.fori_loop(0, route.steps, second, entering[...])
    _flush(p, y, y_r)


# ---- backward

def backward(args, saved, dy, options):
    """Cotangents of args, given that of the merged map."""
    p = _plane(args)
    inputs, specs = _inputs(args, p)
    inputs = *inputs, *saved, dy.reshape(inputs[0].shape)
    outputs = [(inputs[0].shape, args.u.dtype, _stream(p)), ((p.batch, p.size, K * p.rank), F32, _whole(p.size, K * p.rank)),
               ((p.batch, 2 * K, p.size), F32, _whole(2 * K, p.size)), ((p.batch, K, p.rank, p.channels), F32, _by_image(p, K, p.rank)),
               ((p.batch, 2 * K + 1, p.channels), F32, _by_image(p, 2 * K + 1))]
    scratch = [*_per_plane(p, 5), *_per_plane(p, 2, 2 * K), *_joints(p, 3)]
    specs = [*specs, *(spec for *_, spec in _saved(p)), _stream(p)]
    kernel = functools.partial(_backward_kernel, p, options)
    du, dsteps, dmaps, dweight, dchannels = _call("cross_scan_backward", kernel, p, specs, outputs, scratch, options, inputs)
    return _cotangents(args, p, du, dsteps, dmaps, dweight.sum(0), dchannels.sum(0))


def _cotangents(args, p, du, dsteps, dmaps, dweight, dchannels):
    """The kernel's outputs in the shapes and dtypes of args."""
    raster = lambda x: x.reshape(p.batch, p.height, p.width, *x.shape[2:])
    like = lambda x, to: None if to is None else x.reshape(to.shape).astype(to.dtype)
    dB, dC = jnp.split(raster(dmaps.swapaxes(1, 2)), 2, -1)
    dD = jnp.broadcast_to(dchannels[2 * K], (K, p.channels))
    return CrossArguments(u=like(du, args.u), steps=like(dsteps, args.steps),
                          dt_weight=like(dweight.swapaxes(1, 2), args.dt_weight), A=like(dchannels[:K], args.A), B=like(dB, args.B),
                          C=like(dC, args.C), D=like(dD, args.D), delta_bias=like(dchannels[K:2 * K], args.delta_bias))


def _backward_kernel(p, options, u, steps, maps, weight, channels, saved_rows, saved_columns, dy, du, dsteps, dmaps, dweight, dchannels,
                     dt_s, u_s, dy_s, before_s, du_s, maps_s, dmaps_s, decay_s, end_s, entering_s):
    refs = u, steps, maps, weight, channels
    block = pl.program_id(1)
    present = None                                         # lanes past the last channel are uninitialized
    if p.channels % p.lanes:
        present = block * p.lanes + jax.lax.broadcasted_iota(jnp.int32, (1, p.lanes), 1) < p.channels
    masked = lambda x: x if present is None else jnp.where(present, x, 0)

    @pl.when(block == 0)
    def _():
        dsteps[...], dmaps[...] = jnp.zeros_like(dsteps), jnp.zeros_like(dmaps)

    maps_s[...] = maps[...].T
    u_r, dy_r = _copies(p, (u, u_s), (dy, dy_s))
    du_r = du if du.dtype == F32 else du_s
    dchannels[2 * K:2 * K + 1, :] = jnp.zeros((1, p.lanes), F32)

    def skip(rows):
        gy = dy_r[rows, :]
        du_r[rows, :] = gy * channels[2 * K:2 * K + 1, :]
        dchannels[2 * K:2 * K + 1, :] += (gy * u_r[rows, :]).sum(0, keepdims=True)

    _by_band(p, skip)
    dmaps_s[...] = jnp.zeros_like(dmaps_s)
    column = jax.lax.broadcasted_iota(jnp.int32, (1, 2 * K), 1)
    for route in _routes(p):
        k, A = route.k, channels[route.k:route.k + 1, :]
        _store_step_size(p, k, refs, options, dt_s)
        zeros = jnp.zeros((route.chunks, p.lanes), F32)

        def recompute(i, carried, route=route, A=A, k=k):
            h, total = carried
            rows = route.rows(i)
            dt = dt_s[rows, :]
            before_s[rows, :] = h
            return jnp.exp(dt * A) * h + dt * u_r[rows, :] * _column(maps_s[rows, :], k), total + dt

        _, total = jax.lax.fori_loop(0, route.steps, recompute, ((saved_columns if k % 2 else saved_rows)[k // 2], zeros))

        def first(i, adjoint, route=route, A=A, k=k):
            rows = route.rows(route.steps - 1 - i)
            return jnp.exp(dt_s[rows, :] * A) * (adjoint + dy_r[rows, :] * _column(maps_s[rows, :], K + k))

        decay_s[:route.chunks, :], end_s[:route.chunks, :] = jnp.exp(total * A), jax.lax.fori_loop(0, route.steps, first, zeros)
        _join(route, decay_s, end_s, entering_s, not route.reverse)

        def second(i, carried, route=route, A=A, k=k):
            adjoint, sum_A = carried
            rows = route.rows(route.steps - 1 - i)
            dt, x, gy, m = dt_s[rows, :], u_r[rows, :], dy_r[rows, :], maps_s[rows, :]
            B, C, v, decay = _column(m, k), _column(m, K + k), dt * x, jnp.exp(dt * A)
            decayed = decay * before_s[rows, :]            # the state before, decayed to this step
            g = adjoint + gy * C
            dlog, g_B = g * decayed, g * B                    # cotangents of dt A and of dt u
            over_channels = [masked(product).sum(1, keepdims=True) for product in (g * v, gy * (decayed + v * B))]
            dmaps_s[rows, :] += jnp.where(column == k, over_channels[0], 0) + jnp.where(column == K + k, over_channels[1], 0)
            du_r[rows, :] += g_B * dt
            ddt = dlog * A + g_B * x
            if options.delta_softplus:
                ddt = ddt * softplus_slope(dt)
            dt_s[rows, :] = masked(ddt)
            return decay * g, sum_A + dlog * dt

        _, sum_A = jax.lax.fori_loop(0, route.steps, second, (entering_s[:route.chunks, :], zeros))
        dchannels[k:k + 1, :] = sum_A.sum(0, keepdims=True)
        _step_cotangents(p, k, refs, dt_s, masked(weight[k]), dsteps, dweight, dchannels)
    dmaps[...] += dmaps_s[...].T
    _flush(p, du, du_r)


def _step_cotangents(p, k, refs, dsize_s, weight, dsteps, dweight, dchannels):
    """Add the cotangents of the steps, the weight and the bias, given that of direction k's step size before the bias."""
    _, steps, *_ = refs
    dweight[k], dchannels[K + k:K + k + 1, :] = jnp.zeros((p.rank, p.lanes), F32), jnp.zeros((1, p.lanes), F32)

    def work(rows):
        dsize = dsize_s[rows, :]
        dchannels[K + k:K + k + 1, :] += dsize.sum(0, keepdims=True)
        dsize = dsize.astype(steps.dtype)
        dsteps[rows, :] += _dot(dsize, weight, ((1,), (1,)))
        dweight[k] += _dot(steps[rows, :], dsize, ((0,), (0,)))[k * p.rank:(k + 1) * p.rank]

    _by_band(p, work)
