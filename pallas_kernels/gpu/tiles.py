"""Tiles of the GPU kernels: how arrays are cut, how a tile is loaded and stored, and the loop over time steps.

Time is cut into chunks that run in parallel; (batch, chunk) pairs are *rows*. A program is one warpgroup and holds a tile of 4 rows, one
for each warp, by 32, 64, 96 or 128 channels, with consecutive channels on consecutive lanes: float32 is loaded and stored in whole 128-byte
lines, and a sum over the tile's channels stays inside a warp (five shuffles, no barrier, no shared memory). Widths of 96, 192 or 384 leave
no lane idle. A last tile that would exceed the channels is shifted back over its neighbor: both compute the same numbers and store the same
values. Only groups narrower than 32 channels are padded (by XLA, to 32), and only a length that no suitable number of chunks divides.

Operands are loaded from global memory into registers a few steps ahead of their use. `emit_pipeline` would need every width aligned for TMA
and a length of whole blocks, and would take tens of KB of the shared memory in which the backward pass stores states. This form is the same
on Ampere and Hopper, in interpret mode and in jax 0.10 to 0.12.

Kernels use lane semantics and state the layout of every load. With warpgroup semantics, JAX searches for the layouts, and lowering takes 3
to 7 times as long for the same loads, stores and arithmetic.
"""
import functools
import inspect
import types

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.gpu.plan import AHEAD, LANES, ROWS

try:
    from jax.experimental.mosaic.gpu import warpgroup_barrier
    from jax.experimental.mosaic.gpu.fragmented_array import Replicated, TiledLayout, Tiling
    from jax.experimental.pallas import mosaic_gpu as plgpu
except ImportError as error:  # a jaxlib built without Mosaic GPU; selective.refusal reports it
    plgpu, Replicated, warpgroup_barrier, UNAVAILABLE = None, None, None, error
else:
    UNAVAILABLE = None

# ---- arrays, outside of the kernels

def to_rows(x, p):
    """(b, L, ...) -> (rows, steps, ...); copied only when the chunks do not divide L and padding is needed."""
    short = p.chunks * p.steps - p.length
    x = jnp.pad(x, ((0, 0), (0, short)) + ((0, 0),) * (x.ndim - 2)) if short else x
    return x.reshape(p.rows, p.steps, *x.shape[2:])


def from_rows(x, p):
    """(rows, steps, ...) -> (b, L, ...)."""
    return x.reshape(p.batch, p.chunks * p.steps, *x.shape[2:])[:, :p.length]


def widen(x, p):
    """(..., given of every group) -> (..., lanes of every group): narrow groups padded with zeros; x may hold one group only."""
    if p.lanes == p.given:
        return x
    x = x.reshape(*x.shape[:-1], -1, p.given)
    x = jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, p.lanes - p.given),))
    return x.reshape(*x.shape[:-2], -1)


def narrow(x, p):
    """The inverse of `widen`."""
    if p.lanes == p.given:
        return x
    x = x.reshape(*x.shape[:-1], -1, p.lanes)[..., :p.given]
    return x.reshape(*x.shape[:-2], -1)


def over_rows(x, p):
    """(..., groups * given) -> (..., 4, channels) in float32: an array that all rows share, in the shape of a tile."""
    x = widen(x.astype(jnp.float32), p)
    return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], ROWS, x.shape[-1]))


def owned_channels(p):
    """(tiles, width): 1 where a channel is not in an earlier tile, else 0; None if tiles do not overlap."""
    if not p.overlapping:
        return None
    start = jnp.minimum(jnp.arange(p.tiles) * p.width, p.lanes - p.width)
    before = jnp.concatenate([jnp.zeros(1, int), start[:-1] + p.width])
    new = start[:, None] + jnp.arange(p.width) >= before[:, None]
    return new.astype(jnp.float32)


def direction(reverse):
    """The direction of time as an array that a kernel loads, so that one kernel serves both directions."""
    return jnp.full((1,), reverse, jnp.int32)


# ---- inside of a kernel

