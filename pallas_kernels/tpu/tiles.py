"""How the TPU kernels cut their arrays: blocks of time by lanes of channels, eight chunks of a block side by side on the sublanes.

A block of T = 8 Q steps is read row by row with stride Q: row q of all eight chunks fills the eight sublanes of the registers. Chunks are scanned
from zero, their ends combined in order, and finished from what enters them.
"""
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

CHUNKS, LANES, UNROLL = 8, 128, 4
F32 = jnp.float32


class Tiles(NamedTuple):
    """Static sizes of one call; channels are those the kernel sees."""
    batch: int
    length: int
    channels: int
    groups: int
    state: int
    steps: int        # T, steps of a block
    lanes: int        # channels of a block

    @property
    def blocks(self):
        return -(-self.length // self.steps)

    @property
    def lane_blocks(self):
        return -(-self.channels // self.lanes)

    @property
    def chunk(self):
        return self.steps // CHUNKS

    def unroll(self, options):
        """Rows per turn of a loop: a compiled one hides its latencies behind several, an interpreted one only compiles longer."""
        return UNROLL if self.chunk % UNROLL == 0 and not options.interpret else 1

    @property
    def ragged(self):
        return self.blocks * self.steps != self.length

    @property
    def grid(self):
        return self.batch, self.lane_blocks, self.blocks

    def group_of(self, lane_block):
        """Index of the group that a block of lanes lies in."""
        return jax.lax.div(lane_block, self.channels // self.groups // self.lanes) if self.groups > 1 else 0


def tiles(batch, length, channels, groups=1, state=1, max_steps=992):
    """Tiles of a call, with as few and as even blocks as `max_steps` (8 times an odd multiple of 4) allows; `padded_groups` pads several groups."""
    channels = groups * _padded_width(channels // groups, groups)
    blocks = -(-length // max_steps)
    steps = math.ceil(length / blocks)
    steps = CHUNKS * (math.ceil(steps / CHUNKS) if steps <= 128 else _conflict_free(math.ceil(steps / CHUNKS)))
    lanes = min(LANES, channels)
    return Tiles(batch, length, channels, groups, state, steps, lanes)


def _conflict_free(chunk):
    """The next odd multiple of 4: rows that are a multiple of 8 apart wait for the same memory bank (two to three times the cycles)."""
    return math.ceil((chunk - 4) / 8) * 8 + 4


def _padded_width(width, groups):
    return width if groups == 1 else math.ceil(width / LANES) * LANES


def padded_groups(x, groups):
    """(..., D) with the channels of each of several groups padded to a multiple of 128."""
    width = x.shape[-1] // groups
    extra = _padded_width(width, groups) - width
    if not extra:
        return x
    x = x.reshape(*x.shape[:-1], groups, width)
    return jnp.pad(x, (*((0, 0),) * (x.ndim - 1), (0, extra))).reshape(*x.shape[:-2], -1)


def cut_groups(x, groups, width):
    """Inverse of `padded_groups` for groups of `width` channels."""
    if x.shape[-1] == groups * width:
        return x
    return x.reshape(*x.shape[:-1], groups, -1)[..., :width].reshape(*x.shape[:-1], -1)


def rows(ref, q, chunk):
    """Row q of each of the eight chunks, (8, lanes)."""
    return ref[pl.ds(q, CHUNKS, stride=chunk), :]


def put_rows(ref, q, chunk, value):
    """Store row q of each of the eight chunks."""
    ref[pl.ds(q, CHUNKS, stride=chunk), :] = value.astype(ref.dtype)


def entering(decay, end, carry, reverse):
    """What enters each chunk, given each one's total decay and its end from zero, (8, lanes), and what enters the first, (1, lanes).

    Returns ((8, lanes), what leaves the last).
    """
    found = [None] * CHUNKS
    for i in reversed(range(CHUNKS)) if reverse else range(CHUNKS):
        found[i] = carry
        carry = decay[i:i + 1] * carry + end[i:i + 1]
    return jnp.concatenate(found, 0), carry


def vmem_capacity():
    """Bytes of vector memory of this process's TPU; without one, what every generation since v5 has."""
    try:
        return pltpu.get_tpu_info().vmem_capacity_bytes
    except ValueError:
        return 64 << 20


def shape_like(shape, dtype, *arrays):
    """An output's shape, varying over the mesh axes that any of the arrays varies over."""
    axes = frozenset().union(*(getattr(jax.typeof(x), "vma", frozenset()) for x in arrays))
    return jax.ShapeDtypeStruct(shape, dtype, vma=axes) if axes else jax.ShapeDtypeStruct(shape, dtype)


def call(name, kernel, t, in_specs, out_specs, out_shape, scratch, interpret):
    """pallas_call over `t.grid` for Mosaic; blocks of time follow one another."""
    return pl.pallas_call(kernel, name=name, grid=t.grid, in_specs=in_specs, out_specs=out_specs, out_shape=out_shape, scratch_shapes=scratch,
                          interpret=interpret, compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")))
