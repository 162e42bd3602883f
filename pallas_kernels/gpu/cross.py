"""The scan of a map along four directions on NVIDIA GPUs, in one launch a pass.

The directions are four groups of channels over one u, and a program finds its positions on the map by arithmetic: nothing is transposed or
permuted. The step sizes of all directions are one matrix product with a block-diagonal weight, whose result lies as the kernels read it. If a
map fits in shared memory, a program scans all four directions and adds them there; else every direction stores its part of the sum.
Small batches, which do not fill the chip without cutting time, take four scans (`pallas_kernels.cross`).
"""
import functools

import jax
import jax.numpy as jnp

from pallas_kernels import cross
from pallas_kernels.arguments import CrossArguments
from pallas_kernels.gpu import backward as one_backward
from pallas_kernels.gpu import forward as one_forward
from pallas_kernels.gpu.plan import map_plan
from pallas_kernels.gpu.tiles import narrow, over_rows, widen


def passes(args):
    """(forward, backward) of a cross scan of these arguments, as for `autodiff.differentiable`; None: four scans are faster."""
    p = map_plan(*args.u.shape, args.A.shape[-1])
    return None if p is None else _passes(p)


@functools.cache        # equal plans give the same functions, by which jax knows a program again
def _passes(p):
    return functools.partial(forward, p=p), functools.partial(backward, p=p._replace(turns=1))


def forward(args, options, p):
    """(merged map, the states before each segment)."""
    dtype = options.out_dtype if p.turns > 1 else jnp.promote_types(jnp.float32, options.out_dtype).name
    x = _rows_of(args, _step_sizes(args.steps, args.dt_weight, p), p)
    y, saved = one_forward.states(None, x, None, p=p, softplus=options.delta_softplus, out_dtype=dtype, interpret=options.interpret)
    return _merged(y, args.u.shape, p).astype(options.out_dtype), saved


def backward(args, saved, dy, options, p):
    """Cotangents of args. The step sizes, a map four times as large as u, are projected again."""
    args, dy = jax.lax.optimization_barrier((args, dy))    # else the compiler keeps those of the forward pass
    delta, pullback = jax.vjp(functools.partial(_step_sizes, p=p), args.steps, args.dt_weight)
    x = _rows_of(args, delta, p)
    dy = widen(dy.reshape(p.rows, p.steps, -1), p)
    out = one_backward.sweep(None, x, dy, saved, None, p=p, softplus=options.delta_softplus, interpret=options.interpret)
    d_steps, d_weight = pullback(out["ddelta"])
    each = lambda x, like: None if like is None else narrow(x.sum(0), p).reshape(like.shape).astype(like.dtype)
    dB, dC = jnp.split(out["dBC"].sum(0).reshape(*args.B.shape[:-1], -1), 2, -1)
    dA = narrow(out["dA"].sum(0), p).reshape(args.A.shape[-1], *args.A.shape[:2])
    return CrossArguments(u=_merged(out["du"], args.u.shape, p).astype(args.u.dtype), steps=d_steps, dt_weight=d_weight,
                          A=jnp.moveaxis(dA, 0, -1).astype(args.A.dtype), B=dB.astype(args.B.dtype), C=dC.astype(args.C.dtype),
                          D=each(out.get("dD"), args.D), delta_bias=each(out.get("dbias"), args.delta_bias))


def _step_sizes(steps, weight, p):
    """(batch, positions, 4 channels): the step sizes of all directions before bias and softplus, by one product."""
    directions, channels, rank = weight.shape
    dtype = jnp.promote_types(steps.dtype, weight.dtype)
    blocks = jnp.einsum("kl,kcr->krlc", jnp.eye(directions, dtype=dtype), weight.astype(dtype))
    delta = cross.product(steps.reshape(p.rows, p.steps, -1).astype(dtype), blocks.reshape(directions * rank, directions * channels))
    return widen(delta, p)


def _rows_of(args, delta, p):
    """`RowArguments` whose groups are the directions; u has the channels of one."""
    channels = lambda x: x.reshape(*x.shape[:-2], -1)                              # (..., 4, E) -> (..., 4 E)
    shared = lambda x: None if x is None else over_rows(channels(x), p)
    return one_forward.RowArguments(
        u=widen(args.u.reshape(p.rows, p.steps, -1), p), delta=delta,
        A=shared(jnp.moveaxis(args.A, -1, 0).astype(jnp.float32) * one_forward.LOG2_E),
        BC=one_forward.input_and_output_maps(args).reshape(p.rows, p.steps, *args.B.shape[3:-1], -1), D=shared(args.D), bias=shared(args.delta_bias))


def _merged(parts, shape, p):
    """(rows, steps, channels) of all directions or of their sum -> their sum on the map, in float32 or wider."""
    parts = narrow(parts, p)
    parts = parts.reshape(*parts.shape[:2], -1, shape[-1])
    return parts.sum(2, dtype=jnp.promote_types(jnp.float32, parts.dtype)).reshape(shape)
