"""Semantic segmentation: mean intersection over union, and inference in windows."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.labels import IGNORE
from vmamba_jax.core.results import Result


def mean_iou(pairs, classes, ignore=IGNORE) -> Result:
    """Intersection over union and accuracies over a set: {"mIoU", "aAcc", "mAcc", "IoU" (classes,), "Acc" (classes,)}, in [0, 1].

    Pixels are counted over the whole set before anything is divided. A class in neither labels nor predictions is nan in "IoU", one in no
    label nan in "Acc"; the means leave them out.

    Args:
        pairs: iterable of (prediction, label), each an integer map (H, W) or a batch of maps (b, H, W); sizes may differ from pair to pair.
        classes: number of classes >= 1.
        ignore: label of pixels that are not counted, whatever is predicted there.

    Raises:
        ValueError, TypeError: a prediction or a label outside of the classes, of another shape, or no integers; no pair at all.

    Source: MMSegmentation's IoUMetric.
    """
    total = np.zeros((checks.count("classes", classes),) * 2, np.int64)
    number = -1
    for number, (prediction, label) in enumerate(pairs):
        total += confusion(prediction, label, classes, ignore, name=f"pairs[{number}]")
    if number < 0:
        raise ValueError("pairs=[]: expected at least one pair (prediction, label)")
    return scores(total)


def scores(total) -> Result:
    """The figures of `mean_iou` from numbers of pixels by label and prediction (classes, classes), or (classes, classes + 1) with a last column of
    pixels without a prediction."""
    right, labelled, predicted = np.diag(total), total.sum(1), total.sum(0)[:len(total)]
    with np.errstate(divide="ignore", invalid="ignore"):
        iou, accuracy = right / (labelled + predicted - right), right / labelled
        overall = right.sum() / labelled.sum()
    mean = lambda x: float(x[~np.isnan(x)].mean()) if not np.isnan(x).all() else float("nan")
    return Result({"mIoU": mean(iou), "aAcc": float(overall), "mAcc": mean(accuracy), "IoU": iou, "Acc": accuracy}, classes=("IoU", "Acc"))


def confusion(prediction, label, classes, ignore=IGNORE, name="pair"):
    """Numbers of pixels by label and prediction, (classes, classes) int64, counted on the device; see `mean_iou`."""
    for what, x in (("prediction", prediction), ("label", label)):
        if not jnp.issubdtype(getattr(x, "dtype", np.float64), jnp.integer):
            raise TypeError(f"{name}: {what} of dtype {getattr(x, 'dtype', type(x).__name__)}: expected integers")
    if prediction.shape != label.shape or prediction.ndim not in (2, 3):
        raise ValueError(f"{name}: prediction of shape {prediction.shape} and label of shape {label.shape}: expected one shape (H, W) or (b, H, W)")
    found, wrong_prediction, wrong_label = _count(jnp.asarray(prediction), jnp.asarray(label), classes, ignore)
    for what, wrong, x in (("prediction", wrong_prediction, prediction), ("label", wrong_label, label)):
        if (i := int(wrong)) >= 0:
            more = f" or ignore={ignore}" if what == "label" else ""
            raise ValueError(f"{name}: {what} {int(np.asarray(x).reshape(-1)[i])}: expected a class from 0 to {classes - 1}{more}")
    return np.asarray(found, np.int64)


@functools.partial(jax.jit, static_argnames="classes")
def _count(prediction, label, classes, ignore):
    """(counts, index of a prediction outside of the classes or -1, index of such a label or -1)."""
    prediction, label = prediction.reshape(-1).astype(jnp.int32), label.reshape(-1).astype(jnp.int32)
    outside = lambda x: (x < 0) | (x >= classes)
    first = lambda wrong: jnp.where(wrong.any(), wrong.argmax(), -1)
    counted = (label != ignore) & ~outside(label) & ~outside(prediction)
    cell = jnp.where(counted, label * classes + prediction, classes * classes)
    counts = jnp.zeros(classes * classes + 1, jnp.int32).at[cell].add(1)[:-1]
    return counts.reshape(classes, classes), first(outside(prediction)), first(outside(label) & (label != ignore))


def slide(logits_fn, images, crop, stride):
    """Logits (b, H, W, classes) of images of any size, the mean over windows that overlap.

    Windows begin at multiples of the stride; those that would leave the image are moved back to its edge. A side shorter than the crop takes
    one window of its own length. All windows have one shape, and one program runs them one after the other.

    Args:
        logits_fn: windows (b, h, w, C) -> logits (b, h, w, classes).
        images: (b, H, W, C).
        crop: (height, width) of a window, or one number for both.
        stride: (rows, columns) between windows, at most the crop, or one number for both.

    Source: MMSegmentation's slide_inference.
    """
    sizes = images.shape[1:3]
    crop, stride = _both("crop", crop), _both("stride", stride)
    if any(step > size for step, size in zip(stride, crop, strict=True)):
        raise ValueError(f"stride={stride}: expected at most crop={crop}, so that the windows cover the image")
    window = tuple(min(size, length) for size, length in zip(crop, sizes, strict=True))
    ends = [[min(i * step + side, length) for i in range(max(length - side + step - 1, 0) // step + 1)]
            for length, side, step in zip(sizes, window, stride, strict=True)]
    corners = jnp.asarray([(y - window[0], x - window[1]) for y in ends[0] for x in ends[1]])
    cut = lambda corner: jax.lax.dynamic_slice(images, (0, *corner, 0), (len(images), *window, images.shape[3]))
    like = jax.eval_shape(lambda: logits_fn(cut(corners[0])))
    if like.shape[:3] != (len(images), *window):
        raise ValueError(f"logits_fn returned shape {like.shape}: expected ({len(images)}, {window[0]}, {window[1]}, classes), the window's size")

    def add(carry, corner):
        total, count = carry
        at = (0, *corner, 0)
        put = lambda x, more: jax.lax.dynamic_update_slice(x, jax.lax.dynamic_slice(x, at, more.shape) + more, at)
        return (put(total, logits_fn(cut(corner))), put(count, jnp.ones((1, *window, 1), like.dtype))), None

    start = jnp.zeros((len(images), *sizes, like.shape[3]), like.dtype), jnp.zeros((1, *sizes, 1), like.dtype)
    (total, count), _ = jax.lax.scan(add, start, corners)
    return total / count


def _both(name, value):
    """A pair of positive integers from a pair or one number."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name}={value!r}: expected one number or a pair (rows, columns)")
    return tuple(checks.count(name, x) for x in values)
