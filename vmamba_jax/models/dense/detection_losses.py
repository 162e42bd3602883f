"""Losses of Mask R-CNN: targets of matched and sampled boxes, and the five sums.

Source: MMDetection's AnchorHead, BBoxHead and FCNMaskHead.
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.models.dense.boxes import encode
from vmamba_jax.models.dense.instance_masks import crop
from vmamba_jax.models.dense.matching import IGNORED, match, sample


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How boxes are matched with objects and sampled; the attributes are the arguments of `match` and `sample`."""
    positive: float
    negative: float
    least: float
    count: int
    fraction: float
    low_quality: bool = True

    def match(self, priors, boxes, valid):
        return match(priors, boxes, self.positive, self.negative, self.low_quality, self.least, valid)

    def sample(self, key, matched):
        return sample(key, matched, self.count, self.fraction)


OBJECTS = ("boxes", "labels", "masks", "valid")


def stack(objects):
    """Objects of several images as padded arrays: {"boxes" (b, g, 4), "labels" (b, g), "masks" (b, g, H, W), "valid" (b, g)}.

    Args:
        objects: a list with, for each image, {"boxes" (g_i, 4) x1 y1 x2 y2, "labels" (g_i,), "masks" (g_i, H, W)}; or what this function returns.
    """
    if isinstance(objects, dict):
        return objects
    if objects is None:
        raise ValueError("objects=None: expected the objects of each image")
    most = max([1, *(len(x["labels"]) for x in objects)])
    pad = lambda x: np.pad(np.asarray(x), ((0, most - len(x)), *((0, 0),) * (np.ndim(x) - 1)))
    stacked = {name: jnp.asarray(np.stack([pad(x[name]) for x in objects])) for name in ("boxes", "labels", "masks")}
    return stacked | {"valid": jnp.asarray(np.stack([np.arange(most) < len(x["labels"]) for x in objects]))}


def check(objects, images, classes):
    """Raise a ValueError unless padded objects fit the images, and known labels the classes."""
    b, height, width, _ = images.shape
    if missing := set(OBJECTS) - set(objects):
        raise ValueError(f"objects without {', '.join(sorted(missing))}: expected boxes, labels, masks and valid")
    count = max(np.shape(objects["valid"])[-1:], default=0) or 1
    for name, shape in (("boxes", (b, count, 4)), ("labels", (b, count)), ("valid", (b, count)), ("masks", (b, count, height, width))):
        if np.shape(objects[name]) != shape:
            raise ValueError(f"objects[{name!r}].shape={np.shape(objects[name])}: expected {shape}")
    if not any(isinstance(objects[name], jax.core.Tracer) for name in ("labels", "valid")):
        labels = np.asarray(objects["labels"])[np.asarray(objects["valid"])]
        if len(wrong := labels[(labels < 0) | (labels >= classes)]):
            raise ValueError(f"objects['labels']={wrong[0]}: expected a class from 0 to {classes - 1}")


def inside(map_sizes, strides, anchors, sizes, divisor=32):
    """(b, anchors of all levels) bool: anchors whose cell lies in the image padded to a multiple of `divisor`, not in the batch's further padding."""
    padded = -(-sizes // divisor) * divisor
    found = []
    for (height, width), stride in zip(map_sizes, strides, strict=True):
        rows, columns = (jnp.arange(length) < -(-padded[:, axis, None] // stride) for axis, length in ((0, height), (1, width)))
        found.append(jnp.repeat((rows[:, :, None] & columns[:, None]).reshape(len(sizes), -1), anchors, 1))
    return jnp.concatenate(found, 1)


def match_anchors(rule, anchors, allowed, boxes, valid):
    """(n,) of `match` for the anchors of one image; those that are not allowed (n,) are ignored and match nothing."""
    return jnp.where(allowed, rule.match(jnp.where(allowed[:, None], anchors, 0), boxes, valid), IGNORED)


def candidates(rule, boxes, valid, proposals, proposed):
    """(boxes (g + n, 4), matches (g + n,)) of the objects, each its own, and the proposals of one image; `proposed` (n,) says which exist."""
    own = jnp.where(valid, jnp.arange(1, len(boxes) + 1), IGNORED)
    matched = jnp.where(proposed, rule.match(proposals, boxes, valid), IGNORED)
    return jnp.concatenate([boxes, proposals]), jnp.concatenate([own, matched]).astype(jnp.int32)


def rpn_losses(logits, deltas, anchors, matched, sampled, boxes, std):
    """(classification loss, box loss) of the region proposals, over the sampled anchors of all images.

    Args:
        logits, deltas: (b, n), (b, n, 4).
        anchors: (n, 4).
        matched: (b, n) of `match_anchors`.
        sampled: (b, m) of `sample`.
        boxes: (b, g, 4) of the objects.
        std: of the deltas.
    """
    used, at = sampled >= 0, jnp.maximum(sampled, 0)
    matched = jnp.take_along_axis(matched, at, 1)
    positive, negative = used & (matched > 0), used & (matched == 0)
    logits = jnp.take_along_axis(logits, at, 1)
    found = jnp.take_along_axis(deltas, at[..., None], 1)
    wanted = encode(anchors[at], of_object(boxes, matched), std)
    count = (jnp.maximum(positive.sum(1), 1) + jnp.maximum(negative.sum(1), 1)).sum()
    entropy = jnp.where(used, jax.nn.softplus(logits) - jnp.where(positive, logits, 0), 0)
    return entropy.sum() / count, jnp.where(positive[..., None], jnp.abs(found - wanted), 0).sum() / count


def box_losses(logits, deltas, labels, used, targets):
    """(classification loss, box loss) over the sampled boxes (n,).

    Args:
        logits, deltas: (n, classes + 1), (n, classes, 4).
        labels: (n,), classes, or their number for the background.
        used: (n,) bool.
        targets: (n, 4) deltas, read for objects only.
    """
    classes, count = deltas.shape[1], jnp.maximum(used.sum(), 1)
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    positive = used & (labels < classes)
    found = jnp.take_along_axis(deltas, jnp.minimum(labels, classes - 1)[:, None, None], 1)[:, 0]
    return jnp.where(used, entropy, 0).sum() / count, jnp.where(positive[:, None], jnp.abs(found - targets), 0).sum() / count


def mask_loss(logits, labels, positive, targets):
    """Mean binary cross-entropy of the masks of objects.

    Args:
        logits: (n, s, s, classes).
        labels, positive: (n,) classes, and which of them are of objects.
        targets: (n, s, s) bool.
    """
    side = logits.shape[1]
    x = jnp.take_along_axis(logits, jnp.clip(labels, 0, logits.shape[-1] - 1)[:, None, None, None], 3)[..., 0]
    entropy = jax.nn.softplus(x) - jnp.where(targets, x, 0)
    return jnp.where(positive[:, None, None], entropy, 0).sum() / (jnp.maximum(positive.sum(), 1) * side**2)


def of_object(values, matched):
    """Values (b, g, ...) of the objects that `matched` (b, m) names; of the first where it names none."""
    at = jnp.maximum(matched - 1, 0)
    return jnp.take_along_axis(values, at.reshape(*at.shape, *(1,) * (values.ndim - 2)), 1)


def mask_targets(masks, matched, boxes, size):
    """(b, m, size, size) bool: the objects' masks (b, g, H, W) along boxes (b, m, 4)."""
    return jax.vmap(lambda masks, index, boxes: crop(masks, index, boxes, size))(masks, jnp.maximum(matched - 1, 0), boxes)
