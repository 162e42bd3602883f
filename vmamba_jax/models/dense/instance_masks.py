"""Masks of instances: from a box to the image, and from the image to a box."""
import jax
import jax.numpy as jnp

from vmamba_jax.models.dense.roi import extent, sampling


def paste(masks, boxes, height, width):
    """(n, height, width): masks (n, s, s) of boxes (n, 4), x1 y1 x2 y2 in pixels, bilinearly resized into images; a mask is where it is >= 0.5.

    Source: MMDetection's _do_paste_mask.
    """
    masks, boxes = jnp.asarray(masks), jnp.asarray(boxes)
    side = masks.shape[-1]

    def weights(first, last, length):
        """(n, length, s): bilinear weights of the mask's cells at the centers of an image's pixels."""
        at = (jnp.arange(length, dtype=boxes.dtype) + 0.5 - first[:, None]) / (last - first)[:, None] * side - 0.5
        at = jnp.where(jnp.isfinite(at), at, (side - 1) / 2)
        return jnp.maximum(1 - jnp.abs(at[..., None] - jnp.arange(side)), 0).astype(masks.dtype)

    x1, y1, x2, y2 = (boxes[:, i] for i in range(4))
    return jnp.einsum("nyi,nij,nxj->nyx", weights(y1, y2, height), masks, weights(x1, x2, width), precision=jax.lax.Precision.HIGHEST)


def crop(masks, index, boxes, size):
    """(n, size, size) bool: masks of an image (g, H, W) cut out along boxes (n, 4), the mask of each box `index` (n,).

    Source: MMDetection's BitmapMasks.crop_and_resize: RoIAlign with adaptive sampling, at least 0.5.
    """
    masks, boxes = jnp.asarray(masks), jnp.asarray(boxes)
    height, width = masks.shape[1:]
    x, y, across, down = extent(boxes, 1.0, True)
    full = lambda side: jnp.full(len(boxes), side, jnp.int32)
    rows, columns = sampling(y, down, full(height), height, size, 0), sampling(x, across, full(width), width, size, 0)
    one = lambda args: jnp.einsum("py,yx,qx->pq", args[0], masks[args[2]].astype(boxes.dtype), args[1], precision=jax.lax.Precision.HIGHEST)
    return jax.lax.map(one, (rows, columns, index)) >= 0.5
