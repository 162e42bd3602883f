"""From heads' outputs to boxes: region proposals and final detections of one image, at static shapes."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.models.dense.boxes import decode
from vmamba_jax.models.dense.suppression import nms


@dataclasses.dataclass(frozen=True)
class Proposals:
    """How proposals are chosen.

    Attributes:
        per_level: anchors of each level with the highest scores, which are decoded.
        count: proposals of an image.
        threshold: of the suppression within a level.
    """
    per_level: int = 1000
    count: int = 1000
    threshold: float = 0.7


@dataclasses.dataclass(frozen=True)
class Detections:
    """How detections are chosen.

    Attributes:
        score: a detection has a larger one.
        count: detections of an image.
        threshold: of the suppression within a class.
    """
    score: float = 0.05
    count: int = 100
    threshold: float = 0.5


def propose(logits, deltas, anchors, std, size, rule):
    """(boxes (count, 4), scores (count,), valid (count,)) of one image, the best first; boxes lie inside the image.

    Args:
        logits, deltas, anchors: of each level, [(n_i,), ...], [(n_i, 4), ...], [(n_i, 4), ...].
        std: of the deltas.
        size: (height, width) of the image without its padding.
        rule: `Proposals`.
    """
    boxes, scores, levels = [], [], []
    for i, (x, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
        score, best = jax.lax.top_k(jax.nn.sigmoid(x), min(rule.per_level, len(x)))
        boxes.append(decode(anchor[best], delta[best], std, size))
        scores.append(score)
        levels.append(jnp.full(len(best), i))
    boxes, scores, levels = map(jnp.concatenate, (boxes, scores, levels))
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = nms(boxes, jnp.where((sides > 0).all(1), scores, -jnp.inf), rule.threshold, levels, rule.count)
    return chosen(kept, boxes, scores)


def detect(logits, deltas, proposals, valid, std, size, rule):
    """(boxes (count, 4), scores (count,), labels (count,), valid (count,)) of one image, the best first; -1 labels what is not valid.

    Args:
        logits: (n, classes + 1), the background last.
        deltas: (n, classes, 4).
        proposals, valid: (n, 4), (n,) of `propose`.
        std, size: as for `propose`.
        rule: `Detections`.
    """
    classes = deltas.shape[1]
    scores = jax.nn.softmax(logits)[:, :-1]
    boxes = decode(proposals[:, None], deltas, std, size).reshape(-1, 4)
    candidates = jnp.where(valid[:, None] & (scores > rule.score), scores, -jnp.inf).reshape(-1)
    labels = jnp.tile(jnp.arange(classes, dtype=jnp.int32), len(logits))
    kept = nms(boxes, candidates, rule.threshold, labels, rule.count)
    found, scores, good = chosen(kept, boxes, scores.reshape(-1))
    return found, scores, jnp.where(good, labels[kept], -1), good


def chosen(kept, boxes, scores):
    """(boxes, scores, valid) at the indices `kept`, with zeros where they are -1."""
    valid = kept >= 0
    return jnp.where(valid[:, None], boxes[kept], 0), jnp.where(valid, scores[kept], 0), valid
