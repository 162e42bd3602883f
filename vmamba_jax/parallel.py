"""Data parallelism: a mesh of devices, arrays laid out on it, and per-device steps mapped over it.

A step is written for one device with a named axis (`lax.pmean(x, axis_name)`); `map_step` maps it over all devices of the mesh, on one or
several hosts. The same step runs unchanged under `jax.pmap(step, axis_name=...)`.
"""
import functools
import hashlib
import os
import socket
import time

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vmamba_jax.core.gathered import on_host

# Environment variables that `initialize` reads for arguments that are None.
ENVIRONMENT = {"coordinator_address": "VMAMBA_JAX_COORDINATOR", "num_processes": "VMAMBA_JAX_PROCESSES", "process_id": "VMAMBA_JAX_PROCESS"}


def data_mesh(devices=None, axis_name="data"):
    """A one-dimensional mesh with one Auto axis over `devices`; None: all devices of all processes."""
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices=[]: expected at least one device")
    return Mesh(np.asarray(devices), (axis_name,), axis_types=(AxisType.Auto,))


def replicate(tree, mesh):
    """`tree` with every array or number copied to all devices of the mesh. Each of several processes must hold the same values."""
    sharding = NamedSharding(mesh, P())
    return jax.tree.map(lambda x: put(x, sharding), tree)


def put(x, sharding):
    """An array or number with a `NamedSharding`. Each of several processes must hold the same values, or their shards of one array."""
    if jax.process_count() == 1 or getattr(x, "sharding", None) == sharding:
        return jax.device_put(x, sharding)
    if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.jit(lambda x: x, out_shardings=sharding)(x)
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])  # device_put would compare it across processes


