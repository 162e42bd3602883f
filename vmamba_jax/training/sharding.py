"""Where the arrays of a train state lie on a mesh, and the collectives of a step on them.

"replicated": every device has the whole state. "fsdp" (fully sharded data parallelism): weights, optimizer state and running average are sharded over
the devices. A step gathers the weights once, before the attack, and adds the gradients of all devices where each shard lies; the update then reads and
writes shards only. Between steps a device has 1 / devices of the state; during a step it also has the whole weights and their gradients.

Source: Rajbhandari et al., "ZeRO" (arXiv 1910.02054); Zhao et al., "PyTorch FSDP" (arXiv 2304.11277).
"""
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.training.optimization import elementwise

SHARDINGS = ("replicated", "fsdp")
SHARDED = ("params", "opt_state", "ema")  # fields of a `TrainState`
SMALLEST = 1024  # elements; smaller arrays are replicated: they have under 6 % of any catalog model's share of 8 devices, and most of its arrays
REPLICATED = -1


def axis_of(shape, devices):
    """The axis of an array that is sharded over so many devices: the longest that they divide, of equal ones the first.

    `REPLICATED` if there is none, or if the array has fewer than `SMALLEST` elements.
    """
    fitting = [i for i, n in enumerate(shape) if n % devices == 0] if math.prod(shape) >= SMALLEST and devices > 1 else []
    return max(fitting, key=lambda i: (shape[i], -i), default=REPLICATED)


def specs(state, mesh, sharding):
    """The PartitionSpec of every array of a `TrainState`, as a tree of its structure.

    Args:
        state: of arrays, or of their shapes as `jax.eval_shape` gives them.
        mesh: one-dimensional.
        sharding: one of `SHARDINGS`.
    """
    checks.choice("sharding", sharding, SHARDINGS)

    def spec(path, leaf):
        axis = axis_of(leaf.shape, mesh.size) if sharding == "fsdp" and path[0].name in SHARDED else REPLICATED
        return P() if axis == REPLICATED else P(*[None] * axis, mesh.axis_names[0])

    return jax.tree_util.tree_map_with_path(spec, state)


def shardings(state, mesh, sharding):
    """The NamedSharding of every array of a `TrainState`; arguments as for `specs`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(state, mesh, sharding))


def template(shapes, mesh, sharding):
    """Shapes, dtypes and shardings of a `TrainState` of `jax.eval_shape`, as `Checkpoints.restore` takes them."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, shardings(shapes, mesh, sharding))


def check(step, params, mesh, sharding):
    """Raise unless a step can run on a state with this sharding.

    Args:
        step: as of `training.train`.
        params: the weights, or their shapes, with their shardings.
        mesh: None: one device.
        sharding: one of `SHARDINGS`, ValueError for any other.
    """
    if checks.choice("sharding", sharding, SHARDINGS) == "replicated":
        return
    if mesh is None:
        raise ValueError(f"mesh=None with sharding={sharding!r}: expected a mesh, such as parallel.data_mesh()")
    if not hasattr(step, "optimizer"):
        raise TypeError(f"step_fn={step!r} with sharding={sharding!r}: expected a Step of training.objectives")
    elementwise.check(step.optimizer, params, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype), params))


def place(state, mesh, sharding):
    """A `TrainState` with its arrays where `specs` has them. Each of several processes must hold the same values."""
    return jax.tree.map(parallel.put, state, shardings(state, mesh, sharding))


def bytes_per_device(tree):
    """Bytes of a tree's arrays on the device that has most of them, from the arrays' shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def layout(mesh, sharding):
    """The argument `layout` of `parallel.map_step` for a step of `objectives`; None for "replicated"."""
    if checks.choice("sharding", sharding, SHARDINGS) == "replicated":
        return None
    axis_name = mesh.axis_names[0]
    return lambda state: (specs(state, mesh, sharding), {"shards": Shards(axis_name, jax.tree.map(lambda x: axis_of(x.shape, mesh.size), state.params))})


@dataclasses.dataclass(frozen=True)
class Whole:
    """The collectives of a step whose weights are whole on every device.

    Attributes:
        axis_name: the mapped axis; None: one device.
    """
    axis_name: str | None = None

    def gather(self, tree):
        """The whole arrays of a tree of the weights' structure."""
        return tree

    def mean(self, grads, rest, dtype=None):
        """(gradients as the optimizer takes them, `rest`), both averaged over the devices; `dtype`: of the gradients' sum, None: their own."""
        if self.axis_name is None:
            return grads, rest
        means, rest = lax.pmean((_cast(grads, dtype), rest), self.axis_name)
        return _as(means, grads), rest

    def norm(self, tree):
        """Global norm of a tree of the gradients' structure."""
        return optax.tree.norm(tree)


@dataclasses.dataclass(frozen=True)
class Shards:
    """The collectives of a step on a device's shards of the weights; methods as of `Whole`.

    Attributes:
        axis_name: the mapped axis.
        axes: tree of the weights' structure, the sharded axis of each or `REPLICATED`.
    """
    axis_name: str
    axes: Any

    def gather(self, tree):
        return jax.tree.map(lambda x, k: x if k == REPLICATED else lax.all_gather(x, self.axis_name, axis=k, tiled=True), tree, self.axes)

    def mean(self, grads, rest, dtype=None):
        narrow, devices = _cast(grads, dtype), lax.psum(1, self.axis_name)
        scatter = lambda g, k: lax.psum_scatter(g, self.axis_name, scatter_dimension=k, tiled=True) / devices
        leaves, structure = jax.tree.flatten(narrow)
        axes = jax.tree.leaves(self.axes)
        small, rest = lax.pmean(([g for g, k in zip(leaves, axes, strict=True) if k == REPLICATED], rest), self.axis_name)
        small = iter(small)
        means = [next(small) if k == REPLICATED else scatter(g, k) for g, k in zip(leaves, axes, strict=True)]
        return _as(structure.unflatten(means), grads), rest

    def norm(self, tree):
        squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x)), tree)
        sharded, small = ([s for s, k in zip(jax.tree.leaves(squares), jax.tree.leaves(self.axes), strict=True) if (k == REPLICATED) == whole]
                          for whole in (False, True))
        return jnp.sqrt(lax.psum(sum(sharded), self.axis_name) + sum(small))


def _cast(tree, dtype):
    return tree if dtype is None else jax.tree.map(lambda x: x.astype(dtype), tree)


def _as(tree, like):
    """A tree in the dtypes of another one."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)
