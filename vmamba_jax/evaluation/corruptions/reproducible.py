"""What makes results the same to the bit: an optimization barrier that also holds on CPUs, and rounding to gray levels."""
import jax
import jax.numpy as jnp
from jax import lax

SLACK = 1 / 4096  # of a level: the error of a whole level in float32


def barrier(*arrays):
    """The arrays, computed once and stored: operations that read them are not fused with those that compute them.

    XLA's CPU compiler removes `lax.optimization_barrier` before fusion. On CPUs the arrays are therefore the state of a loop that never
    runs, which the compiler cannot prove.

    Args:
        arrays: of 32-bit types.

    Returns a tuple, or the array itself for one.
    """
    stored = _barrier(arrays)
    return stored if len(arrays) > 1 else stored[0]


@jax.custom_batching.custom_vmap
def _barrier(arrays):
    return lax.platform_dependent(arrays, cpu=_loop, default=lax.optimization_barrier)


@_barrier.def_vmap
def _barrier_batch(size, batched, arrays):
    del size
    return _barrier(arrays), batched[0]


def _loop(arrays):
    first = lax.bitcast_convert_type(arrays[0].ravel()[0], jnp.int32)
    turns = first * first & 2  # always 0: a square is 0 or 1 modulo 4
    return lax.while_loop(lambda state: state[0] > 0, lambda state: (state[0] - 1, tuple(x + state[0].astype(x.dtype) for x in state[1])),
                          (turns, arrays))[1]


def truncated(x):
    """[0, 1] values truncated to multiples of 1/255, as `np.uint8(255 * x)` does."""
    return jnp.floor(jnp.clip(x, 0, 1) * 255 + SLACK) / 255


def rounded(x):
    """[0, 1] values at the nearest multiple of 1/255, halves rounded up."""
    return jnp.floor(jnp.clip(x, 0, 1) * 255 + (0.5 + SLACK)) / 255
