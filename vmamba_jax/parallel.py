"""Data parallelism: a mesh of devices, arrays laid out on it, and per-device steps mapped over it.

A step is written for one device with a named axis (`lax.pmean(x, axis_name)`); `map_step` runs it on every device of the mesh, on one host
or many. The same step runs unchanged under `jax.pmap(step, axis_name=...)`.
"""
import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def data_mesh(devices=None, axis_name="data"):
    """A one-dimensional mesh over `devices` (default: all, of all processes), with one Auto axis."""
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices=[]: expected at least one device")
    return Mesh(np.asarray(devices), (axis_name,), axis_types=(AxisType.Auto,))


def replicate(tree, mesh):
    """Copy every array or number of `tree` to all devices of the mesh. With several processes, each must hold the same values."""
    sharding = NamedSharding(mesh, P())

    def copy(x):
        if jax.process_count() == 1 or getattr(x, "sharding", None) == sharding:
            return jax.device_put(x, sharding)
        if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))  # device_put would compare it with the other processes'
    return jax.tree.map(copy, tree)


def shard_batch(batch, mesh):
    """Lay a batch out over the mesh, leading axis split evenly.

    Args:
        batch: tree of arrays (rows, ...): the rows that this process holds. The global batch is that of all processes together.
        mesh: one-dimensional.

    Raises ValueError where the rows do not divide by this process's devices; see `pad_batch`.
    """
    _check_rows(batch, mesh.local_mesh.size, "this process's devices")
    sharding = NamedSharding(mesh, P(mesh.axis_names[0]))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def pad_batch(batch, multiple):
    """(batch, number of real rows): the leading axis of every array grown to a multiple of `multiple` by repeating its last row."""
    if multiple < 1:
        raise ValueError(f"multiple={multiple}: expected >= 1")
    n = _rows(batch)
    if n == 0:
        raise ValueError("batch has 0 rows: expected at least one, to repeat")
    rows = np.minimum(np.arange(-(-n // multiple) * multiple), n - 1)
    return jax.tree.map(lambda x: x[rows], batch), n


def map_step(step, mesh, axis_name="data", donate=True):
    """Jit `step(state, batch, key, *, axis_name) -> (state, metrics)` over the mesh.

    State and key are the same on every device, the batch is split along its leading axis, and what the step returns must again be the
    same everywhere, so its gradients and metrics end in `lax.pmean(..., axis_name)`. `donate` lets the new state take the old one's
    memory: the state passed in is then used up.
    """
    _check_axis(mesh, axis_name)
    body = jax.shard_map(functools.partial(step, axis_name=axis_name), mesh=mesh, in_specs=(P(), P(axis_name), P()), out_specs=P(),
                         check_vma=False)

    def mapped(state, batch, key):
        _check_rows(batch, mesh.size, "the devices of the mesh")
        return body(state, batch, key)
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


def map_batch(fn, mesh, axis_name="data"):
    """Jit `fn(tree, batch, key)` -> per-example outputs over the mesh: tree and key on every device, batch and outputs split alike."""
    _check_axis(mesh, axis_name)
    body = jax.shard_map(fn, mesh=mesh, in_specs=(P(), P(axis_name), P()), out_specs=P(axis_name), check_vma=False)

    def mapped(tree, batch, key):
        _check_rows(batch, mesh.size, "the devices of the mesh")
        return body(tree, batch, key)
    return jax.jit(mapped)


def to_host(tree):
    """Every array of `tree` whole, as numpy, on every process. All processes must call it together."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def initialize(coordinator_address=None, num_processes=None, process_id=None, *, auto=False, **options):
    """Join the processes of one run: before any other use of JAX, once in each.

    Args:
        coordinator_address: "host:port" of process 0.
        num_processes: how many there are; 1, or nothing given at all, is a run of one process, and nothing is done.
        process_id: this process, 0 <= process_id < num_processes.
        auto: instead of the three, let JAX find them (Cloud TPU, GKE, Slurm, Open MPI).
        options: as of `jax.distributed.initialize` (`local_device_ids`, `initialization_timeout`, ...).
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if auto:
        if len(missing) < 3:
            raise ValueError(f"auto=True with {', '.join(sorted(set(given) - set(missing)))}: expected one or the other")
        return jax.distributed.initialize(**options)
    if len(missing) == 3:
        return
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"num_processes={num_processes}: expected >= 1")
    if num_processes == 1:
        return
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: expected coordinator_address, num_processes and process_id together")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"process_id={process_id}: expected 0 <= process_id < num_processes={num_processes}")
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator_address={coordinator_address!r}: expected 'host:port'")
    jax.distributed.initialize(coordinator_address, num_processes, process_id, **options)


def _rows(batch):
    lengths = {np.shape(x)[:1] for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"batch has leading axes {sorted(lengths)}: expected the same number of rows in every array")
    return lengths.pop()[0]


def _check_rows(batch, devices, whose):
    if (n := _rows(batch)) % devices:
        raise ValueError(f"batch has {n} rows: expected a multiple of {devices}, {whose} (pad_batch makes it one)")


def _check_axis(mesh, axis_name):
    if mesh.axis_names != (axis_name,):
        raise ValueError(f"axis_name={axis_name!r}: expected the one axis of the mesh, which has {mesh.axis_names}")
