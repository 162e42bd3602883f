"""The backward pass of the fused cross scan on TPU, one kernel: see `cross` and `plane`.

The states are recomputed from those that enter the chunks, then the adjoint recurrence runs in the same two passes against the direction of the
scan. The sums over channels stay in VMEM over all blocks of lanes.
"""
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.arguments import CrossArguments, softplus_slope
from pallas_kernels.tpu.plane import (
    K,
    by_band,
    by_program,
    call,
    column,
    copies,
    dot,
    flush,
    inputs_of,
    join,
    joints,
    lanes_of,
    loops,
    per_image,
    per_way,
    plane,
    saved_of,
    store_step_sizes,
    stream,
    whole,
)
from pallas_kernels.tpu.tiles import F32


def backward(args, saved, dy, options):
    """Cotangents of args, given that of the merged map."""
    p = plane(args, "backward", options)
    inputs, specs = inputs_of(args, p)
    inputs = *inputs, *saved, dy.reshape(inputs[0].shape)
    programs = p.batch // p.images
    outputs = [(inputs[0].shape, args.u.dtype, stream(p)), ((p.batch, p.size, K * p.rank), F32, whole(p, p.size, K * p.rank)),
               ((p.batch, 2 * K, p.size), F32, whole(p, 2 * K, p.size)), ((programs, K, p.rank, p.channels), F32, by_program(p, K, p.rank)),
               ((programs, 2 * K + 1, p.channels), F32, by_program(p, 2 * K + 1))]
    scratch = [*per_way(p, 2), *per_image(p, 3), *per_image(p, 2, 2 * K), *joints(p, 3)]
    specs = [*specs, *(spec for *_, spec in saved_of(p)), stream(p)]
    kernel = functools.partial(_kernel, p, options)
    du, dsteps, dmaps, dweight, dchannels = call("cross_scan_backward", kernel, p, specs, outputs, scratch, options, inputs)
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


