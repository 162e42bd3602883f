"""Whole arrays on the host, also of arrays that are sharded over processes."""
import jax
import numpy as np
from jax.experimental import multihost_utils


def on_host(array):
    """All of an array as a NumPy array.

    Args:
        array: a number or array. One that is sharded over processes is gathered, so all processes must call this together.
    """
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
