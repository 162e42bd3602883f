"""The scan's candidates: every backend that can run here, and what one would write without a kernel."""
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import pallas_kernels
from experiments.benchmarks.compiled import batch_case, build, mesh_for, queued
from experiments.benchmarks.timing import Case
from experiments.common.cli import ConfigError
from vmamba_jax import parallel

PALLAS = {"tpu": "pallas_tpu", "gpu": "pallas_gpu"}
BACKENDS = ("pallas", "xla", "reference", "associative")
PASSES = ("forward", "gradient")
OPERATIONS = ("selective_scan", "cross_selective_scan")
# What must move, gradient with its forward pass: arrays of all channels in the arguments' dtype and in float32 (y and its cotangent), and how
# often what else a position has (B and C, for the cross scan the low-rank steps too) is read, and its gradient written.
MOVED = {"selective_scan": {"forward": (2, 1, 1), "gradient": (6, 2, 3)},
         "cross_selective_scan": {"forward": (1, 1, 1), "gradient": (3, 2, 3)}}


def groups(config, devices):
    """Lists of functions that make a `Case` each: what is timed together. A copy of memory is in every one."""
    section = config.scan
    for field, known in (("operations", OPERATIONS), ("backends", BACKENDS), ("passes", PASSES)):
        if unknown := [name for name in section[field] if name not in known]:
            raise ConfigError(f"config.scan.{field}: {unknown[0]!r} is not known; expected some of {', '.join(known)}")
    backends = [PALLAS.get(jax.default_backend()) if name == "pallas" else name for name in section.backends]
    copying = functools.partial(copy, config.copy_mib, devices)
    yield [functools.partial(nothing, devices)]
    for operation, state, batch in itertools.product(section.operations, section.states, section.batches):
        for length, channels in section.shapes:
            if operation == "cross_selective_scan" and math.isqrt(length) ** 2 != length:
                raise ConfigError(f"config.scan.shapes: length {length} is no square map, which cross_selective_scan needs")
            for which in section.passes:
                shape = (batch, length, channels, state)
                yield [copying] + [functools.partial(scan, operation, name, which, shape, section.dtype, devices, config.seed)
                                   for name in backends if name]


def copy(mib, devices):
    """x + 1 in place over an array of `mib` MiB: what memory can do, read once and written once.

    In place, because a fresh result of this size may cost a CPU more in page faults than the copy itself.
    """
    mesh = parallel.data_mesh(devices)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    x = jax.jit(lambda: jnp.zeros((len(devices), max(mib, 1) * 2**18 // len(devices))), out_shardings=sharding)()
    record = {"what": "copy", "name": "x + 1", "backend": "xla", "pass": "forward", "dtype": "float32", "devices": len(devices)}
    compiled, _ = build(jax.jit(lambda x: x + 1, donate_argnums=0), (x,), record)

    def run():
        nonlocal x
        x = compiled(x)
        return x

    return Case(record, run, queued=queued(), bytes=2 * x.nbytes)


def nothing(devices):
    """x + 1 over one number a device: what a call costs by itself."""
    record = {"what": "call", "name": "x + 1", "backend": "xla", "pass": "forward", "dtype": "float32"}
    return batch_case(lambda tree, x, key: x + 1, {}, np.ones(len(devices), np.float32), record, parallel.data_mesh(devices))


def scan(operation, backend, which, shape, dtype, devices, seed):
    """One backend of an operation, forward or with the gradient of every input. shape: (batch, length, channels, state)."""
    batch, length, channels, state = shape
    run, mesh = function(operation, backend), mesh_for(batch, devices)
    inputs, weights, packed = operands(operation, shape, np.random.default_rng(seed))
    inputs = {name: np.asarray(x, jnp.dtype(dtype)) for name, x in inputs.items()}
    if which == "gradient":
        inputs["dy"] = np.ones(inputs["u"].shape, np.float32)

    def forward(weights, x, key):
        return run(**x, **weights)

    def gradient(weights, x, key):
        x = dict(x)
        dy = x.pop("dy")
        y, pullback = jax.vjp(lambda x, weights: run(**x, **weights), x, weights)
        return y, pullback(dy)

    record = {"what": "scan", "name": operation, "backend": backend, "pass": which, "batch": batch, "length": length, "channels": channels,
              "state": state, "dtype": dtype}
    (narrow, wide, times), item = MOVED[operation][which], jnp.dtype(dtype).itemsize
    moved = batch * length * ((narrow * item + wide * 4) * channels + times * item * packed)
    return batch_case(forward if which == "forward" else gradient, parallel.replicate(weights, mesh), inputs, record, mesh, bytes=moved)


def operands(operation, shape, rng):
    """(inputs with a batch axis, weights, numbers per position besides the channels) of an operation, all by the names of its arguments."""
    batch, length, channels, state = shape
    normal = lambda *shape: rng.standard_normal(shape, np.float32)
    if operation == "selective_scan":
        inputs = {"u": normal(batch, length, channels), "delta": normal(batch, length, channels) - 2, "B": normal(batch, length, 1, state),
                  "C": normal(batch, length, 1, state)}
        return inputs, {"A": -np.exp(normal(channels, state)), "D": normal(channels), "delta_bias": normal(channels)}, 2 * state
    side, rank = math.isqrt(length), -(-channels // 16)  # the rank that VMamba takes
    plane = (batch, side, side)
    inputs = {"u": normal(*plane, channels), "steps": normal(*plane, 4, rank), "B": normal(*plane, 4, state), "C": normal(*plane, 4, state)}
    weights = {"dt_weight": normal(4, channels, rank) / rank, "A": -np.exp(normal(4, channels, state)), "D": normal(4, channels),
               "delta_bias": normal(4, channels) - 2}
    return inputs, weights, 4 * (rank + 2 * state)


def function(operation, backend):
    """The operation in a backend, to be called with the names of its arguments."""
    return functools.partial(getattr(pallas_kernels, operation), implementation=backend)
