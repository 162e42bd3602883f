"""Boxes x1 y1 x2 y2: anchors, coding against a prior box, overlaps.

Source: Ren et al. 2015, arXiv 1506.01497; the numbers of MMDetection's AnchorGenerator, DeltaXYWHBBoxCoder and bbox_overlaps.
"""
import jax.numpy as jnp
import numpy as np

LARGEST_SCALING = float(np.log(1000 / 16))  # of a side by its delta, as a logarithm


def anchors(map_sizes, strides, scale, ratios, dtype=np.float32):
    """[(H_i * W_i * A, 4), ...]: anchors of every cell of every map, row by row, the A ratios fastest.

    An anchor is centered at the cell's corner of lower coordinates; its sides are those that float32 holds, whatever the dtype. Both as in the original.

    Args:
        map_sizes: [(H_i, W_i), ...].
        strides: pixels per cell of each map.
        scale: side of a square anchor, in cells.
        ratios: heights over widths.
        dtype: of the result.
    """
    root = np.sqrt(np.asarray(ratios, np.float32))
    found = []
    for (height, width), stride in zip(map_sizes, strides, strict=True):
        w, h = (np.float32(stride) * side * np.float32(scale) for side in (np.float32(1) / root, root))
        base = np.stack([-w / 2, -h / 2, w / 2, h / 2], -1)                                                                  # (A, 4)
        x, y = np.meshgrid(np.arange(width, dtype=dtype) * stride, np.arange(height, dtype=dtype) * stride)
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        found.append((base + shifts).reshape(-1, 4).astype(dtype))
    return found


def decode(anchors, deltas, std, size=None):
    """Boxes (..., 4) from deltas (..., 4) of their anchors, which have the same shape or one that broadcasts.

    Args:
        anchors: (..., 4).
        deltas: (..., 4): dx, dy, dw, dh in units of std. A side grows or shrinks by at most a factor of 62.5.
        std: (4,).
        size: (height, width) to clip the boxes to, numbers or arrays (...); None: boxes are not clipped.
    """
    anchors, deltas = jnp.asarray(anchors), jnp.asarray(deltas)
    deltas = deltas * jnp.asarray(std, deltas.dtype)
    center, sides = (anchors[..., :2] + anchors[..., 2:]) / 2, anchors[..., 2:] - anchors[..., :2]
    center = center + sides * deltas[..., :2]
    half = sides * jnp.exp(jnp.clip(deltas[..., 2:], -LARGEST_SCALING, LARGEST_SCALING)) / 2
    boxes = jnp.concatenate([center - half, center + half], -1)
    if size is None:
        return boxes
    height, width = size
    limit = jnp.stack([jnp.asarray(x, boxes.dtype) for x in (width, height, width, height)], -1)
    return jnp.clip(boxes, 0, limit)


def encode(anchors, boxes, std):
    """Deltas (..., 4) of boxes (..., 4) against their anchors, the inverse of `decode`; 0 where either is empty.

    Args:
        anchors, boxes: (..., 4).
        std: (4,).
    """
    anchors, boxes = jnp.asarray(anchors), jnp.asarray(boxes)
    sides, wanted = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    good = ((sides > 0) & (wanted > 0)).all(-1, keepdims=True)
    sides, wanted = jnp.where(good, sides, 1), jnp.where(good, wanted, 1)
    shift = ((boxes[..., :2] + boxes[..., 2:]) / 2 - (anchors[..., :2] + anchors[..., 2:]) / 2) / sides
    deltas = jnp.concatenate([shift, jnp.log(wanted / sides)], -1) / jnp.asarray(std, boxes.dtype)
    return jnp.where(good, deltas, 0)


def area(boxes):
    """(...): areas of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(a, b):
    """Intersection over union of boxes a (..., 4) and b (..., 4), which broadcast; 0 for empty boxes."""
    sides = jnp.maximum(jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / jnp.maximum(area(a) + area(b) - shared, 1e-6)