def tiled_layout(tiles, warps, lanes, vector):
    """Layout of an array cut into `tiles`, of which these dimensions lie on warps, on lanes and in one register."""
    layout = TiledLayout(Tiling(tiles), warps, lanes, vector, _check_canonical=False).canonicalize()
    return plgpu.Layout.TILED(layout.tiling, layout.warp_dims, layout.lane_dims, layout.vector_dim)


@functools.cache
def _layouts():
    """Layouts of a (4, width) tile, rows on warps and channels on lanes, and of a (4,) vector with one number per row."""
    tile = tiled_layout(((ROWS, LANES), (1,)), (-3,), (-2,), -1)
    return tile, tile.reduce(1)


class BaseTile:
    """Loads and stores of arrays in a stated layout; `interpret`: on a CPU, where arrays have none."""
    interpret = False

    def _as(self, x, layout):
        return x if self.interpret else plgpu.layout_cast(x, layout)

    def _load(self, ref, index, layout):
        if self.interpret:
            return ref[index]
        idx = inspect.signature(plgpu.load).parameters.get("idx")
        if idx is not None and idx.default is idx.empty:                   # jax 0.10; 0.11 still takes it, with a warning
            return plgpu.load(ref, index, layout=layout, optimized=False)
        return plgpu.load(ref.at[index], layout=layout, optimized=False)

    def _store(self, ref, index, x):
        if self.interpret or not hasattr(plgpu, "store"):
            ref[index] = x.astype(ref.dtype)
        else:
            plgpu.store(ref.at[index], x.astype(ref.dtype), optimized=False)

    def sync(self):
        """Make what the threads stored in shared memory visible to all of them."""
        plgpu.commit_smem()


