"""Nearest points of norm balls around zero, per image: `f(delta, eps)` for delta of shape (batch, ...)."""
import jax.numpy as jnp


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
    """Soft thresholding at theta = max_k (a_1 + ... + a_k - eps) / k over the sorted magnitudes a (Duchi et al. 2008, figure 1)."""
    a = jnp.abs(delta.reshape(len(delta), -1))
    total = jnp.cumsum(jnp.flip(jnp.sort(a, 1), 1), 1)
    theta = ((total - eps) / jnp.arange(1, a.shape[1] + 1, dtype=a.dtype)).max(1)
    return jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - per_image(jnp.maximum(theta, 0), delta), 0)


def radial(delta, eps, norm):
    """Shrink towards zero until inside: the nearest point in l2; in l1 and linf a point of the ball, but not the nearest."""
    size = length(delta, norm)
    shrink = jnp.where(size > eps, eps / jnp.where(size > 0, size, 1), 1)
    return delta * per_image(shrink, delta)
