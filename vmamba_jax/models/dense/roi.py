"""RoIAlign: features of boxes on one map or on a pyramid of maps, for any sizes of boxes, at static shapes.

The samples of a box form a grid, and bilinear interpolation is separable, so a box's features are `rows @ map @ columns.T` with two small
matrices of weights. Their cells outside of the box are zero: only tiles that the box covers are read, as many as the largest box of a chunk has.

Source: He et al. 2017, arXiv 1703.06870, section 3; the sampling and border rules of mmcv.ops.RoIAlign.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks

TILE = 16            # side of a tile in cells; a box assigned to a level of a pyramid spans 14 to 28 cells
CHUNK = 64           # boxes that are pooled at a time
MOST_SAMPLES = 1024  # of an output cell's side; a box needs more only on a map 7168 cells wide, or far outside of it


class Maps(NamedTuple):
    """Maps of several sizes in one array.

    Attributes:
        cells: (cells of all maps, C).
        first, height, width, scale: (boxes,) each: the first cell of the box's map, that map's size, and cells per pixel of the box's coordinates.
        longest: the largest height and width of all maps, two ints.
    """
    cells: jax.Array
    first: jax.Array
    height: jax.Array
    width: jax.Array
    scale: jax.Array
    longest: tuple


def roi_align(features, boxes, index, size, scale, ratio=0, aligned=True):
    """Features (n, size, size, C) of boxes on one map; differentiable in the features only, as the original.

    Args:
        features: (b, H, W, C).
        boxes: (n, 4), x1 y1 x2 y2 in pixels. What lies outside of the map counts as zero, more than one cell beyond its border.
        index: (n,) integers, the image of each box.
        size: side of the output in cells.
        scale: cells of the map per pixel.
        ratio: samples along each side of an output cell; 0: as many as the cell is wide in cells of the map, rounded up, at most `MOST_SAMPLES`.
        aligned: pixel coordinates refer to the pixels' corners; False: to their centers, with boxes at least one cell wide.

    Raises:
        ValueError: shapes other than these.
    """
    features, boxes, index = jnp.asarray(features), jnp.asarray(boxes), jnp.asarray(index)
    if features.ndim != 4 or boxes.shape != (len(index), 4):
        raise ValueError(f"features.shape={features.shape}, boxes.shape={boxes.shape}, index.shape={index.shape}: expected (b, H, W, C), (n, 4), (n,)")
    _, height, width, channels = features.shape
    everywhere = lambda value, dtype=jnp.int32: jnp.full(len(boxes), value, dtype)
    maps = Maps(features.reshape(-1, channels), index * (height * width), everywhere(height), everywhere(width), everywhere(scale, boxes.dtype),
                (height, width))
    return _align(maps, boxes, size, ratio, aligned)


def roi_align_pyramid(features, boxes, index, size, strides, finest, ratio=0):
    """Features (n, size, size, C) of boxes, each from the map of its level; see `roi_align` (aligned) and `level_of`.

    Args:
        features: maps (b, H_i, W_i, C), the finest first.
        boxes, index, size, ratio: as for `roi_align`.
        strides: pixels per cell of each map.
        finest: as for `level_of`.
    """
    level = level_of(boxes, finest, len(features))
    heights, widths = (np.array([x.shape[axis] for x in features]) for axis in (1, 2))
    starts = np.cumsum([0, *(x.shape[0] * x.shape[1] * x.shape[2] for x in features[:-1])])
    at = lambda values, dtype=jnp.int32: jnp.asarray(values, dtype)[level]
    maps = Maps(jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in features]), at(starts) + index * at(heights * widths), at(heights), at(widths),
                at(1 / np.asarray(strides), boxes.dtype), (int(heights.max()), int(widths.max())))
    return _align(maps, boxes, size, ratio, True)


def level_of(boxes, finest, count):
    """(n,) int32: the level of a pyramid for each box, floor(log2(sqrt(area) / finest)) within the `count` levels (Lin et al. 2017, equation 1)."""
    boxes = jnp.asarray(boxes)
    side = jnp.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    return jnp.clip(jnp.floor(jnp.log2(side / finest + 1e-6)), 0, count - 1).astype(jnp.int32)


def sampling(start, length, side, longest, size, ratio):
    """(n, size, longest): weights of a map's cells in the mean of the samples of each output cell, along one axis.

    Args:
        start, length: (n,) of the boxes, in cells.
        side: (n,) cells of each box's map.
        longest: of all maps, an int.
        size, ratio: as for `roi_align`.
    """
    bins = length / size
    samples = jnp.full(bins.shape, ratio, jnp.int32) if ratio else jnp.clip(jnp.ceil(bins), 0, MOST_SAMPLES).astype(jnp.int32)
    count = jnp.maximum(samples, 1).astype(bins.dtype)
    left = start[:, None] + jnp.arange(size) * bins[:, None]                                             # (n, size)
    cells = jnp.arange(longest, dtype=bins.dtype)

    def add(i, total):
        at = left + ((i + jnp.asarray(0.5, bins.dtype)) * bins / count)[:, None]
        counted = (at >= -1) & (at <= side[:, None]) & (i < samples)[:, None]
        at = jnp.clip(at, 0, side[:, None] - 1)
        return total + jnp.where(counted[..., None], jnp.maximum(1 - jnp.abs(at[..., None] - cells), 0), 0)

    total = jax.lax.fori_loop(0, samples.max(initial=0), add, jnp.zeros((len(start), size, longest), bins.dtype))
    return total / count[:, None, None]


def extent(boxes, scale, aligned):
    """(x, y, width, height) of boxes in cells of their maps, (n,) each."""
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (boxes[:, i] * scale - offset for i in range(4))
    width, height = x2 - x1, y2 - y1
    return (x1, y1, width, height) if aligned else (x1, y1, jnp.maximum(width, 1), jnp.maximum(height, 1))


def _align(maps, boxes, size, ratio, aligned):
    checks.count("size", size)
    checks.count("ratio", ratio, 0)
    if not len(boxes):
        return jnp.zeros((0, size, size, maps.cells.shape[-1]), maps.cells.dtype)
    x, y, width, height = extent(jax.lax.stop_gradient(boxes), maps.scale, aligned)
    rows, columns = sampling(y, height, maps.height, maps.longest[0], size, ratio), sampling(x, width, maps.width, maps.longest[1], size, ratio)
    top, down = _covered(y, height, maps.height)
    left, across = _covered(x, width, maps.width)
    grid = jnp.stack([maps.first, maps.height, maps.width, top, left, across, down * across], 1)
    n, chunk = len(boxes), min(CHUNK, len(boxes))
    pad = lambda x: jnp.pad(x, ((0, -n % chunk), *((0, 0),) * (x.ndim - 1))).reshape(-1, chunk, *x.shape[1:])
    dtype = jnp.promote_types(maps.cells.dtype, jnp.float32)
    pooled = _pool(maps.cells.astype(dtype), pad(rows.astype(dtype)), pad(columns.astype(dtype)), pad(grid))
    return pooled.reshape(-1, *pooled.shape[2:])[:n].astype(maps.cells.dtype)


def _covered(start, length, side):
    """(first cell, number of tiles), (n,) int32 each, of the cells that boxes read along one axis."""
    first = jnp.clip(jnp.floor(jnp.minimum(start, start + length)), 0, side - 1).astype(jnp.int32)
    last = jnp.clip(jnp.ceil(jnp.maximum(start, start + length)), 0, side - 1).astype(jnp.int32)
    return first, (last - first) // TILE + 1


@jax.custom_vjp
def _pool(cells, rows, columns, grid):
    """(chunks, k, size, size, C) from cells (N, C), weights (chunks, k, size, longest) and the boxes' tiles (chunks, k, 7)."""
    def chunk(args):
        rows, columns, grid = args
        size = rows.shape[1]

        def add(tile, total):
            at, y, x = _tile(tile, rows, columns, grid)
            return total + _einsum("kpxc,kqx->kpqc", _einsum("kpy,kyxc->kpxc", y, cells[at]), x)

        return jax.lax.fori_loop(0, grid[:, 6].max(), add, jnp.zeros((len(grid), size, size, cells.shape[-1]), cells.dtype))

    return jax.lax.map(chunk, (rows, columns, grid))