class Tile(BaseTile):
    """One program's tile: its position, and loads and stores there."""

    def __init__(self, p, interpret):
        program = jax.lax.axis_index("program")
        rest, part = jax.lax.div(program, p.tiles), p.groups // p.turns
        self.interpret, self.shape, self.index = interpret, (ROWS, p.width), jax.lax.rem(program, p.tiles)
        self.first, self.part, self.lanes = jax.lax.rem(rest, part), part, p.lanes
        self.rows = pl.ds(jnp.minimum(jax.lax.div(rest, part) * ROWS, p.rows - ROWS), ROWS)
        self.start = jnp.minimum(self.index * p.width, p.lanes - p.width)
        self.turn(0)

    @staticmethod
    def programs(p):
        """Number of programs of a plan."""
        return -(-p.rows // ROWS) * (p.groups // p.turns) * p.tiles

    def turn(self, k):
        """Move to the k-th group of the program."""
        self.group = self.first + k * self.part
        self.columns = pl.ds(self.group * self.lanes + self.start, self.shape[1])
        return self

    @property
    def shared_columns(self):
        """The tile's channels in an array that the groups share."""
        return pl.ds(self.start, self.shape[1])

    def load(self, ref, *index):
        """The tile at an index of an array whose last axis is channels, or of scratch, in its own dtype."""
        return self._load(ref, index, _layouts()[0])

    def load_float(self, ref, *index):
        """`load` in float32."""
        return self.load(ref, *index).astype(jnp.float32)

    def load_row_values(self, ref, *index):
        """One number per row, (4,)."""
        return self._load(ref, index, _layouts()[1])

    def store(self, ref, *index_and_value):
        """Store a tile at an index."""
        *index, x = index_and_value
        self._store(ref, tuple(index), x)

    def store_sum(self, ref, *index_and_value):
        """Store a tile's sums over channels, one number per row."""
        *index, x = index_and_value
        self._store(ref, tuple(index), self._as(x.sum(1), _layouts()[1]))

    def spread(self, x):
        """One number per row -> the tile."""
        return self._as(jax.lax.broadcast_in_dim(x, self.shape, (0,)), _layouts()[0])

    def zeros(self):
        return self._as(jnp.zeros(self.shape, jnp.float32), _layouts()[0])


def pipelined_loop(count, fetch, step, carry, ahead=AHEAD, begin=None):
    """Loop over steps with loads issued ahead of their use: `carry = step(i, fetch(i), carry)` for i below count.

    Args:
        count: number of steps.
        fetch: i -> operands of step i, issued `ahead` steps early.
        step: (i, operands, carry) -> carry.
        carry: the initial carry.
        ahead: number of steps in flight; the loop is unrolled by it.
        begin: (i, carry) -> None, called at every `ahead`-th step before it runs; None: not called.

    Returns:
        the final carry.
    """
    operands = [fetch(j) for j in range(min(ahead, count))]

    def group(k, state):
        operands, carry = state
        first = k * ahead
        if begin is not None:
            begin(first, carry)
        following = [fetch(jnp.minimum(first + ahead + j, count - 1)) for j in range(ahead)]
        for j in range(ahead):
            carry = step(first + j, operands[j], carry)
        return following, carry

    groups = count // ahead
    if groups:
        operands, carry = jax.lax.fori_loop(0, groups, group, (operands, carry))
    if begin is not None and count % ahead:
        begin(groups * ahead, carry)
    for j in range(count % ahead):
        carry = step(groups * ahead + j, operands[j], carry)
    return carry


def loop(count):
    """Decorator that runs `body(n)` for n below count."""
    def run(body):
        jax.lax.fori_loop(0, count, lambda n, _: body(n), None)
    return run


def clock(direction, p, group):
    """Function from the step of the scan to the position in the chunk, or of a map to the position in raster order.

    Args:
        direction: the kernel's reference to `direction(reverse)`; None for a map, whose group tells it.
        p: the `Plan`.
        group: of a map, the direction: odd ones run along the columns, the last two in reverse.
    """
    reverse = direction[0] if p.map is None else jax.lax.div(group, 2)
    first, stride = reverse * (p.steps - 1), 1 - 2 * reverse
    in_place = lambda i: first + stride * i
    if p.map is None:
        return in_place
    height, width = p.map
    along, back = 1 + jax.lax.rem(group, 2) * (width - 1), jax.lax.rem(group, 2) * (height * width - 1)

    def time(i):
        i = in_place(i)
        return i * along - quotient(i, height, p.steps) * back         # the columns before step i, of `height` steps each
    return time


def quotient(i, divisor, bound):
    """i // divisor for 0 <= i < bound by a product and a shift where those are exact in 32 bits."""
    for shift in range(30, 0, -1):
        factor = -(-2**shift // divisor)
        if (bound - 1) * factor < 2**31 and (factor * divisor - 2**shift) * (bound - 1) < 2**shift:
            return jax.lax.shift_right_logical(i * factor, shift)
    return jax.lax.div(i, divisor)


def interpreter():
    """Parameters of Mosaic GPU's interpret mode on CPU; the class is public from jax 0.11."""
    try:
        return plgpu.InterpretGPUParams()
    except AttributeError:
        from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
        return InterpretGPUParams()


def launch(body, p, interpret, inputs, outputs, scratch=None, tile=Tile):
    """Run `body(tile, refs)` for every tile.

    Args:
        body: the kernel; refs has an attribute for each name below.
        p: the `Plan`.
        interpret: run in interpret mode on CPU.
        inputs: name -> array, or None for an absent one, which is None in refs too.
        outputs: name -> (shape, dtype).
        scratch: name -> shape of float32 shared memory; None: no shared memory.
        tile: class of the tile.

    Returns:
        name -> array of the outputs.
    """
    present = {name: x for name, x in inputs.items() if x is not None}
    absent = dict.fromkeys(inputs.keys() - present.keys())
    names = [*present, *outputs, *(scratch or {})]

    def kernel(*refs):
        body(tile(p, interpret), types.SimpleNamespace(**dict(zip(names, refs, strict=True)), **absent))

    # No barriers around loads and stores: a warp loads only what it stored itself, or what no thread of this launch stores.
    parameters = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True,
                                      approx_math=True)
    run = plgpu.kernel(kernel, out_type=tuple(jax.ShapeDtypeStruct(*x) for x in outputs.values()),
                       scratch_types=tuple(plgpu.SMEM(shape, jnp.float32) for shape in (scratch or {}).values()),
                       grid=(tile.programs(p),), grid_names=("program",), compiler_params=parameters,
                       **(dict(interpret=interpreter()) if interpret else {}))
    return dict(zip(outputs, run(*present.values()), strict=True))
