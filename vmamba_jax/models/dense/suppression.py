"""Non-maximum suppression at static shapes."""
import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.models.dense.boxes import overlaps


def nms(boxes, scores, threshold, groups=None, count=None):
    """(count,) int32: indices of the boxes kept, the best first, then -1.

    The best box is kept and suppresses those that overlap it by more than the threshold, and so on. Of boxes with equal scores, the first is
    better. The time is proportional to the number of boxes kept.

    Args:
        boxes: (n, 4), x1 y1 x2 y2.
        scores: (n,); a box with score -inf or NaN is never kept.
        threshold: intersection over union above which a box suppresses another of its group, in [0, 1].
        groups: (n,) integers; None: all boxes are of one group.
        count: largest number of boxes kept; None: n.
    """
    boxes, scores = jax.lax.stop_gradient((jnp.asarray(boxes), jnp.asarray(scores)))
    groups = None if groups is None else jnp.asarray(groups)
    checks.number("threshold", threshold, low=0, high=1)
    if boxes.shape != (*scores.shape, 4) or scores.ndim != 1:
        raise ValueError(f"boxes.shape={boxes.shape}, scores.shape={scores.shape}: expected (n, 4) and (n,)")
    count = len(scores) if count is None else checks.count("count", count, 0)

    def unfinished(state):
        step, alive, _ = state
        return (step < count) & alive.any()

    def advance(state):
        step, alive, kept = state
        best = jnp.where(alive, scores, -jnp.inf).argmax()
        suppressed = overlaps(boxes[best], boxes) > threshold
        if groups is not None:
            suppressed &= groups == groups[best]
        return step + 1, (alive & ~suppressed).at[best].set(False), kept.at[step].set(best.astype(jnp.int32))

    return jax.lax.while_loop(unfinished, advance, (0, scores > -jnp.inf, jnp.full(count, -1, jnp.int32)))[2]