def shard_batch(batch, mesh):
    """A batch sharded evenly along its leading axis over the mesh.

    Args:
        batch: tree of arrays (rows, ...), the rows of this process. The global batch holds the rows of all processes.
        mesh: one-dimensional.

    Raises:
        ValueError: the number of rows is no multiple of this process's devices; see `weigh_padding`.
    """
    _check_rows(batch, mesh.local_mesh.size, "this process's devices")
    sharding = NamedSharding(mesh, P(mesh.axis_names[0]))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def pad_batch(batch, multiple):
    """(batch, number of real rows): every array padded along its leading axis to a multiple of `multiple` by repeating its last row."""
    if multiple < 1:
        raise ValueError(f"multiple={multiple}: expected >= 1")
    n = _rows(batch)
    if n == 0:
        raise ValueError("batch has 0 rows: expected at least one")
    rows = np.minimum(np.arange(-(-n // multiple) * multiple), n - 1)
    return jax.tree.map(lambda x: x[rows], batch), n


def weigh_padding(batch, multiple):
    """A dict of arrays padded by `pad_batch`, with "weight" (rows,) float32: the batch's own or 1, and 0 for the added rows.

    The objectives weigh examples by it. A batch that needs no padding is returned unchanged.
    """
    padded, n = pad_batch(batch, multiple)
    rows = _rows(padded)
    if rows == n:
        return batch
    return {**padded, "weight": np.where(np.arange(rows) < n, padded.get("weight", np.float32(1)), np.float32(0))}


def map_step(step, mesh, axis_name="data", donate=True, layout=None):
    """`step(state, batch, key, *, axis_name) -> (state, metrics)` mapped over the mesh and compiled.

    State and key are replicated and the batch is sharded along its leading axis. The outputs must be equal on all devices, so gradients and
    metrics end in `lax.pmean(..., axis_name)`.

    Args:
        donate: donate the buffers of the input state, which is then deleted.
        layout: function state -> (tree of its PartitionSpecs, further keywords of the step) for a state that is not replicated, such as
            `training.sharding.layout`; it gets whole shapes, the step gets shards.
    """
    _check_axis(mesh, axis_name)

    def mapped(state, batch, key):
        specs, options = (P(), {}) if layout is None else layout(state)
        return _mapped(functools.partial(step, axis_name=axis_name, **options), mesh, axis_name, (specs, P()), specs)(state, batch, key)
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


def map_batch(fn, mesh, axis_name="data"):
    """`fn(tree, batch, key)` -> per-example outputs, mapped over the mesh and compiled; tree and key replicated, the rest sharded."""
    return jax.jit(_mapped(fn, mesh, axis_name, P(axis_name)))


def _mapped(fn, mesh, axis_name, out_specs, tree_specs=None):
    _check_axis(mesh, axis_name)
    body = jax.shard_map(fn, mesh=mesh, in_specs=(P() if tree_specs is None else tree_specs, P(axis_name), P()), out_specs=out_specs, check_vma=False)

    def mapped(tree, batch, key):
        _check_rows(batch, mesh.size, "the devices of the mesh")
        return body(tree, batch, key)
    return mapped


def _check_axis(mesh, axis_name):
    if mesh.axis_names != (axis_name,):
        raise ValueError(f"axis_name={axis_name!r}: expected the one axis of the mesh, which has {mesh.axis_names}")


def to_host(tree):
    """`tree` with every array gathered as a NumPy array on every process. All processes must call it together."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def initialize(coordinator_address=None, num_processes=None, process_id=None, *, auto=False, initialization_timeout=300, **options):
    """Connect the processes of one run. Each process calls it once, before any other use of JAX.

    The first three arguments default to the environment variables VMAMBA_JAX_COORDINATOR, VMAMBA_JAX_PROCESSES and VMAMBA_JAX_PROCESS. CPUs
    communicate through gloo, JAX's default.

    Args:
        coordinator_address: "host:port" on which process 0 listens and which the other processes must reach.
        num_processes: number of processes; with 1, or if all three are missing, nothing is done.
        process_id: number of this process, 0 <= process_id < num_processes.
        auto: let JAX detect the three (Cloud TPU, GKE, Slurm, Open MPI); the environment variables are then ignored.
        initialization_timeout: seconds to wait for the other processes, >= 1.
        options: for `jax.distributed.initialize` (`local_device_ids`, `heartbeat_timeout_seconds`, ...).

    Raises:
        ValueError: an argument is missing, malformed or out of range. TimeoutError: process 0 is not reached.
    """
    if initialization_timeout < 1:
        raise ValueError(f"initialization_timeout={initialization_timeout}: expected >= 1 second")
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    if auto:
        if named := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"auto=True with {', '.join(named)}: expected one or the other")
        try:
            return jax.distributed.initialize(initialization_timeout=initialization_timeout, **options)
        except ValueError as error:  # JAX's message names only the argument that it lacks
            raise ValueError(f"auto=True, but JAX detects no cluster ({error}): expected {', '.join(given)}") from error
    given = {name: _from_environment(name) if value is None else value for name, value in given.items()}
    address, processes, process = given.values()
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return
    if processes is not None and processes < 1:
        raise ValueError(f"num_processes={processes}: expected >= 1")
    if processes == 1 and process in (None, 0):
        return
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: expected coordinator_address, num_processes and process_id together, as arguments or "
                         f"in the environment as {', '.join(ENVIRONMENT[name] for name in missing)}")
    if not 0 <= process < processes:
        raise ValueError(f"process_id={process}: expected 0 <= process_id < num_processes={processes}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator_address={address!r}: expected 'host:port'")
    since = time.monotonic()
    if process:
        _reach(host.strip("[]"), int(port), initialization_timeout)
    left = max(1, round(initialization_timeout - (time.monotonic() - since)))
    jax.distributed.initialize(address, processes, process, initialization_timeout=left, **options)


def _from_environment(name):
    text = os.environ.get(ENVIRONMENT[name]) or None
    if text is None or name == "coordinator_address":
        return text
    if not text.isdigit():
        raise ValueError(f"{ENVIRONMENT[name]}={text!r} in the environment: expected a whole number, {name}")
    return int(text)


def _reach(host, port, timeout):
    """Wait until host:port accepts a connection. JAX's own client would kill the process by a signal at its timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(1, deadline - time.monotonic())).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"coordinator_address='{host}:{port}': process 0 was not reached within {timeout:g} s ({error}): expected it "
                                   "to run there, and the port to be open to this host") from error
        time.sleep(0.2)


def fingerprint(tree):
    """SHA-256, in hexadecimal, of the bytes, dtypes and shapes of the arrays of `tree`, as this process holds them.

    Arrays that are sharded over processes are gathered, one at a time. All processes must call it together.

    Raises:
        RuntimeError: the copies of some processes differ from those of process 0; the message lists them.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        own = on_host(leaf)
        digest.update(f"{own.dtype}{own.shape}".encode() + np.ascontiguousarray(own).tobytes())
    if jax.process_count() > 1:
        everyones = multihost_utils.process_allgather(np.frombuffer(digest.digest(), np.uint8))
        if differing := np.flatnonzero((everyones != everyones[0]).any(-1)).tolist():
            raise RuntimeError(f"the arrays of processes {differing} differ from those of process 0: expected the same in all "
                               f"{jax.process_count()}")
    return digest.hexdigest()


def _rows(batch):
    lengths = {np.shape(x)[:1] for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"batch has leading axes {sorted(lengths)}: expected the same number of rows in every array")
    return lengths.pop()[0]


def _check_rows(batch, devices, whose):
    if (n := _rows(batch)) % devices:
        raise ValueError(f"batch has {n} rows: expected a multiple of {devices}, {whose} (weigh_padding and pad_batch pad to it)")
