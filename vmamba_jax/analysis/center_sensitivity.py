"""How much more a disturbance harms near the centre of the image: a window slid over it, and the accuracy that each position costs."""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.records import record
from vmamba_jax.core.statistics import slope, summary
from vmamba_jax.evaluation.disturbances import fills
from vmamba_jax.evaluation.disturbances.patch_drops import window as window_mask
from vmamba_jax.evaluation.loop import Loop, argument, correct, gather, on_mesh, reader


def center_sensitivity(logits_fn, source, window, stride, *, content="zeros", key=None, **loop):
    """Drop in accuracy with a square window replaced, for every position of the window; and its slope from the centre outwards.

    After Du, Li, Xu (arXiv 2403.10935): VMamba is said to suffer more the nearer a disturbance is to the centre, which is a slope below 0.

    Args:
        window, stride: side of the window and distance of its positions, in pixels. Positions lie symmetrically, to half a pixel.
        content: what stands in the window, see `disturbances.contents`; it counts as one patch.
        key: a random key, where the content draws; the same numbers at every position.
        logits_fn, source, batch_size, mesh, progress: as of `robust_accuracy`; a batch is judged at all positions by one program.

    Returns a dict ready for JSON: the row of `summary` for the clean accuracy, "window", "stride", "content", "tops" and "lefts" (the corners),
        "drop": accuracy lost at each position, rows by columns.
        "rings": [{"ring", "radius", "positions", "drop"}], positions of equal Chebyshev distance from the centre, which is `radius` pixels, on
            average where rows and columns differ in parity.
        "slope", "intercept": least squares of the positions' drop on their radius, in accuracy per pixel; None with one ring.
        "slope_error": standard error of the slope from the residuals; None with two positions or fewer.
        "slope_error_images": that from the images, whose own slopes it is the mean of; None with one image.
    """
    loop, content = Loop(**loop), fills.get(content)
    size, step = checks.count("window", window), checks.count("stride", stride)
    if content.draws and key is None:
        raise ValueError(f"content={content!r} with key=None: expected a random key")
    read, _ = reader(source)
    height, width = unit_interval(read(np.arange(1))[0]).shape[1:3]
    if size > min(height, width):
        raise ValueError(f"window={size} on images of {height} x {width} pixels: expected a window inside them")
    tops, lefts = (np.arange((side - size) % step // 2, side - size + 1, step) for side in (height, width))
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    windows = _Windows(content, size, jnp.asarray(corners))
    result = gather(on_mesh(_classify_windows, (argument(logits_fn), windows), loop, key), source, loop)
    clean, occluded = result.pop("correct"), result.pop("occluded")
    lost = clean[:, None].astype(np.int8) - occluded                                      # (n, positions), in -1..1
    away = [abs(np.arange(len(side)) - (len(side) - 1) / 2) for side in (tops, lefts)]
    distance = np.maximum(away[0][:, None], away[1]).ravel()
    drop = lost.mean(0)
    rings = [{"ring": int(k), "radius": float(distance[inside].mean() * step), "positions": int(inside.sum()), "drop": float(drop[inside].mean())}
             for k in np.unique(np.floor(distance)) for inside in [np.floor(distance) == k]]
    return summary(result) | {"window": size, "stride": step, "content": content.settings, "tops": tops.tolist(), "lefts": lefts.tolist(),
                              "drop": drop.reshape(len(tops), len(lefts)).tolist(), "rings": rings} | slope(distance * step, lost)


@record("corners")
class _Windows:
    content: fills.Fill
    size: int
    corners: jax.Array


def _classify_windows(tree, batch, key):
    logits_fn, windows = tree
    images, labels = batch["image"], batch["label"]
    keys = keys_at(key, batch["index"]) if windows.content.draws else None
    cell = np.zeros(images.shape[1:3], int)

    def at(corner):
        mask = window_mask(images.shape[1:3], windows.size, *corner)
        filled = windows.content(images, mask, cell, keys, logits_fn, labels)
        return correct(logits_fn(jnp.where(mask, filled, images)), labels)
    return {"correct": correct(logits_fn(images), labels), "occluded": lax.map(at, windows.corners).T}
