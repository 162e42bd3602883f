"""Tiles of the TPU kernels: blocks of time by lanes of channels, with the eight chunks of a block on the eight sublanes.

A block of T = 8 Q steps is loaded row by row with stride Q: row q of all eight chunks fills the eight sublanes of the registers. Chunks are
scanned from zero, their ends are combined in order, and each chunk is scanned again from the state that enters it.
"""
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.arguments import softplus_by_logarithm
from pallas_kernels.tpu.launch import launch

CHUNKS, LANES, UNROLL = 8, 128, 4
F32 = jnp.float32


class Tiles(NamedTuple):
    """Static sizes of one call; channels include the padding of `padded_groups`."""
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
        """Rows per iteration of a loop: several hide latencies in compiled code; in interpret mode they only add compile time."""
        return UNROLL if self.chunk % UNROLL == 0 and not options.interpret else 1

    @property
    def ragged(self):
        return self.blocks * self.steps != self.length

    @property
    def grid(self):
        return self.batch, self.lane_blocks, self.blocks

    def group_of(self, lane_block):
        """Index of the group of a block of lanes."""
        return jax.lax.div(lane_block, self.channels // self.groups // self.lanes) if self.groups > 1 else 0


def tiles(batch, length, channels, groups=1, state=1, max_steps=992):
    """`Tiles` of a call: the fewest blocks, of even size, that `max_steps` (8 times an odd multiple of 4) allows.

    Several groups are padded by `padded_groups`.
    """
    channels = groups * _padded_width(channels // groups, groups)
    blocks = -(-length // max_steps)
    steps = math.ceil(length / blocks)
    steps = CHUNKS * (math.ceil(steps / CHUNKS) if steps <= 128 else _conflict_free(math.ceil(steps / CHUNKS)))
    lanes = min(LANES, channels)
    return Tiles(batch, length, channels, groups, state, steps, lanes)


def _conflict_free(chunk):
    """The next odd multiple of 4: rows at a stride that is a multiple of 8 conflict in a memory bank (two to three times the cycles)."""
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
    """Load row q of each of the eight chunks, (8, lanes)."""
    return ref[pl.ds(q, CHUNKS, stride=chunk), :]


def put_rows(ref, q, chunk, value):
    """Store row q of each of the eight chunks."""
    ref[pl.ds(q, CHUNKS, stride=chunk), :] = value.astype(ref.dtype)


def step_size(delta, bias, softplus):
    """`arguments.step_size` as a TPU computes it fastest: log1p takes 5 cycles a register less than the polynomial of `softplus_and_slope`."""
    return softplus_by_logarithm(delta + bias) if softplus else delta + bias


def entering(decay, end, carry, reverse):
    """State that enters each chunk.

    Args:
        decay, end: each chunk's total decay and its end when begun at zero, (8, lanes).
        carry: state that enters the first chunk, (1, lanes).
        reverse: the first chunk is the last one in memory.

    Returns:
        (states that enter the chunks (8, lanes), state after the last chunk (1, lanes)).
    """
    states = [None] * CHUNKS
    for i in reversed(range(CHUNKS)) if reverse else range(CHUNKS):
        states[i] = carry
        carry = decay[i:i + 1] * carry + end[i:i + 1]
    return jnp.concatenate(states, 0), carry


def vmem_capacity():
    """Bytes of vector memory of this process's TPU; without a TPU, 64 MiB, the least of the generations since v5."""
    try:
        return pltpu.get_tpu_info().vmem_capacity_bytes
    except ValueError:
        return 64 << 20


def shape_like(shape, dtype, *arrays):
    """Shape of an output that varies over the mesh axes over which any of the arrays varies."""
    axes = frozenset().union(*(getattr(jax.typeof(x), "vma", frozenset()) for x in arrays))
    return jax.ShapeDtypeStruct(shape, dtype, vma=axes) if axes else jax.ShapeDtypeStruct(shape, dtype)


def call(name, kernel, t, in_specs, out_specs, out_shape, scratch, interpret):
    """`pallas_call` over `t.grid` for Mosaic; blocks of time run in order."""
    return launch(kernel, name=name, grid=t.grid, in_specs=in_specs, out_specs=out_specs, out_shape=out_shape, scratch_shapes=scratch,
                          interpret=interpret, compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")))
