"""What the GPU kernels share: how arrays are cut into tiles, how a tile is read and written, and how a serial loop is kept fed.

Time is cut into chunks that run side by side; (batch, chunk) pairs are *rows*. A program is one warpgroup and holds a tile of 4 rows, one
a warp, by 32, 64, 96 or 128 channels, consecutive channels on consecutive lanes: float32 is read and written in whole 128-byte lines, and a
sum over the tile's channels stays inside a warp (five shuffles, no barrier, no shared memory). Widths of 96, 192 or 384 leave no lane
idle. A last tile that would stick out is moved back over its neighbour: both compute the same numbers and write the same values. Only
groups narrower than 32 channels are padded (by XLA, to 32), and only a length that no suitable number of chunks divides.

Operands are read from global memory into registers a few steps ahead of their use, not through `emit_pipeline`: that needs every width
aligned for TMA and a length of whole blocks, and holds tens of KB of shared memory that the backward pass wants for states. This form is
the same on Ampere and Hopper, in interpret mode and in jax 0.10 to 0.12.
"""
import functools
import inspect
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

try:
    from jax.experimental.mosaic.gpu.fragmented_array import TiledLayout, Tiling
    from jax.experimental.pallas import mosaic_gpu as plgpu
except ImportError as error:  # a jaxlib built without Mosaic GPU; selective.refusal reports it
    plgpu, UNAVAILABLE = None, error
else:
    UNAVAILABLE = None

ROWS, LANES = 4, 32
AHEAD = 4            # steps between reading an operand and using it, usually
FILL = 2 * 132       # programs that keep a Hopper chip busy; with fewer, time is cut into chunks
SHORTEST = 64        # steps a chunk should have at least: below, a kernel's launch costs more than the steps it saves


