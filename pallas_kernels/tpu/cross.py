"""The scan of a map along four directions as one TPU kernel for N = 1, from the step projection to the merge, with the map in VMEM.

Chunks are scanned from zero, joined, and scanned again, as in `selective`; only the states that enter them are saved. `plane` has what both
passes share, `cross_backward` the backward pass.
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels.tpu.cross_backward import backward
from pallas_kernels.tpu.plane import (
    BAND,
    K,
    by_band,
    call,
    column,
    copies,
    fits,
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
)
from pallas_kernels.tpu.tiles import F32

__all__ = ["BAND", "backward", "fits", "forward", "loops", "plane"]


def forward(args, options):
    """(merged map, states that enter the chunks)."""
    p = plane(args, "forward", options)
    inputs, specs = inputs_of(args, p)
    outputs = [(inputs[0].shape, options.out_dtype, stream(p)), *saved_of(p)]
    scratch = [*per_way(p, 1), *per_image(p, 2), *per_image(p, 1, 2 * K), *joints(p, 2)]
    y, *saved = call("cross_scan_forward", functools.partial(_kernel, p, options), p, specs, outputs, scratch, options, inputs)
    return y.reshape(args.u.shape), tuple(saved)


def _kernel(p, options, u, steps, maps, weight, channels, y, saved_rows, saved_columns, dt_s, u_s, y_s, maps_s, decay_s, end_s):
    refs = u, steps, maps, weight, channels
    for image in range(p.images):
        maps_s[image] = maps[image].T
    u_r, = copies(p, (u, u_s))
    y_r = y if y.dtype == F32 else y_s

    def skip(image, rows):
        y_r.at[image][rows, :] = u_r.at[image][rows, :] * channels[2 * K:2 * K + 1, :]

    by_band(p, skip)
    for routes in loops(p):
        lanes, first_route = lanes_of(p, routes), routes[0]
        A = [channels[route.k:route.k + 1, :] for route in routes]
        store_step_sizes(p, routes, refs, options, dt_s)
        entering = lambda lane: (saved_columns if lane.route.k % 2 else saved_rows).at[lane.image, lane.route.k // 2]
        zeros = jnp.zeros((first_route.chunks, p.lanes), F32)

        def advance(lane, rows, h, A=A):
            dt, m = dt_s.at[lane.way, lane.image][rows, :], maps_s.at[lane.image][rows, :]
            return jnp.exp(dt * A[lane.way]) * h + dt * u_r.at[lane.image][rows, :] * column(m, lane.route.k), dt, m

        def first(i, carried, lanes=lanes, advance=advance):
            following = []
            for lane, (h, total) in zip(lanes, carried, strict=True):
                h, dt, _ = advance(lane, lane.route.rows(i), h)
                following.append((h, total + dt))
            return tuple(following)

        ends = jax.lax.fori_loop(0, first_route.steps, first, ((zeros, zeros),) * len(lanes))
        for lane, (h, total) in zip(lanes, ends, strict=True):
            decay_s.at[lane.n][:first_route.chunks, :], end_s.at[lane.n][:first_route.chunks, :] = jnp.exp(total * A[lane.way]), h
        join(lanes, decay_s, end_s, entering, False)

        def second(i, carried, lanes=lanes, advance=advance):
            following = []
            for lane, h in zip(lanes, carried, strict=True):
                rows = lane.route.rows(i)
                h, _, m = advance(lane, rows, h)
                y_r.at[lane.image][rows, :] += h * column(m, K + lane.route.k)
                following.append(h)
            return tuple(following)

        jax.lax.fori_loop(0, first_route.steps, second, tuple(entering(lane)[...] for lane in lanes))
    flush(p, y, y_r)
