"""Order statistics of positive floats without sorting: their bit patterns order alike, so bisection over the bits is exact."""
import jax.numpy as jnp
from jax import lax


def _integers(a):
    kind = {16: jnp.int16, 32: jnp.int32, 64: jnp.int64}[jnp.finfo(a.dtype).bits]
    return lax.bitcast_convert_type(a, kind)


def smallest_where(a, enough):
    """Per row of `a` >= 0 (batch, d) the least number t with `enough(a <= t)`, as (batch, 1); the row's maximum if there is none.

    `enough` maps masks (batch, d) to (batch, 1) bool and, once true, stays true as the mask grows. The least such t is a value of the row.
    """
    bits = _integers(a)
    high = bits.max(1, keepdims=True)

    def halve(_, bracket):
        low, high = bracket
        middle = low + (high - low) // 2
        met = enough(bits <= middle)
        return jnp.where(met, low, jnp.minimum(middle + 1, high)), jnp.where(met, middle, high)

    high = lax.fori_loop(0, jnp.finfo(a.dtype).bits, halve, (0 * high, high))[1]
    return lax.bitcast_convert_type(high, a.dtype)


def kth_smallest(a, k):
    """The value of rank k (batch,), from 0, in each row of `a` >= 0 (batch, d): (batch, 1)."""
    return smallest_where(a, lambda mask: mask.sum(1, keepdims=True) > k[:, None])
