"""What the forward and the backward pass of the fused cross scan share: sizes, routes, blocks, and loops over the map.

The map is row-major, (H W, lanes). A direction along the columns loads whole rows of the map, one after the other: its chunks are the
columns. A direction along the rows loads the map with stride W: its chunks are the rows.

A loop turn of a small map is one or two registers, whose arithmetic is a chain: a program therefore runs both ways of an axis, and several
images, in the same loop. Each of those (way, image) pairs is a *lane* of the loop with its own states.
"""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.tpu.launch import launch
from pallas_kernels.tpu.tiles import F32, LANES, shape_like, step_size, vmem_capacity

K = 4
BAND = 512             # positions per iteration of a loop over the map
PLANES = {"forward": 9, "backward": 14}     # planes of (H W, lanes) in VMEM without those of each way, double buffers counted twice
PER_WAY = {"forward": 1, "backward": 2}
IMAGES = 4             # most images of a program


class Plane(NamedTuple):
    """Static sizes of one call."""
    batch: int
    height: int
    width: int
    channels: int
    rank: int
    images: int        # of a program
    ways: int          # of an axis in one loop: 2, or 1 for a map too large for it

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


class Lane(NamedTuple):
    """One scan of a loop."""
    n: int             # index among the lanes of the loop
    way: int           # index of its direction among the loop's
    route: Route
    image: int


def _fits(size, which, ways, images):
    return images * size * LANES * 4 * (PLANES[which] + ways * PER_WAY[which]) <= 3 * vmem_capacity() // 4


def fits(args):
    """Whether the kernel supports these arguments: one state per channel, and a map that fits VMEM."""
    _, height, width, _ = args.u.shape
    return args.A.shape[-1] == 1 and _fits(height * width, "backward", 1, 1)


def plane(args, which, options):
    """`Plane` of the pass "forward" or "backward": the most images up to IMAGES that divide the batch and fit VMEM.

    In interpret mode more than two images only add compile time.
    """
    batch, height, width, channels = args.u.shape
    size = height * width
    ways = 2 if _fits(size, which, 2, 1) else 1
    images = next(g for g in (2 if options.interpret else IMAGES, 2, 1) if g == 1 or (batch % g == 0 and _fits(size, which, ways, g)))
    return Plane(batch, height, width, channels, args.steps.shape[-1], images, ways)


def loops(p):
    """Tuples of the routes that share a loop."""
    along_rows = dict(steps=p.width, chunks=p.height, chunk_stride=p.width, step_stride=1)
    along_columns = dict(steps=p.height, chunks=p.width, chunk_stride=1, step_stride=p.width)
    routes = [Route(k, **(along_columns if k % 2 else along_rows), reverse=k >= 2) for k in range(K)]
    return [(routes[0], routes[2]), (routes[1], routes[3])] if p.ways == 2 else [(route,) for route in routes]


def lanes_of(p, routes):
    """The `Lane`s of a loop."""
    pairs = [(way, image) for way in range(len(routes)) for image in range(p.images)]
    return [Lane(n, way, routes[way], image) for n, (way, image) in enumerate(pairs)]


def inputs_of(args, p):
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
    return arrays, [stream(p), whole(p, p.size, K * p.rank), whole(p, 2 * K, p.size),
                    pl.BlockSpec((K, K * p.rank, p.lanes), lambda b, c: (0, 0, c)), pl.BlockSpec((2 * K + 1, p.lanes), lambda b, c: (0, c))]


def stream(p):
    return pl.BlockSpec((p.images, p.size, p.lanes), lambda b, c: (b, 0, c))


def whole(p, *shape):
    """Block of an array without channels: the same for every block of lanes of the images."""
    return pl.BlockSpec((p.images, *shape), lambda b, c: (b,) + (0,) * len(shape))


def by_image(p, *shape):
    """Block of an array with one entry per image."""
    return pl.BlockSpec((p.images, *shape, p.lanes), lambda b, c: (b,) + (0,) * len(shape) + (c,))


def by_program(p, *shape):
    """Block of an array with one entry per program along the batch, (b / images, ...)."""
    return pl.BlockSpec((pl.squeezed, *shape, p.lanes), lambda b, c: (b,) + (0,) * len(shape) + (c,))


