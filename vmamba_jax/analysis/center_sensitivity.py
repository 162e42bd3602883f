"""Sensitivity to the image center: the drop in accuracy for every position of an occluding window, and its slope."""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks.losses import correct
from vmamba_jax.core import checks
from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.records import record
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import slope, summary
from vmamba_jax.evaluation.disturbances import fills
from vmamba_jax.evaluation.disturbances.patch_drops import window as window_mask
from vmamba_jax.evaluation.loop import Loop, gather, on_mesh
from vmamba_jax.evaluation.sets import enter


def center_sensitivity(logits_fn, source, window, stride, *, content="zeros", key=None, **loop) -> Result:
    """Drop in accuracy for every position of a square occluding window, and its slope from the image center outwards.

    Args:
        window, stride: side of the window and distance between its positions, in pixels. The positions are symmetric to half a pixel.
        content: fill of the window, see `disturbances.fills`; the window is one patch.
        key: a random key for a fill with random numbers, which are the same at every position; None: a fill without.
        logits_fn, source, loop: as for `robust_accuracy`; one program classifies a batch for all positions.

    Returns:
        Plain JSON: the row of `summary` for the clean accuracy, "window", "stride", "content", "tops" and "lefts" (the corners), and
        "drop": drop in accuracy at each position, rows by columns.
        "rings": [{"ring", "radius", "positions", "drop"}]: positions of equal Chebyshev distance from the center, `radius` pixels (the
            mean, if rows and columns differ in parity).
        "slope", "intercept": least squares of the drop on the radius, in accuracy per pixel; None for one ring. A negative slope means a
            larger drop near the center.
        "slope_error": standard error of the slope from the residuals; None for fewer than three positions.
        "slope_error_images": standard error of the mean of the images' own slopes; None for one image.

    Source: Du, Li, Xu, arXiv 2403.10935: VMamba is more sensitive to disturbances near the center.
    """
    loop, fill = Loop(**loop), fills.get(content)
    size, step = checks.count("window", window), checks.count("stride", stride)
    if fill.draws and key is None:
        raise ValueError(f"key=None: expected a random key for content={content!r}")
    source = enter(logits_fn, source, loop)
    height, width = source.image.shape[:2]
    if size > min(height, width):
        raise ValueError(f"window={size} on images of {height} x {width} pixels: expected a window inside them")
    tops, lefts = (np.arange((side - size) % step // 2, side - size + 1, step) for side in (height, width))
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    windows = _Windows(fill, size, jnp.asarray(corners))
    result = gather(on_mesh(_classify_windows, (argument(logits_fn), windows), loop, key), source, loop)
    clean, occluded = result.pop("correct"), result.pop("occluded")
    lost = clean[:, None].astype(np.int8) - occluded                                      # (n, positions), in -1..1
    offsets = [abs(np.arange(len(side)) - (len(side) - 1) / 2) for side in (tops, lefts)]
    distance = np.maximum(offsets[0][:, None], offsets[1]).ravel()
    drop = lost.mean(0)
    ring = np.floor(distance)
    rings = [{"ring": int(k), "radius": float(distance[ring == k].mean() * step), "positions": int((ring == k).sum()),
              "drop": float(drop[ring == k].mean())} for k in np.unique(ring)]
    return Result(summary(result) | {"window": size, "stride": step, "content": fill.settings, "tops": tops.tolist(), "lefts": lefts.tolist(),
                                     "drop": drop.reshape(len(tops), len(lefts)).tolist(), "rings": rings} | slope(distance * step, lost))


@record("corners")
class _Windows:
    fill: fills.Fill
    size: int
    corners: jax.Array


def _classify_windows(tree, batch, key):
    logits_fn, windows = tree
    images, labels = batch["image"], batch["label"]
    keys = keys_at(key, batch["index"]) if windows.fill.draws else None
    patch = np.zeros(images.shape[1:3], int)

    def at(corner):
        mask = window_mask(images.shape[1:3], windows.size, *corner)
        filled = windows.fill(images, mask, patch, keys, logits_fn, labels)
        return correct(logits_fn(jnp.where(mask, filled, images)), labels)
    return {"correct": correct(logits_fn(images), labels), "occluded": lax.map(at, windows.corners).T}
