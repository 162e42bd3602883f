"""A function over a mesh as a `Case`: compiled once, with its temporary memory recorded."""
import math

import jax

from experiments.benchmarks.timing import Case, Skip, rounded
from vmamba_jax import parallel


def mesh_for(batch, devices):
    """A mesh over as many of `devices` as divide the batch."""
    return parallel.data_mesh(devices[:math.gcd(batch, len(devices))])


def batch_case(fn, tree, batch, record, mesh, **options):
    """A `Case` of `fn(tree, batch, key)`, with the batch sharded over the mesh.

    Args:
        fn: per-device function.
        tree: arrays that are already replicated on the mesh.
        batch: arrays on the host.
        record: fields of the record.
        mesh: devices.
        options: further fields of the `Case`.
    """
    args = tree, parallel.shard_batch(batch, mesh), parallel.replicate(jax.random.key(0), mesh)
    compiled, facts = build(parallel.map_batch(fn, mesh), args, record)
    return Case(record | facts | {"devices": mesh.size}, lambda: compiled(*args), queued=queued(), program=compiled, **options)


def build(fn, args, record):
    """(compiled program, {"temp_mib": XLA's temporary memory per device}); raises Skip if the arguments cannot be compiled for."""
    try:
        compiled = fn.lower(*args).compile()
    except (RuntimeError, ValueError, TypeError) as error:  # a shape that the kernel does not support, a program that is too large
        raise Skip(f"{_title(record)}: {first_line(error)}") from error
    memory = compiled.memory_analysis()
    return compiled, {} if memory is None else {"temp_mib": rounded(memory.temp_size_in_bytes / 2**20)}


def _title(record):
    return " ".join(str(record[field]) for field in ("name", "backend", "pass", "size", "length", "channels", "dtype") if field in record)


def queued():
    """Whether several calls may be dispatched at once: an accelerator queues them, a CPU would run them concurrently."""
    return jax.default_backend() != "cpu"


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