class Plan(NamedTuple):
    """Static geometry of one call."""
    batch: int
    length: int
    groups: int
    given: int       # channels of a group
    lanes: int       # the same, padded to 32 if below
    across: int      # channels a lane holds
    tiles: int       # tiles of a group
    chunks: int      # chunks of a sequence
    steps: int       # steps of a chunk
    segment: int     # steps between two saved states
    ahead: int       # steps between reading an operand and using it; the more states, the more work (and the slower to compile) a step is

    @property
    def width(self):
        return LANES * self.across

    @property
    def rows(self):
        return self.batch * self.chunks

    @property
    def segments(self):
        return -(-self.steps // self.segment)

    @property
    def channels(self):
        return self.groups * self.lanes

    @property
    def overlapping(self):
        return self.tiles * self.width > self.lanes


def plan(batch, length, groups, per_group, state):
    """The cut: of the tile widths that compute fewest channels twice the widest that makes FILL programs of a whole sequence each. If none
    does, time too is cut, since chunks read u and delta twice and narrow tiles do not: into as many chunks as reach FILL (up to four times
    that to divide the length) but none shorter than SHORTEST, of the widest tiles that then reach FILL, or are widest if none do. A program
    needs 4 rows: a batch below 4 is always cut.

    Saved states weigh N / segment of u; a segment is what shared memory holds: 32 KB at N = 1, 64 KB (states, step sizes, two sums) above.
    """
    lanes = max(per_group, LANES)
    widest = {1: 4, 2: 2}.get(state, 1)          # registers: every state of a channel is in one in the forward pass
    count = {m: -(-lanes // (LANES * m)) for m in range(widest, 0, -1) if LANES * m <= lanes}
    widths = [m for m in count if m * count[m] == min(m * count[m] for m in count)]
    programs = {m: -(-batch // ROWS) * groups * count[m] for m in widths}
    cuts = {m: max(-(-ROWS // batch), min(-(-FILL // programs[m]), length // SHORTEST)) for m in widths}
    whole, cut = ([m for m in widths if programs[m] * times[m] >= FILL] for times in (dict.fromkeys(widths, 1), cuts))
    across = (whole or cut or widths)[0]
    wanted = cuts[across]
    chunks = next((k for k in range(wanted, 4 * wanted) if length % k == 0), wanted)
    segment = {1: 64, 2: 32, 3: 16, 4: 16}[across] // (1 if state == 1 else 2)
    thin = state == 1 and across <= 2 and programs[across] >= FILL          # few bytes a read: more of them under way
    ahead = 2 * AHEAD if thin else max(1, AHEAD // max(1, state // 2))
    return Plan(batch, length, groups, per_group, lanes, across, count[across], chunks, -(-length // chunks), segment, ahead)


# ---- arrays, outside of the kernels

def to_rows(x, p):
    """(b, L, ...) -> (rows, steps, ...); the copy that padding makes is only there when the chunks do not divide L."""
    short = p.chunks * p.steps - p.length
    x = jnp.pad(x, ((0, 0), (0, short)) + ((0, 0),) * (x.ndim - 2)) if short else x
    return x.reshape(p.rows, p.steps, *x.shape[2:])


def from_rows(x, p):
    """(rows, steps, ...) -> (b, L, ...)."""
    return x.reshape(p.batch, p.chunks * p.steps, *x.shape[2:])[:, :p.length]


def widen(x, p):
    """(..., groups * given) -> (..., channels): narrow groups padded with zeros."""
    if p.lanes == p.given:
        return x
    x = x.reshape(*x.shape[:-1], p.groups, p.given)
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, p.lanes - p.given),)).reshape(*x.shape[:-2], p.channels)


def narrow(x, p):
    """The inverse of `widen`."""
    if p.lanes == p.given:
        return x
    return x.reshape(*x.shape[:-1], p.groups, p.lanes)[..., :p.given].reshape(*x.shape[:-1], p.groups * p.given)


def over_rows(x, p):
    """(..., groups * given) -> (..., 4, channels) in float32, as a tile reads what all rows share."""
    x = widen(x.astype(jnp.float32), p)
    return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], ROWS, x.shape[-1]))


# ---- inside of a kernel

@functools.cache
def _layouts():
    """Of a (4, width) tile, rows on warps and channels on lanes, and of the (4,) vector that is one number a row."""
    tile = TiledLayout(Tiling(((ROWS, LANES), (1,))), warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)
    tile = plgpu.Layout.TILED(tile.tiling, tile.warp_dims, tile.lane_dims, tile.vector_dim)
    return tile, tile.reduce(1)


class Tile:
    """One program's tile: where it lies, and reading and writing there."""

    def __init__(self, p, interpret):
        self.interpret, self.shape, self.index = interpret, (ROWS, p.width), jax.lax.axis_index("tile")
        self.group = jax.lax.axis_index("group")
        self.rows = pl.ds(jnp.minimum(jax.lax.axis_index("row") * ROWS, p.rows - ROWS), ROWS)
        self.columns = pl.ds(self.group * p.lanes + jnp.minimum(self.index * p.width, p.lanes - p.width), p.width)

    def _as(self, x, layout):
        return x if self.interpret else plgpu.layout_cast(x, _layouts()[layout])

    def _implied(self, x, layout):
        """A layout that follows from what x is combined with: the search of jax 0.10 needs it stated, the later one is faster without."""
        return x if hasattr(plgpu, "store") else self._as(x, layout)

    def _read(self, ref, index):
        if self.interpret:
            return ref[index]
        if "idx" in inspect.signature(plgpu.load).parameters:              # jax 0.10
            return plgpu.load(ref, index, optimized=False)
        return plgpu.load(ref.at[index], optimized=False)

    def _write(self, ref, index, x):
        if self.interpret or not hasattr(plgpu, "store"):
            ref[index] = x.astype(ref.dtype)
        else:
            plgpu.store(ref.at[index], x.astype(ref.dtype), optimized=False)

    def raw(self, ref, *index):
        """The tile at index of an array whose last axis is channels, or of scratch, as it is stored."""
        return self._implied(self._read(ref, index), 0)

    def read(self, ref, *index):
        """The same in float32, its layout stated."""
        return self._as(self._read(ref, index).astype(jnp.float32), 0)

    def write(self, ref, *index_and_value):
        """Store a tile at an index."""
        *index, x = index_and_value
        self._write(ref, tuple(index), x)

    def each(self, ref, *index):
        """One float32 a row."""
        return self._implied(self._read(ref, index), 1)

    def spread(self, x):
        """One number a row -> the tile."""
        return self._implied(jax.lax.broadcast_in_dim(x, self.shape, (0,)), 0)

    def write_sum(self, ref, *index_and_value):
        """Store a tile's sums over channels, one number a row."""
        *index, x = index_and_value
        self._write(ref, tuple(index), self._implied(x.sum(1), 1))

    def settle(self):
        """Make what a warp wrote to shared memory readable by all its lanes: Mosaic moves tiles by stmatrix and ldmatrix, across lanes."""
        plgpu.commit_smem()

    def zeros(self):
        return self._as(jnp.zeros(self.shape, jnp.float32), 0)


def march(count, fetch, step, carry, ahead=AHEAD, begin=None):
    """`carry = step(i, fetch(i), carry)` for i below count, each fetch issued `ahead` steps early; `begin(i, carry)` runs every `ahead`."""
    held = [fetch(j) for j in range(min(ahead, count))]

    def group(k, state):
        held, carry = state
        first = k * ahead
        if begin is not None:
            begin(first, carry)
        coming = [fetch(jnp.minimum(first + ahead + j, count - 1)) for j in range(ahead)]
        for j in range(ahead):
            carry = step(first + j, held[j], carry)
        return coming, carry

    groups = count // ahead
    if groups:
        held, carry = jax.lax.fori_loop(0, groups, group, (held, carry))
    if begin is not None and count % ahead:
        begin(groups * ahead, carry)
    for j in range(count % ahead):
        carry = step(groups * ahead + j, held[j], carry)
    return carry


def clock(p, reverse):
    """Step of the scan -> position in the chunk."""
    return (lambda i: p.steps - 1 - i) if reverse else (lambda i: i)


def interpreter():
    """CPU interpret mode of Mosaic GPU; its class is public from jax 0.11."""
    try:
        return plgpu.InterpretGPUParams()
    except AttributeError:
        from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
        return InterpretGPUParams()


def launch(body, p, interpret, inputs, outputs, scratch=None):
    """Run `body(tile, refs)` for every tile.

    Args:
        inputs: name -> array, or None for one that is not there; refs has it under that name.
        outputs: name -> (shape, dtype).
        scratch: name -> shape of float32 shared memory.

    Returns:
        name -> array of the outputs.
    """
    present = {name: x for name, x in inputs.items() if x is not None}
    absent = dict.fromkeys(inputs.keys() - present.keys())
    names = [*present, *outputs, *(scratch or {})]

    def kernel(*refs):
        body(Tile(p, interpret), types.SimpleNamespace(**dict(zip(names, refs, strict=True)), **absent))

    # No barriers around reads and writes: a warp reads only what it wrote itself, or what no thread of this launch writes.
    parameters = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup, unsafe_no_auto_barriers=True)
    run = plgpu.kernel(kernel, out_type=tuple(jax.ShapeDtypeStruct(*x) for x in outputs.values()),
                       scratch_types=tuple(plgpu.SMEM(shape, jnp.float32) for shape in (scratch or {}).values()),
                       grid=(-(-p.rows // ROWS), p.groups, p.tiles), grid_names=("row", "group", "tile"), compiler_params=parameters,
                       **(dict(interpret=interpreter()) if interpret else {}))
    return dict(zip(outputs, run(*present.values()), strict=True))