def call(name, kernel, p, in_specs, outputs, scratch, options, inputs):
    """Run over (batch / images, blocks of lanes); outputs: (shape, dtype, spec) each."""
    return launch(
        kernel, name=name, grid=(p.batch // p.images, p.blocks), in_specs=in_specs, out_specs=[spec for *_, spec in outputs],
        out_shape=[shape_like(shape, dtype, *inputs) for shape, dtype, _ in outputs], scratch_shapes=scratch, interpret=options.interpret,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=vmem_capacity()))(*inputs)


def saved_of(p):
    """States that enter the chunks: along the rows (b, 2, H, E), along the columns (b, 2, W, E)."""
    return [((p.batch, 2, n, p.channels), F32, by_image(p, 2, n)) for n in (p.height, p.width)]


def per_image(p, count, width=None):
    """Scratch planes (images, HW, lanes)."""
    return [pltpu.VMEM((p.images, p.size, width or p.lanes), F32)] * count


def per_way(p, count):
    """Scratch planes (ways, images, HW, lanes)."""
    return [pltpu.VMEM((p.ways, p.images, p.size, p.lanes), F32)] * count


def joints(p, count):
    """Scratch of one row per chunk and lane of a loop."""
    return [pltpu.VMEM((p.ways * p.images, max(p.height, p.width), p.lanes), F32)] * count


# ---- inside a kernel

def dot(x, y, contract):
    """Matrix product on the MXU, in full float32 precision for float32."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == F32 else None
    return jax.lax.dot_general(x, y, (contract, ((), ())), precision=precision, preferred_element_type=F32)


def by_band(p, work):
    """Call `work(image, rows)` for every band of every image; the code size does not depend on the map. For work in any order of positions."""
    every = lambda rows: [work(image, rows) for image in range(p.images)]
    bands, rest = divmod(p.size, BAND)
    if bands:
        jax.lax.fori_loop(0, bands, lambda i, _: (every(pl.ds(pl.multiple_of(i * BAND, 8), BAND)), None)[1], None)
    if rest:
        every(pl.ds(bands * BAND, rest))


def copies(p, *pairs):
    """For each pair (ref, scratch): the ref if it is float32, else a float32 copy in the scratch."""
    packed = [(ref, copy) for ref, copy in pairs if ref.dtype != F32]

    def copy_band(image, rows):
        for ref, copy in packed:
            copy.at[image][rows, :] = ref.at[image][rows, :].astype(F32)

    if packed:
        by_band(p, copy_band)
    return [copy if ref.dtype != F32 else ref for ref, copy in pairs]


def flush(p, ref, rows_of):
    """Convert float32 rows to an output's dtype and store them there, unless they are the output."""
    def work(image, rows):
        ref.at[image][rows, :] = rows_of.at[image][rows, :].astype(ref.dtype)

    if rows_of is not ref:
        by_band(p, work)


def store_step_sizes(p, routes, refs, options, dt_s):
    """Store dt of each route in its planes: (HW, KR) @ (KR, lanes) + bias, through softplus."""
    _, steps, _, weight, channels = refs

    def work(image, rows):
        for way, route in enumerate(routes):
            raw = dot(steps.at[image][rows, :], weight[route.k], ((1,), (0,)))
            dt_s.at[way, image][rows, :] = step_size(raw, channels[K + route.k:K + route.k + 1, :], options.delta_softplus)

    by_band(p, work)


def column(x, n):
    return x[:, n:n + 1]


def join(lanes, decay_s, end_s, entering, backward):
    """Store in `entering(lane)` the state that enters each chunk, from the ends and decays of the chunks before it."""
    width = decay_s.shape[-1]

    def step(i, carry):
        following = []
        for lane, h in zip(lanes, carry, strict=True):
            c = pl.ds(lane.route.chunks - 1 - i if lane.route.reverse != backward else i, 1)
            entering(lane)[c, :] = h
            following.append(decay_s.at[lane.n][c, :] * h + end_s.at[lane.n][c, :])
        return tuple(following)

    jax.lax.fori_loop(0, lanes[0].route.chunks, step, (jnp.zeros((1, width), F32),) * len(lanes))
