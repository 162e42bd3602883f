"""Tiles of the kernels of several states per channel, and their walk over time.

A program is one warpgroup and holds one row, that is one (batch, chunk) pair, by 32 channels. Four lanes share a channel and each holds a
quarter of its states in registers, so that more warps run than with a lane per channel, and one load returns B or C of a lane's states. N is
padded to 4, 8 or 16 states, which are zero.

Time is cut into blocks of BLOCK steps, and a block into quads of 4 steps. A quad of a sequence is loaded and stored at once, one step for
each warp; the quads of the next block are loaded during a block. A block's step sizes, inputs, B and C are put into shared memory, from
which the lanes of a channel read them. Sums over lanes go through shared memory as well, where shuffles would take five times as many
instructions.

A length that 4 does not divide ends in empty steps, which leave a state as it is: dt = u = B = C = 0.
"""
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.gpu.plan import BLOCK, LANES, QUAD, SPLIT
from pallas_kernels.gpu.tiles import BaseTile, Replicated, plgpu, tiled_layout, warpgroup_barrier, widen

QUADS = BLOCK // QUAD

# ---- arrays, outside of the kernels

def split_states(x, p):
    """(..., N) -> (..., 4, n): states padded with zeros and split over lanes."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, SPLIT * p.part - x.shape[-1])])
    return x.reshape(*x.shape[:-1], SPLIT, p.part)


def join_states(x, count):
    """The inverse of `split_states`."""
    return x.reshape(*x.shape[:-2], -1)[..., :count]


def of_channels(x, p):
    """(groups * given, ...) -> (channels, ...): narrow groups padded."""
    return jnp.moveaxis(widen(jnp.moveaxis(x, 0, -1), p), -1, 0)


def without_padding(x, p):
    """(rows, padded, ...) -> (rows, steps, ...)."""
    return x[:, :p.steps]


# ---- inside of a kernel

@functools.cache
def layouts(n):
    """Name -> layout of the arrays of a program, of n states per lane."""
    spare = LANES // (SPLIT * n)
    state = tiled_layout(((LANES, SPLIT, n), (LANES // 4, SPLIT, n)), (-6,), (-3, -2), -1)     # channels on warps and lanes
    parts = tiled_layout(((QUAD, LANES, SPLIT), (1, 1, SPLIT)), (-6,), (-5,), -1)              # steps on warps, channels on lanes
    terms = tiled_layout(((QUAD, 2, LANES, SPLIT, n), (1, 1, spare, SPLIT, n), (1,)), (-11,), (-4, -3, -2), -1)
    twice = (Replicated(spare // 2),) if spare > 2 else ()
    values = tiled_layout(((QUAD, 2, SPLIT, n), (1,)), (-5,), (*twice, -4, -3, -2), -1)
    return {"state": state, "channel": state.reduce((1, 2)), "maps": state.reduce((0,)), "part": state.reduce((2,)),
            "parts": parts, "tile": parts.reduce((2,)), "terms": terms, "sums": terms.reduce((2,)), "values": values}


class StateTile(BaseTile):
    """One program's row and channels."""

    def __init__(self, p, interpret):
        program = jax.lax.axis_index("program")
        rest = jax.lax.div(program, p.tiles)
        self.interpret, self.p, self.index = interpret, p, jax.lax.rem(program, p.tiles)
        self.group, self.row = jax.lax.rem(rest, p.groups), jax.lax.div(rest, p.groups)
        start = jnp.minimum(self.index * LANES, p.lanes - LANES)
        self.columns = pl.ds(self.group * p.lanes + start, LANES)
        self.shapes = {"state": (LANES, SPLIT, p.part), "channel": (LANES,), "tile": (QUAD, LANES)}

    @staticmethod
    def programs(p):
        """Number of programs of a plan."""
        return p.rows * p.groups * p.tiles

    def _named(self, x, layout):
        return self._as(x, None if self.interpret else layouts(self.p.part)[layout])

    def load(self, layout, ref, *index):
        """The array at an index, in its own dtype."""
        return self._load(ref, index, None if self.interpret else layouts(self.p.part)[layout])

    def store(self, ref, *index_and_value):
        """Store an array at an index."""
        *index, x = index_and_value
        self._store(ref, tuple(index), x)

    def zeros(self, layout):
        return self._named(jnp.zeros(self.shapes[layout], jnp.float32), layout)

    def spread(self, x):
        """One number per channel, or per state, -> the states."""
        return self._named(jax.lax.broadcast_in_dim(x, self.shapes["state"], (0,) if x.ndim == 1 else (1, 2)), "state")

    def sum(self, x, axis, layout):
        """Sum over an axis, in the layout of the result."""
        return self._named(x.sum(axis), layout)

    def sync(self):
        """Barrier of the program's threads. `commit_smem` also fences asynchronous copies, of which there are none."""
        if self.interpret:
            plgpu.commit_smem()
        else:
            plgpu.inline_mgpu()(lambda _: warpgroup_barrier())()

    # ---- the walk over time; `reverse` is 0 or 1, which the kernel loads

    def blocks(self, reverse, fetch, visit, carry):
        """`carry = visit(b, fetch(b), carry)` for every block in the order of time, with the operands of the next one in flight."""
        count = self.p.segments
        at = lambda k: jnp.where(reverse == 0, k, count - 1 - k)

        def body(k, state):
            operands, carry = state
            following = fetch(at(jnp.minimum(k + 1, count - 1)))
            return following, visit(at(k), operands, carry)
        return jax.lax.fori_loop(0, count, body, (fetch(at(0)), carry))[1]

    def quads(self, b):
        """Number of quads of a block."""
        total = self.p.padded // QUAD
        return min(total, QUADS) if total <= QUADS or total % QUADS == 0 else jnp.minimum(total - b * QUADS, QUADS)

    @staticmethod
    def in_time(reverse, quads, quad, carry):
        """`carry = quad(k, order, carry)` for every quad k of a block, with the places of its steps in the order of time.

        Both directions have their own loop, as places that a loop must compute cost a fifth of its instructions.
        """
        forth = lambda carry: jax.lax.fori_loop(0, quads, lambda k, carry: quad(k, range(QUAD), carry), carry)
        back = lambda carry: jax.lax.fori_loop(0, quads, lambda k, carry: quad(quads - 1 - k, range(QUAD)[::-1], carry), carry)
        return jax.lax.cond(reverse == 0, forth, back, carry)

    def fetch(self, b, load):
        """`load(steps)` of every quad of a block; beyond the end, of the last four steps."""
        return [load(pl.ds(self._first(b, k), QUAD)) for k in range(min(self.p.padded // QUAD, QUADS))]

    def clear(self, b, *refs):
        """Before a block is put: of a length that 4 does not divide, make the last quad zero, as its last steps are empty."""
        if self.p.padded == self.p.steps:
            return

        @pl.when(b == self.p.segments - 1)
        def _():
            self.sync()
            for ref in refs:
                empty = self._named(jnp.zeros((QUAD, *ref.shape[1:]), jnp.float32), "tile" if len(ref.shape) == 2 else "values")
                self.store(ref, pl.ds(self.p.padded - QUAD - b * BLOCK + self.lead, QUAD), empty)
        self.sync()

    def put(self, b, ref, quads):
        """Store quads in shared memory by their positions in the block."""
        for k, x in enumerate(quads):
            place = k * QUAD if self.p.steps % BLOCK == 0 else self._first(b, k) - b * BLOCK + self.lead
            self.store(ref, pl.ds(place, QUAD), x)

    @property
    def lead(self):
        return lead(self.p)

    def _first(self, b, k):
        first = b * BLOCK + k * QUAD
        return first if self.p.steps % BLOCK == 0 else jnp.minimum(first, self.p.steps - QUAD)


def lead(p):
    """Rows of shared memory before those of a block: the last block's load begins before it if it has fewer than four steps."""
    return QUAD if 0 < p.steps % BLOCK < QUAD else 0


def block_rows(p):
    """Rows of shared memory of a block."""
    return min(p.padded, BLOCK) + lead(p)
