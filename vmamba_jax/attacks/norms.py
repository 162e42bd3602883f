"""Nearest points of norm balls around zero, per image: `f(delta, eps)` for delta of shape (batch, ...)."""
import jax.numpy as jnp
from jax import lax


def length(delta, norm):
    """The norm of each image's perturbation: (batch, ...) -> (batch,)."""
    a = jnp.abs(delta.reshape(len(delta), -1))
    match norm:
        case "linf":
            return a.max(1)
        case "l2":
            return jnp.sqrt((a * a).sum(1))
        case "l1":
            return a.sum(1)


def per_image(x, like):
    """(batch,) -> (batch, 1, ...), to broadcast against `like`."""
    return x.reshape(-1, *(1,) * (like.ndim - 1))


def linf(delta, eps):
    return jnp.clip(delta, -eps, eps)


def l2(delta, eps):
    return radial(delta, eps, "l2")


def l1(delta, eps):
    """Soft thresholding at theta = max_k (a_1 + ... + a_k - eps) / k over the sorted magnitudes a (Duchi et al. 2008, figure 1).

    Of values far above eps the difference from theta is rounded at their own size: what is then too long is shrunk into the ball.
    """
    a = jnp.abs(delta.reshape(len(delta), -1))
    total = jnp.cumsum(jnp.flip(jnp.sort(a, 1), 1), 1)
    theta = ((total - eps) / jnp.arange(1, a.shape[1] + 1, dtype=a.dtype)).max(1)
    return radial(jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - per_image(jnp.maximum(theta, 0), delta), 0), eps, "l1")


def radial(delta, eps, norm):
    """Shrink towards zero until inside: the nearest point in l2; in l1 and linf a point of the ball, but not the nearest."""
    size = length(delta, norm)
    shrink = jnp.where(size > eps, eps / jnp.where(size > 0, size, 1), 1)
    return delta * per_image(shrink, delta)


def l1_in_box(images, delta, eps, lower, upper):
    """The nearest perturbation to `delta` that has l1 norm <= eps and keeps images + delta within [lower, upper].

    It is sign(delta) * min(room, max(|delta| - theta, 0)), the room being what the box leaves, with the least theta >= 0 of norm <= eps
    (Croce & Hein 2021, section 2). The norm falls piecewise linearly in theta: bisection down to rounding, then the line solved.
    """
    a = jnp.abs(delta.reshape(len(delta), -1))
    room = jnp.where(delta > 0, upper - images, images - lower).reshape(a.shape)
    over = jnp.maximum(a - jnp.maximum(room, 0), 0)  # min(room, max(a - theta, 0)) = max(a - theta, 0) - max(over - theta, 0)

    def norm(theta):
        return (jnp.maximum(a - theta, 0) - jnp.maximum(over - theta, 0)).sum(1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        inside = norm(middle) <= eps
        return jnp.where(inside, low, middle), jnp.where(inside, middle, high)

    high = a.max(1, keepdims=True)
    low, high = lax.fori_loop(0, jnp.finfo(a.dtype).nmant + 4, halve, (0 * high, high))
    moving = (a > low).sum(1, keepdims=True) - (over > low).sum(1, keepdims=True)
    line = (jnp.where(a > low, a, 0) - jnp.where(over > low, over, 0)).sum(1, keepdims=True) - eps
    theta = jnp.clip(line / jnp.maximum(moving, 1).astype(a.dtype), low, high)
    theta = jnp.where(norm(0) <= eps, 0, theta)
    return jnp.sign(delta) * jnp.clip(a - theta, 0, a - over).reshape(delta.shape)
