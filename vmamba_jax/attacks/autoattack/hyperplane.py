"""The shortest way to a hyperplane inside the box, per image (Croce & Hein 2020, "Minimally distorted adversarial examples")."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import order


def shortest(norm, t, w, b, lower, upper):
    """The change d of least norm with <w, t + d> = b and t + d within [lower, upper]; to the box's corner where none reaches the plane.

    t and w are (batch, d), b (batch,). Every value has the room that the box leaves it on its side; what <w, t> - b is to change by, the
    values share: in linf equal lengths theta, in l2 lengths theta * |w|, each cut at its room; in l1 all room, from the largest |w| down.
    """
    gap = (w * t).sum(1) - b
    w, gap = w * jnp.where(gap >= 0, 1, -1)[:, None], jnp.abs(gap)[:, None]
    largest = jnp.abs(w).max(1, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)  # squares of small gradients would underflow
    w, gap = w / scale, gap / scale
    weight = jnp.where(jnp.abs(w) > 1e-8, jnp.abs(w), 0)
    room = jnp.where(w > 0, t - lower, upper - t)
    share = {"linf": lambda: jnp.minimum(_theta(weight, jnp.ones_like(w), room, gap), room),
             "l2": lambda: jnp.minimum(_theta(weight, weight, room, gap) * weight, room),
             "l1": lambda: _largest_first(weight, room, gap)}[norm]()
    return jnp.where(weight > 0, -jnp.sign(w) * share, 0)


def _theta(weight, speed, room, gap):
    """The theta with sum(weight * min(theta * speed, room)) = gap, as (batch, 1); one that uses up all room where none is.

    The sum is concave and piecewise linear in theta: Newton's method climbs to the root from 0, exactly and in a few steps.
    """
    def improve(state):
        theta, moving = state
        free = theta * speed < room
        slope = jnp.where(free, weight * speed, 0).sum(1, keepdims=True)
        full = jnp.where(free, 0, weight * room).sum(1, keepdims=True)
        reach = jnp.where(slope > 0, (gap - full) / jnp.where(slope > 0, slope, 1), jnp.inf)
        out = ~(slope > 0) & (gap > full)
        better = jnp.where(out, jnp.finfo(room.dtype).max, jnp.where(slope > 0, reach, theta))
        moving &= better > theta * (1 + 4 * jnp.finfo(room.dtype).eps)
        return jnp.where(moving, better, theta), moving

    theta = 0 * gap
    return lax.while_loop(lambda state: state[1].any(), improve, (theta, theta == 0))[0]


def _largest_first(weight, room, gap):
    """All room of the values of largest weight until the gap is closed, in proportion where the last of them tie: lengths (batch, d)."""
    worth = weight * room
    small = order.smallest_where(1 - weight, lambda mask: jnp.where(mask, worth, 0).sum(1, keepdims=True) >= gap)
    whole, last = 1 - weight < small, 1 - weight == small
    rest = gap - jnp.where(whole, worth, 0).sum(1, keepdims=True)
    ties = jnp.where(last, worth, 0).sum(1, keepdims=True)
    part = jnp.clip(rest / jnp.where(ties > 0, ties, 1), 0, 1)
    return jnp.where(whole, room, jnp.where(last, part * room, 0))
