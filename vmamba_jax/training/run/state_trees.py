"""A train state as it is saved: nested dicts of arrays, and how such a tree differs from the saved one."""
import jax
import numpy as np
from flax import serialization

from vmamba_jax.core.saved_steps import checksums


def tree(state):
    """The state as nested dicts, without a carry of None, so that checkpoints older than the carry can be restored."""
    nested = serialization.to_state_dict(state)
    return {name: nested[name] for name in nested if name != "carry" or nested[name] is not None}


def abstract(leaf):
    """Shape, dtype and sharding of an array; a number on the host as an array."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) if isinstance(leaf, jax.Array) else np.asarray(leaf)


def differences(wanted, saved):
    """Lines that list missing, unexpected and different arrays of a saved tree, given its shapes and dtypes; [] if it fits `wanted`."""
    wanted, saved = checksums.flat(wanted), checksums.flat(saved)
    lines = [f"missing in the checkpoint: {name} {_describe(wanted[name])}" for name in sorted(wanted.keys() - saved.keys())]
    lines += [f"unexpected in the checkpoint: {name} {_describe(saved[name])}" for name in sorted(saved.keys() - wanted.keys())]
    both = {name: (_describe(saved[name]), _describe(wanted[name])) for name in sorted(wanted.keys() & saved.keys())}
    return lines + [f"{name}: saved {old}, wanted {new}" for name, (old, new) in both.items() if old != new]


def _describe(leaf):
    return f"{np.dtype(leaf.dtype)}{tuple(leaf.shape)}"
