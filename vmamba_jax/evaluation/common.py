"""What every evaluation does: take a model as an argument, draw one key per image, judge, map over the mesh."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax import parallel


def argument(fn):
    """`fn` as a pytree that jit takes: as it is when it is one of arrays and numbers, else a `Partial` that holds it statically."""
    leaves = jax.tree.leaves(fn)
    plain = all(isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)) for leaf in leaves)
    return fn if plain else Partial(fn)


def right(logits, labels):
    """Which images are classified rightly, (b,) bool: the highest logit is the label's, and all are finite."""
    return (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)


@functools.lru_cache(maxsize=16)
def mapped(fn, mesh):
    """`parallel.map_batch`, once for each function and mesh."""
    return parallel.map_batch(fn, mesh, mesh.axis_names[0])
