"""Geometry of the l-infinity, l2 and l1 norms, per image: lengths, projections, steepest ascent, random points, order statistics."""
import math

import jax
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
    """(batch,) -> (batch, 1, ...), which broadcasts against `like`."""
    return x.reshape(-1, *(1,) * (like.ndim - 1))


def linf(delta, eps):
    """The nearest point to `delta` in the l-infinity ball of radius `eps` around zero."""
    return jnp.clip(delta, -eps, eps)


def l2(delta, eps):
    """The nearest point to `delta` in the l2 ball of radius `eps` around zero."""
    return radial(delta, eps, "l2")


def l1(delta, eps):
    """The nearest point to `delta` in the l1 ball of radius `eps` around zero.

    Soft thresholding at theta = max_k (a_1 + ... + a_k - eps) / k over the sorted magnitudes a. For values far above `eps` the difference
    from theta is rounded at the values' own precision; a result that is too long is shrunk into the ball.

    Source: Duchi et al. 2008, figure 1.
    """
    a = jnp.abs(delta.reshape(len(delta), -1))
    total = jnp.cumsum(jnp.flip(jnp.sort(a, 1), 1), 1)
    theta = ((total - eps) / jnp.arange(1, a.shape[1] + 1, dtype=a.dtype)).max(1)
    return radial(jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - per_image(jnp.maximum(theta, 0), delta), 0), eps, "l1")


def radial(delta, eps, norm):
    """`delta` scaled down until its norm is at most `eps`: the nearest point of the ball in l2, a point of it in l1 and linf."""
    size = length(delta, norm)
    shrink = jnp.where(size > eps, eps / jnp.where(size > 0, size, 1), 1)
    return delta * per_image(shrink, delta)


def l1_in_box(images, delta, eps, lower, upper):
    """The nearest perturbation to `delta` that has l1 norm <= eps and keeps images + delta within [lower, upper].

    It is sign(delta) * min(slack, max(|delta| - theta, 0)), where slack is the distance to the box's side, for the least theta >= 0 of norm
    <= eps. The norm falls piecewise linearly in theta: bisection down to rounding, then one linear solve.

    Source: Croce & Hein 2021, section 2.
    """
    a = jnp.abs(delta.reshape(len(delta), -1))
    slack = jnp.where(delta > 0, upper - images, images - lower).reshape(a.shape)
    over = jnp.maximum(a - jnp.maximum(slack, 0), 0)  # min(slack, max(a - theta, 0)) = max(a - theta, 0) - max(over - theta, 0)

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


def unit(gradient, norm):
    """gradient / |gradient|, per image; zero if the gradient is zero.

    The largest magnitude is divided out first: the squares of a confident model's gradients underflow in float32.
    """
    largest = per_image(length(gradient, "linf"), gradient)
    x = gradient / jnp.where(largest > 0, largest, 1)
    size = per_image(length(x, norm), x)
    return x / jnp.where(size > 0, size, 1)


def ascent(threat, l1_fraction=None):
    """The direction of steepest ascent in a threat model's norm, as a function (gradient, x) -> step of length 1.

    linf: the gradient's sign. l2: the normalized gradient. l1: the normalized gradient, or with `l1_fraction` equal steps, by sign, on that
    fraction of the values: those of largest gradient, except values that would leave the box.

    Source: Tramer & Boneh 2019, section 4 (SLIDE; 1 - l1_fraction is their quantile q).
    """
    if threat.norm == "linf":
        return lambda gradient, x: jnp.sign(gradient)
    if threat.norm == "l2" or l1_fraction is None:
        return lambda gradient, x: unit(gradient, threat.norm)

    def sparse(gradient, x):
        stuck = ((x <= threat.lower) & (gradient < 0)) | ((x >= threat.upper) & (gradient > 0))
        gradient = jnp.where(stuck, 0, gradient)
        a = jnp.abs(gradient.reshape(len(gradient), -1))
        k = max(1, round(l1_fraction * a.shape[1]))
        threshold = per_image(lax.top_k(a, k)[0][:, -1], gradient)
        return unit(jnp.where(jnp.abs(gradient) >= threshold, jnp.sign(gradient), 0), "l1")
    return sparse


def uniform_in_ball(images, keys, norm, mask=None):
    """A random point of the unit ball around zero, uniform by volume, per image: the shape and dtype of `images`.

    linf: independent uniform values. l2: a Gaussian direction at radius U^(1/d) for d values per image. l1: signed exponential spacings.

    Args:
        images: (batch, H, W, C).
        keys: one random key per image.
        norm: "linf", "l2" or "l1".
        mask: bool, broadcastable to `images`: the ball of the masked values alone, zero elsewhere; None: all values.
    """
    shape, dtype, d = images.shape[1:], images.dtype, math.prod(images.shape[1:])

    def draw(key, mask=None):
        only = (lambda x: x) if mask is None else (lambda x: mask * x)
        one, two = jax.random.split(key)
        match norm:
            case "linf":
                return only(jax.random.uniform(key, shape, dtype, -1, 1))
            case "l2":
                x = only(jax.random.normal(one, shape, dtype))
                size = jnp.sqrt((x * x).sum())
                count = d if mask is None else jnp.maximum(mask.sum(dtype=jnp.float32), 1).astype(dtype)
                return x / jnp.where(size > 0, size, 1) * jax.random.uniform(two, (), dtype) ** (1 / count)
            case "l1":
                x = jax.random.exponential(one, (d + 1,), dtype)
                inside = only(x[:d].reshape(shape))
                total = x.sum() if mask is None else inside.sum() + x[d]
                return inside / total * jax.random.rademacher(two, shape, dtype)

    return jax.vmap(draw)(keys) if mask is None else jax.vmap(draw)(keys, jnp.broadcast_to(mask, images.shape))


def random_direction(images, keys, norm):
    """A random direction per image, not normalized: uniform values in [-1, 1] for linf, standard Gaussian values for l2 and l1.

    Args:
        images: (batch, H, W, C), for shape and dtype.
        keys: one random key per image.
        norm: "linf", "l2" or "l1".
    """
    def draw(key):
        shape, dtype = images.shape[1:], images.dtype
        return jax.random.uniform(key, shape, dtype, -1, 1) if norm == "linf" else jax.random.normal(key, shape, dtype)
    return jax.vmap(draw)(keys)


def smallest_where(a, enough):
    """Per row of `a` >= 0 (batch, d) the least number t with `enough(a <= t)`, as (batch, 1); the row's maximum if there is none.

    Bit patterns of positive floats are ordered like the floats, so bisection over the bits is exact and needs no sort.

    Args:
        a: (batch, d), floating, >= 0.
        enough: masks (batch, d) -> (batch, 1) bool; stays true as the mask grows. The least such t is a value of the row.
    """
    kind = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[jnp.finfo(a.dtype).bits]
    bits = lax.bitcast_convert_type(a, kind)
    high = bits.max(1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket
        middle = low + (high - low) // 2
        met = enough(bits <= middle)
        return jnp.where(met, low, jnp.minimum(middle + 1, high)), jnp.where(met, middle, high)

    high = lax.fori_loop(0, jnp.finfo(a.dtype).bits, halve, (0 * high, high))[1]
    return lax.bitcast_convert_type(high, a.dtype)


def kth_smallest(a, k):
    """The value of rank k (batch,), counted from 0, in each row of `a` >= 0 (batch, d): (batch, 1)."""
    return smallest_where(a, lambda mask: mask.sum(1, keepdims=True) > k[:, None])