def _kernel(p, options, u, steps, maps, weight, channels, saved_rows, saved_columns, dy, du, dsteps, dmaps, dweight, dchannels,
            dt_s, before_s, u_s, dy_s, du_s, maps_s, dmaps_s, decay_s, end_s, entering_s):
    refs = u, steps, maps, weight, channels
    block = pl.program_id(1)
    present = None                                         # lanes past the last channel are uninitialized
    if p.channels % p.lanes:
        present = block * p.lanes + jax.lax.broadcasted_iota(jnp.int32, (1, p.lanes), 1) < p.channels
    masked = lambda x: x if present is None else jnp.where(present, x, 0)

    @pl.when(block == 0)
    def _():
        dsteps[...], dmaps[...] = jnp.zeros_like(dsteps), jnp.zeros_like(dmaps)

    for image in range(p.images):
        maps_s[image] = maps[image].T
    u_r, dy_r = copies(p, (u, u_s), (dy, dy_s))
    du_r = du if du.dtype == F32 else du_s
    dchannels[...], dweight[...] = jnp.zeros_like(dchannels), jnp.zeros_like(dweight)

    def skip(image, rows):
        gy = dy_r.at[image][rows, :]
        du_r.at[image][rows, :] = gy * channels[2 * K:2 * K + 1, :]
        dchannels[2 * K:2 * K + 1, :] += (gy * u_r.at[image][rows, :]).sum(0, keepdims=True)

    by_band(p, skip)
    dmaps_s[...] = jnp.zeros_like(dmaps_s)
    load = lambda ref, lane, rows: ref.at[lane.image][rows, :]
    dt_at = lambda lane, rows: dt_s.at[lane.way, lane.image][rows, :]
    which = jax.lax.broadcasted_iota(jnp.int32, (1, 2 * K), 1)
    for routes in loops(p):
        lanes, count, chunks = lanes_of(p, routes), routes[0].steps, routes[0].chunks
        A = [channels[route.k:route.k + 1, :] for route in routes]
        store_step_sizes(p, routes, refs, options, dt_s)
        zeros = jnp.zeros((chunks, p.lanes), F32)

        def recompute(i, carried, lanes=lanes, A=A):
            following = []
            for lane, (h, total) in zip(lanes, carried, strict=True):
                rows = lane.route.rows(i)
                dt = dt_at(lane, rows)
                before_s.at[lane.way, lane.image][rows, :] = h
                v = dt * load(u_r, lane, rows)
                following.append((jnp.exp(dt * A[lane.way]) * h + v * column(load(maps_s, lane, rows), lane.route.k), total + dt))
            return tuple(following)

        entered = [(saved_columns if lane.route.k % 2 else saved_rows)[lane.image, lane.route.k // 2] for lane in lanes]
        found = jax.lax.fori_loop(0, count, recompute, tuple((h, zeros) for h in entered))
        for lane, (_, total) in zip(lanes, found, strict=True):
            decay_s.at[lane.n][:chunks, :] = jnp.exp(total * A[lane.way])

        def first(i, adjoints, lanes=lanes, count=count, A=A):
            following = []
            for lane, adjoint in zip(lanes, adjoints, strict=True):
                rows = lane.route.rows(count - 1 - i)
                g = adjoint + load(dy_r, lane, rows) * column(load(maps_s, lane, rows), K + lane.route.k)
                following.append(jnp.exp(dt_at(lane, rows) * A[lane.way]) * g)
            return tuple(following)

        for lane, end in zip(lanes, jax.lax.fori_loop(0, count, first, (zeros,) * len(lanes)), strict=True):
            end_s.at[lane.n][:chunks, :] = end
        join(lanes, decay_s, end_s, lambda lane: entering_s.at[lane.n], True)

        def second(i, carried, lanes=lanes, count=count, A=A):
            following = []
            for lane, (adjoint, sum_A) in zip(lanes, carried, strict=True):
                rows, k = lane.route.rows(count - 1 - i), lane.route.k
                dt, x, gy, m = dt_at(lane, rows), load(u_r, lane, rows), load(dy_r, lane, rows), load(maps_s, lane, rows)
                B, C, v, decay = column(m, k), column(m, K + k), dt * x, jnp.exp(dt * A[lane.way])
                decayed = decay * before_s.at[lane.way, lane.image][rows, :]       # the state before, decayed to this step
                g = adjoint + gy * C
                dlog, g_B = g * decayed, g * B                # cotangents of dt A and of dt u
                over_channels = [masked(product).sum(1, keepdims=True) for product in (g * v, gy * (decayed + v * B))]
                dmaps_s.at[lane.image][rows, :] += jnp.where(which == k, over_channels[0], jnp.where(which == K + k, over_channels[1], 0))
                du_r.at[lane.image][rows, :] += g_B * dt
                ddt = dlog * A[lane.way] + g_B * x
                if options.delta_softplus:
                    ddt = ddt * softplus_slope(dt)
                dt_s.at[lane.way, lane.image][rows, :] = masked(ddt)
                following.append((decay * g, sum_A + dlog * dt))
            return tuple(following)

        swept = jax.lax.fori_loop(0, count, second, tuple((entering_s[lane.n, :chunks, :], zeros) for lane in lanes))
        for lane, (_, sum_A) in zip(lanes, swept, strict=True):
            dchannels[lane.route.k:lane.route.k + 1, :] += sum_A.sum(0, keepdims=True)
        _step_cotangents(p, routes, steps, dt_s, [masked(weight[route.k]) for route in routes], dsteps, dweight, dchannels)
    for image in range(p.images):
        dmaps[image] += dmaps_s[image].T
    flush(p, du, du_r)


def _step_cotangents(p, routes, steps, dsize_s, weights, dsteps, dweight, dchannels):
    """Add the cotangents of the steps, the weights and the biases, given those of the directions' step sizes before the bias."""
    def work(image, rows):
        for way, (route, weight) in enumerate(zip(routes, weights, strict=True)):
            k, dsize = route.k, dsize_s.at[way, image][rows, :]
            dchannels[K + k:K + k + 1, :] += dsize.sum(0, keepdims=True)
            dsize = dsize.astype(steps.dtype)
            dsteps.at[image][rows, :] += dot(dsize, weight, ((1,), (1,)))
            dweight[k] += dot(steps.at[image][rows, :], dsize, ((0,), (0,)))[k * p.rank:(k + 1) * p.rank]

    by_band(p, work)
