"""Test-time augmentation of dense tasks: an image at several scales and mirrored, its predictions merged."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.dense.detection import Detections
from vmamba_jax.models.dense.layers import resize
from vmamba_jax.models.dense.suppression import nms

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # published for UperNet on ADE20K, each with and without a flip
DIVISOR = 32                                # a detector's views are padded to multiples of it


def segment(logits_fn, images, scales=SCALES, flip=True):
    """Probabilities (b, H, W, classes): the mean over views of the softmax of logits, which are resized to the images.

    Args:
        logits_fn: images of any size (b, h, w, C) -> logits (b, h, w, classes).
        images: (b, H, W, C).
        scales: factors of the sides.
        flip: also mirror each view left to right.

    Source: MMSegmentation's SegTTAModel.
    """
    total, count = 0, 0
    for _, mirrored, view in _views(images, scales, flip):
        logits = logits_fn(view)
        logits = logits[:, :, ::-1] if mirrored else logits
        total += jax.nn.softmax(resize(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), images.shape[1:3]), -1)
        count += 1
    return total / count


def detect(detect_fn, images, scales=(1.0,), flip=True, rule=None):
    """Detections of all views in the images' pixels, after suppression within each class: a dict as of `MaskRCNN`, with `rule.count` places.

    A detection keeps the mask of its own view.

    Args:
        detect_fn: `(images (b, h, w, C), sizes (b, 2)) -> ` a dict as of `MaskRCNN`; the images are padded with zeros below and to the right, to
            multiples of 32; sizes are those without the padding.
        images: (b, H, W, C), without padding.
        scales: factors of the sides.
        flip: also mirror each view left to right.
        rule: `Detections`; its threshold is that of the suppression, its score is not used, since each view has its own. None: those of COCO.

    Source: MMDetection's DetTTAModel, which leaves out masks.
    """
    height, width = images.shape[1:3]
    rule, views = Detections() if rule is None else rule, []
    for (rows, columns), mirrored, view in _views(images, scales, flip):
        padded = jnp.pad(view, ((0, 0), (0, -rows % DIVISOR), (0, -columns % DIVISOR), (0, 0)))
        found = detect_fn(padded, np.tile(np.array([rows, columns], np.int32), (len(images), 1)))
        x1, y1, x2, y2 = jnp.moveaxis(found["boxes"], -1, 0)
        if mirrored:
            x1, x2 = columns - x2, columns - x1
            found = found | {"masks": found["masks"][..., ::-1]}
        across, down = width / columns, height / rows
        views.append(found | {"boxes": jnp.stack([x1 * across, y1 * down, x2 * across, y2 * down], -1)})
    merged = {name: jnp.concatenate([each[name] for each in views], 1) for name in views[0]}
    scores = jnp.where(merged["valid"], merged["scores"], -jnp.inf)
    kept = jax.vmap(lambda boxes, scores, labels: nms(boxes, scores, rule.threshold, labels, rule.count))(merged["boxes"], scores, merged["labels"])
    valid, at = kept >= 0, jnp.maximum(kept, 0)
    take = lambda x: jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), 1)
    clear = lambda x, value: jnp.where(valid.reshape(*valid.shape, *(1,) * (x.ndim - 2)), x, value)
    return {name: clear(take(x), -1 if name == "labels" else 0) for name, x in merged.items() if name != "valid"} | {"valid": valid}


def _views(images, scales, flip):
    """Yields ((height, width), whether it is mirrored, the images) of each view."""
    checks.flag("flip", flip)
    if not scales:
        raise ValueError("scales=(): expected at least one factor")
    for i, scale in enumerate(scales):
        checks.number(f"scales[{i}]", scale, above=0)
        size = tuple(max(1, int(side * scale + 0.5)) for side in images.shape[1:3])
        view = resize(images, size)
        yield size, False, view
        if flip:
            yield size, True, view[:, :, ::-1]
