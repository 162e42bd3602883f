"""Matching of prior boxes with objects, and random samples of the matches, for training.

Source: Ren et al. 2015, arXiv 1506.01497, section 3.1.2; MMDetection's MaxIoUAssigner and RandomSampler.
"""
import jax
import jax.numpy as jnp

from vmamba_jax.models.dense.boxes import overlaps

IGNORED, BACKGROUND = -1, 0  # of a match; i + 1 is object i


def match(priors, boxes, positive, negative, low_quality, least=None, valid=None):
    """(n,) int32: the object of each prior box, -1 ignored, 0 background, i + 1 object i.

    Args:
        priors: (n, 4), x1 y1 x2 y2.
        boxes: (g, 4), of the objects.
        positive: intersection over union from which a prior has the object that it overlaps most.
        negative: intersection over union below which it is background.
        low_quality: every object that a prior overlaps by `least` also gets the priors that overlap it most, whatever else they overlap; a prior
            that is the best of several objects gets the last of them.
        least: None: `negative`, as in the published configurations.
        valid: (g,) bool: the objects that exist; None: all.
    """
    priors, boxes = jnp.asarray(priors), jnp.asarray(boxes)
    if not len(boxes):
        return jnp.zeros(len(priors), jnp.int32)
    found = overlaps(boxes[:, None], priors)                                              # (g, n)
    if valid is not None:
        found = jnp.where(valid[:, None], found, -1)
    best = found.max(0)
    matched = jnp.where(best >= positive, found.argmax(0).astype(jnp.int32) + 1, jnp.where(best < negative, BACKGROUND, IGNORED))
    if not low_quality:
        return matched
    highest = found.max(1, keepdims=True)
    chosen = (found == highest) & (highest >= (negative if least is None else least)) & (highest >= 0)
    last = (chosen * jnp.arange(1, len(boxes) + 1, dtype=jnp.int32)[:, None]).max(0)
    return jnp.where(last > 0, last, matched)


def sample(key, matched, count, fraction):
    """(count,) int32: indices of a random sample of matches without the ignored ones, positives first, then negatives, then -1.

    Args:
        key: random key.
        matched: (n,) of `match`.
        count: size of the sample.
        fraction: largest share of positives; negatives take the other places.
    """
    order = jax.random.uniform(key, matched.shape)
    pick = lambda member, k: _first(jnp.where(member, order, jnp.inf), k)
    positives = pick(matched > 0, min(int(count * fraction), len(matched)))
    taken = (positives >= 0).sum()
    both = jnp.concatenate([positives, pick(matched == BACKGROUND, min(count, len(matched)))])
    keep = (both >= 0) & ((jnp.arange(len(both)) < len(positives)) | (jnp.arange(len(both)) - len(positives) < count - taken))
    both = both[jnp.argsort(~keep, stable=True)][:count]
    return jnp.pad(jnp.where(jnp.arange(len(both)) < keep.sum(), both, -1), (0, count - len(both)), constant_values=-1)


def _first(order, count):
    """Indices of the `count` smallest finite values, then -1."""
    value, index = jax.lax.top_k(-order, count)
    return jnp.where(value > -jnp.inf, index, -1).astype(jnp.int32)