def _pool_forward(cells, rows, columns, grid):
    return _pool(cells, rows, columns, grid), (cells, rows, columns, grid)


def _pool_backward(kept, gradient):
    cells, *weights = kept

    def chunk(total, args):
        gradient, rows, columns, grid = args

        def add(tile, total):
            at, y, x = _tile(tile, rows, columns, grid)
            return total.at[at].add(_einsum("kpy,kpxc->kyxc", y, _einsum("kpqc,kqx->kpxc", gradient, x)))

        return jax.lax.fori_loop(0, grid[:, 6].max(), add, total), None

    return jax.lax.scan(chunk, jnp.zeros_like(cells), (gradient, *weights))[0], None, None, None


_pool.defvjp(_pool_forward, _pool_backward)
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def _tile(tile, rows, columns, grid):
    """(cells (k, T, T), weights of its rows (k, size, T), of its columns (k, size, T)) of each box's tile of this number, zero if it has fewer."""
    first, height, width, top, left, across, count = (grid[:, i] for i in range(7))

    def axis(weights, start, side):
        at = start[:, None] + jnp.arange(TILE)
        inside = (at < side[:, None]) & (tile < count)[:, None]
        at = jnp.minimum(at, side[:, None] - 1)
        return at, jnp.where(inside[:, None], jnp.take_along_axis(weights, at[:, None], 2), 0)

    across = jnp.maximum(across, 1)
    y, of_rows = axis(rows, top + TILE * (tile // across), height)
    x, of_columns = axis(columns, left + TILE * (tile % across), width)
    return first[:, None, None] + y[:, :, None] * width[:, None, None] + x[:, None], of_rows, of_columns
