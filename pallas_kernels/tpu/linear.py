"""First-order recurrence h_t = a_t h_{t-1} + b_t as a TPU kernel; complex numbers are two real planes, see `planes`."""
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels import planes
from pallas_kernels.autodiff import differentiable_recurrence
from pallas_kernels.planes import plus, times
from pallas_kernels.tpu.tiles import CHUNKS, F32, call, put_rows, rows, shape_like, tiles


def linear_scan(a, b, options):
    """Every state of h_t = a_t h_{t-1} + b_t."""
    return differentiable_recurrence(_states, options)(a, b)


def _states(a, b, options):
    t = tiles(*b.shape)
    inputs = *planes.split(a), *planes.split(b)
    stream = pl.BlockSpec((pl.squeezed, t.steps, t.lanes), lambda b, c, i: (b, t.blocks - 1 - i if options.reverse else i, c))
    count = len(inputs) // 2
    h = call("linear_scan", functools.partial(_kernel, t, options, count), t, [stream] * len(inputs), [stream] * count,
             [shape_like(b.shape, F32, *inputs)] * count,
             [pltpu.VMEM((count, t.lanes), F32)] + [pltpu.VMEM((t.steps, t.lanes), F32)] * (2 * count), options.interpret)(*inputs)
    return planes.join(h)


def _kernel(t, options, count, *refs):
    inputs, outputs, carry, scratch = refs[:2 * count], refs[2 * count:3 * count], refs[3 * count], refs[3 * count + 1:]
    Q, reverse, block = t.chunk, options.reverse, pl.program_id(2)

    @pl.when(block == 0)
    def _():
        carry[...] = jnp.zeros_like(carry)

    if t.ragged:                                           # steps beyond the length: a = b = 0
        first = (t.blocks - 1 - block if reverse else block) * t.steps
        present = first + jax.lax.broadcasted_iota(jnp.int32, (t.steps, 1), 0) < t.length
        for ref, copy in zip(inputs, scratch, strict=True):
            copy[...] = jnp.where(present, ref[...], 0)
        inputs = scratch
    time = (lambda i: Q - 1 - i) if reverse else (lambda i: i)
    read = lambda refs, q: tuple(rows(ref, q, Q) for ref in refs)

    def first_pass(i, carried):
        h, decay = carried
        q = time(i)
        a = read(inputs[:count], q)
        return plus(times(a, h), read(inputs[count:], q)), times(a, decay)

    zeros, ones = jnp.zeros((CHUNKS, t.lanes), F32), jnp.ones((CHUNKS, t.lanes), F32)
    end, decay = jax.lax.fori_loop(0, Q, first_pass, ((zeros,) * count, (ones, zeros)[:count]), unroll=t.unroll(options))
    state, entries = tuple(carry[i:i + 1, :] for i in range(count)), [None] * CHUNKS
    for i in reversed(range(CHUNKS)) if reverse else range(CHUNKS):
        entries[i] = state
        state = plus(times(tuple(x[i:i + 1] for x in decay), state), tuple(x[i:i + 1] for x in end))
    for i in range(count):
        carry[i:i + 1, :] = state[i]

    def second_pass(i, h):
        q = time(i)
        h = plus(times(read(inputs[:count], q), h), read(inputs[count:], q))
        for ref, plane in zip(outputs, h, strict=True):
            put_rows(ref, q, Q, plane)
        return h

    jax.lax.fori_loop(0, Q, second_pass, tuple(jnp.concatenate([f[i] for f in entries], 0) for i in range(count)),
                      unroll=t.unroll(options))
