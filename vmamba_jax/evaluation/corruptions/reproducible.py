"""Keeping the compiler from making an array anew wherever it is read."""
import jax
import jax.numpy as jnp
from jax import lax


def fence(*arrays):
    """The arrays, of 32-bit types, computed once and stored: what reads them at several places is not fused with what makes them.

    A CPU's compiler drops `lax.optimization_barrier` before it fuses. There they are the state of a loop, of which it cannot know that it never
    runs. Returns a tuple, or the one array.
    """
    stored = _fence(arrays)
    return stored if len(arrays) > 1 else stored[0]


@jax.custom_batching.custom_vmap
def _fence(arrays):
    return lax.platform_dependent(arrays, cpu=_loop, default=lax.optimization_barrier)


@_fence.def_vmap
def _fence_batch(size, batched, arrays):
    del size
    return _fence(arrays), batched[0]


def _loop(arrays):
    first = lax.bitcast_convert_type(arrays[0].ravel()[0], jnp.int32)
    turns = first * first & 2  # 0: a square is 0 or 1 modulo 4
    return lax.while_loop(lambda state: state[0] > 0, lambda state: (state[0] - 1, tuple(x + state[0].astype(x.dtype) for x in state[1])),
                          (turns, arrays))[1]
